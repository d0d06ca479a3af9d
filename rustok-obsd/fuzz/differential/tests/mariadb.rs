//! MariaDB itself: its digest of a statement is what its scanner took for no literal and no comment.

use mysql::{Conn, Error, OptsBuilder, prelude::Queryable as _};
use rustok_obsd::statement::Dialect;
use rustok_obsd_differential::{Flavour, Generator, leaks};
use std::process::{Command, Stdio};
use std::time::Duration;
use test_support::{Child, Skip, skip, wait_until};

const MARIADB: Flavour = Flavour {
    strings: &[
        "'%'",
        "\"%\"",
        "N'%'",
        "_utf8mb4'%'",
        "_latin1 \"%\"",
        "x'%'",
        "b'%'",
        "'a' \"%\"",
        "DATE'%'",
        "upper(\"%\")",
    ],
    comments: &["-- %\n", "# %\n", "/* % */", "/*%*/", "/*! + 1 */", "/*!99999 %*/", "/*M! + '%'*/", "--\t%\n"],
    others: &[
        "a",
        "`it's`",
        "`it\"s`",
        "@`it's`",
        "`a`",
        "t.a",
        "@v",
        "@@sql_mode",
        "NULL",
        "f(a)",
        "`b``c`",
        "\"a\"",
        "1--1",
        "a--a",
    ],
};

/// A server of the test's own, without network.
struct Server {
    _process: Child,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Result<Self, Skip> {
        let folder = tempfile::tempdir().map_err(|error| Skip::new(error.to_string()))?;
        let at = |name: &str| folder.path().join(name);
        let run = |program: &str| {
            let mut command = Command::new(program);
            command.arg("--no-defaults").arg(format!("--datadir={}", at("data").display()));
            if std::env::var_os("USER").is_none_or(|user| user == "root") {
                command.arg("--user=root");
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let install =
            run("mariadb-install-db").args(["--auth-root-authentication-method=normal", "--skip-test-db"]).status();
        if !install.is_ok_and(|status| status.success()) {
            return Err(Skip::new("mariadb-install-db is not there or failed: install mariadb-server-core"));
        }
        let mut server = run("mariadbd");
        server.arg(format!("--socket={}", at("socket").display())).args([
            "--skip-networking",
            "--innodb-buffer-pool-size=16M",
            "--performance-schema=ON",
            "--performance-schema-consumer-events-statements-current=ON",
            "--performance-schema-consumer-events-statements-history=ON",
            "--performance-schema-max-digest-length=8192",
            "--max-digest-length=8192",
        ]);
        let process = Child::spawn("mariadbd", &mut server).map_err(|error| Skip::new(format!("mariadbd: {error}")))?;
        let server = Self { _process: process, folder };
        wait_until(Duration::from_secs(60), || server.connect().ok())
            .ok_or_else(|| Skip::new("mariadbd does not answer"))?;
        Ok(server)
    }

    fn connect(&self) -> mysql::Result<Conn> {
        let socket = self.folder.path().join("socket").display().to_string();
        Conn::new(OptsBuilder::new().socket(Some(socket)).user(Some("root")))
    }
}

const DIGEST: &str = "SELECT sql_text, digest_text FROM performance_schema.events_statements_history \
    WHERE thread_id = (SELECT thread_id FROM performance_schema.threads WHERE processlist_id = ?) \
    AND event_name LIKE 'statement/%' ORDER BY event_id DESC LIMIT 1";

#[test]
fn what_mariadb_takes_for_a_literal_is_hidden() {
    let name = "what_mariadb_takes_for_a_literal_is_hidden";
    let server = match Server::start() {
        Ok(server) => server,
        Err(reason) => return skip(name, reason),
    };
    let mut asker = server.connect().expect("a connection");
    asker.query_drop("CREATE DATABASE d; ").expect("a database");
    asker.query_drop("CREATE TABLE d.t (a text, b text)").expect("a table");
    asker.query_drop("USE d").expect("a database");
    let mut reader = server.connect().expect("a connection");
    let digest = reader.prep(DIGEST).expect("the digests");
    let id = asker.connection_id();
    let mut generator = Generator::new(&MARIADB);
    let (mut read, mut refused, mut unseen, mut hidden_marks) = (0, 0, 0, 0);
    let modes = ["", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"];
    let (mut mode, mut turn) = (0, 0);
    while let Some(marked) = generator.next() {
        if turn % 500 == 0 {
            mode = (turn / 500) % modes.len();
            asker.query_drop(format!("SET sql_mode = '{}'", modes[mode])).expect("a mode");
        }
        turn += 1;
        let sql = &marked.sql;
        // Whatever it answers, but a syntax error: then it read all of it.
        match asker.query_drop(sql) {
            Err(Error::MySqlError(error)) if error.code == 1064 => {
                refused += 1;
                continue;
            }
            Err(Error::MySqlError(_)) | Ok(()) => {}
            Err(error) => panic!("{error} for {sql:?}"),
        }
        let digest: Option<(Option<String>, Option<String>)> = reader.exec_first(&digest, (id,)).expect("a digest");
        let Some((Some(text), Some(shown))) = digest else { continue };
        // It ends with the first of several statements.
        if text != *sql || shown.ends_with("...") || shown.trim_end().ends_with(';') {
            unseen += 1;
            continue;
        }
        let hidden: Vec<_> = marked.marks.iter().filter(|mark| !shown.contains(mark.as_str())).cloned().collect();
        let known = if mode < 2 { Dialect::MYSQL_STRINGS } else { Dialect::MYSQL_ANSI };
        for dialect in [known, Dialect::MYSQL, Dialect::ANY] {
            let leaks = leaks(sql, dialect, &hidden);
            assert!(leaks.is_empty(), "{leaks:?} of {sql:?} by {dialect:?} with {:?}: it shows {shown:?}", modes[mode]);
        }
        read += 1;
        hidden_marks += hidden.len();
    }
    println!("mariadb: {read} texts, {refused} refused, {unseen} without digest, {hidden_marks} marks hidden");
    assert!(read > 500);
}
