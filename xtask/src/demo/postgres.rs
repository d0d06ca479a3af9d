//! A throw-away Postgres, set up as Debian's packages set up theirs: TLS on with a self-signed certificate, passwords by
//! SCRAM.
//!
//! Reads: where PostgreSQL's programs are. Yields: a running server and its URL. Costs: 3 s and 40 MB in the scratch
//! folder. It listens on a port of the loopback address alone and opens no Unix socket, so that it meets no other server.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{End, Part, Stop, free_ports};
use crate::setup::apt;
use crate::workspace::{find_program, is_executable, output_of, shown};

/// Name of the role and of the database.
const NAME: &str = "shop";
/// Attempts to start, each on another port, should somebody take it first.
const ATTEMPTS: usize = 3;

/// PostgreSQL's programs.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
    /// `postgres (PostgreSQL) 15.18 (…)`.
    pub version: String,
}

/// Finds the newest one: Debian keeps each major version in a folder of its own and links none of them into `PATH`.
pub fn find() -> Result<Programs> {
    let mut folders: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        if let Ok(major) = entry.file_name().to_string_lossy().parse() {
            folders.push((major, entry.path().join("bin")));
        }
    }
    folders.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    let in_path = find_program("initdb").and_then(|initdb| Some(initdb.parent()?.to_owned()));
    let folder = folders
        .into_iter()
        .map(|(_, folder)| folder)
        .chain(in_path)
        .find(|folder| is_executable(&folder.join("initdb")) && is_executable(&folder.join("postgres")))
        .context("initdb and postgres are neither in PATH nor in /usr/lib/postgresql")?;
    find_program("openssl").context("openssl is not installed")?;
    let version = output_of(Command::new(folder.join("postgres")).arg("--version"))?.trim().to_owned();
    Ok(Programs { folder, version })
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub part: Part,
    /// `postgres://…`, with the password.
    pub url: String,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

/// Creates a cluster in `folder` and starts its server.
pub fn start(folder: &Path, stop: &Stop) -> Result<Server> {
    let programs = find()?;
    let data = folder.join("postgres");
    let password = password()?;
    fs::create_dir(&data)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    let owner = owner()?;
    give(&data, owner)?;
    // Postgres refuses to run as root, hence its own user there. Set here rather than by `runuser`, which would take
    // the process out of our hands.
    let as_owner = |program: PathBuf| {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8").current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        command
    };
    let cluster = data.join("data");
    let pwfile = data.join("password");
    fs::write(&pwfile, &password)?;
    fs::set_permissions(&pwfile, fs::Permissions::from_mode(0o600))?;
    give(&pwfile, owner)?;
    let mut initdb = as_owner(programs.folder.join("initdb"));
    initdb.args(["--username", NAME, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync", "--pgdata"]);
    initdb.arg(&cluster).arg("--pwfile").arg(&pwfile);
    quietly(&mut initdb)?;
    fs::remove_file(&pwfile)?;
    let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
    let mut openssl = as_owner("openssl".into());
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"]);
    openssl.arg(&key).arg("-out").arg(&certificate);
    quietly(&mut openssl)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    create_database(&as_owner, &programs, &cluster)?;

    let mut attempt = 1;
    loop {
        let [port] = free_ports()?;
        let mut command = as_owner(programs.folder.join("postgres"));
        command.arg("-D").arg(&cluster);
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "unix_socket_directories=".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_key_file={}", key.display()),
            format!("ssl_cert_file={}", certificate.display()),
        ] {
            command.arg("-c").arg(setting);
        }
        let name = if attempt == 1 { "postgres".to_owned() } else { format!("postgres-{attempt}") };
        let mut part = Part::start(&name, &mut command, folder, End::Interrupt)?;
        // The log line is Postgres' own and not translated (LC_ALL above); its prefix is the time.
        let ready = stop.wait_for("Postgres", Duration::from_secs(60), || {
            part.check()?;
            Ok(part.last_words().contains("database system is ready to accept connections").then_some(()))
        });
        match ready {
            Ok(()) => {
                let address = format!("127.0.0.1:{port}");
                return Ok(Server { part, url: format!("postgres://{NAME}:{password}@{address}/{NAME}"), address });
            }
            Err(error) if attempt == ATTEMPTS || stop.requested() => return Err(error),
            Err(_) => attempt += 1,
        }
    }
}

/// In single-user mode: no server, no port, no password.
fn create_database(as_owner: &dyn Fn(PathBuf) -> Command, programs: &Programs, cluster: &Path) -> Result<()> {
    let mut command = as_owner(programs.folder.join("postgres"));
    command.args(["--single", "-D"]).arg(cluster).arg("postgres");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("postgres --single could not be started")?;
    let mut stdin = child.stdin.take().context("postgres --single has no input")?;
    std::io::Write::write_all(&mut stdin, format!("CREATE DATABASE {NAME}\n").as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("ERROR") {
        bail!("postgres --single could not create the database ({}): {}", output.status, said.trim());
    }
    Ok(())
}

/// Whom the server runs as: root may not.
fn owner() -> Result<Option<(u32, u32)>> {
    if !apt::is_root() {
        return Ok(None);
    }
    let id = |what: &str| -> Result<u32> {
        let said = output_of(Command::new("id").args([what, "postgres"]))
            .context("Postgres does not run as root, and there is no user `postgres` to run it as")?;
        said.trim().parse().context("`id` printed no number")
    };
    Ok(Some((id("-u")?, id("-g")?)))
}

fn give(path: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let Some((uid, gid)) = owner else {
        return Ok(());
    };
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
        .with_context(|| format!("{} cannot be given to the user postgres", path.display()))
}

fn quietly(command: &mut Command) -> Result<()> {
    output_of(command).map(drop).with_context(|| shown(command))
}

/// Anybody on this machine can reach the port, hence a real one: 128 bits.
fn password() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
