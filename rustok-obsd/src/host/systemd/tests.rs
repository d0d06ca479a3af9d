//! The collector against a real bus with something on it that answers as systemd does, and against buses that do not answer.

use super::bus::Bus;
use super::units::Reading;
use crate::exposition::Scrape;
use crate::host::testing::Tree;
use crate::host::{CollectError, Settings};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use test_support::{NodeExporter, Scraped, ScrapedFamily, skip};
use zbus::export::futures_core::Stream as _;
use zbus::message::Type;
use zbus::{Connection, MessageStream, ObjectPath, Variant, connection};

const BUS: &str = "run/dbus/system_bus_socket";

/// A bus daemon on a socket below a folder.
struct Daemon(Child);

impl Daemon {
    /// `None` where the program is not installed.
    fn start(root: &Path) -> Option<Self> {
        let socket = root.join(BUS);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&socket);
        let config = root.join("bus.conf");
        let text = format!(
            "<busconfig><type>custom</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>",
            socket.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.arg(format!("--config-file={}", config.display())).args(["--nofork", "--nopidfile", "--nosyslog"]);
        let daemon = Self(command.stdout(Stdio::null()).spawn().ok()?);
        wait(|| UnixStream::connect(&socket).is_ok());
        Some(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "in time");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What stands for systemd.
#[derive(Default)]
struct Manager {
    silent: AtomicBool,
    loaded: AtomicU64,
    /// Questions by their last word.
    asked: Mutex<BTreeMap<String, u64>>,
}

impl Manager {
    fn asked(&self, what: &str) -> u64 {
        self.asked.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    /// On a bus, in a thread that ends with the bus.
    fn join(self: &Arc<Self>, root: &Path) {
        let (manager, socket) = (Arc::clone(self), root.join(BUS));
        let (ready, joined) = std::sync::mpsc::sync_channel(1);
        run(async move {
            let stream = UnixStream::connect(socket).unwrap();
            let builder = connection::Builder::unix_stream(stream).name("org.freedesktop.systemd1");
            let connection = builder.build().await.unwrap();
            let messages = MessageStream::from(&connection);
            ready.send(()).unwrap();
            manager.serve(connection, messages).await;
        });
        joined.recv().unwrap();
    }

    /// On a private socket, one connection after the other.
    fn listen(self: &Arc<Self>, root: &Path) {
        let (manager, path) = (Arc::clone(self), root.join("run/systemd/private"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        run(async move {
            for stream in listener.incoming() {
                let guid = "0123456789abcdef0123456789abcdef";
                let builder = connection::Builder::unix_stream(stream.unwrap()).server(guid).p2p();
                let connection = builder.build().await.unwrap();
                let messages = MessageStream::from(&connection);
                manager.serve(connection, messages).await;
            }
        });
    }

    async fn serve(&self, connection: Connection, mut messages: MessageStream) {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| Pin::new(&mut messages).poll_next(cx)).await {
            let header = message.header();
            let Some(member) = header.member().filter(|_| message.message_type() == Type::MethodCall) else { continue };
            if self.silent.load(Ordering::Relaxed) {
                continue;
            }
            let body = message.body();
            let (interface, name) = match member.as_str() {
                "Get" => body.deserialize::<(&str, &str)>().unwrap(),
                other => ("", other),
            };
            *self.asked.lock().unwrap().entry(name.to_owned()).or_default() += 1;
            if name == "ListUnits" {
                connection.reply(&header, &units()).await.unwrap();
                continue;
            }
            let path = header.path().unwrap().to_string();
            match self.property(&path, interface.rsplit('.').next().unwrap(), name) {
                Some(value) => connection.reply(&header, &value).await.unwrap(),
                None => {
                    let error = "org.freedesktop.DBus.Error.UnknownProperty";
                    connection.reply_error(&header, error, &format!("no {name}")).await.unwrap();
                }
            }
        }
    }

    fn property(&self, path: &str, interface: &str, name: &str) -> Option<Variant<'static>> {
        let unit = path.rsplit('/').next().and_then(|unit| unit.split("_2e").next()).unwrap();
        Some(match (unit, interface, name) {
            (_, "Manager", "Version") => Variant::from("252.39-1~deb12u1"),
            (_, "Manager", "Virtualization") => Variant::from(""),
            (_, "Manager", "SystemState") => Variant::from("running"),
            (_, "Manager", "UnitsLoadTimestampMonotonic") => Variant::from(self.loaded.load(Ordering::Relaxed)),
            ("nginx", "Service", "Type") => Variant::from("forking"),
            ("nginx", "Service", "NRestarts") => Variant::from(3u32),
            ("nginx", "Service", "TasksCurrent") => Variant::from(5u64),
            ("nginx", "Service", "TasksMax") => Variant::from(u64::MAX),
            ("nginx", "Unit", "ActiveEnterTimestamp") => Variant::from(1_700_000_000_000_001u64),
            ("apt", "Timer", "LastTriggerUSec") => Variant::from(1_700_000_000_500_000u64),
            ("ssh", "Socket", "NAccepted") => Variant::from(7u32),
            ("ssh", "Socket", "NConnections") => Variant::from(2u32),
            ("ssh", "Socket", "NRefused") => Variant::from(1u32),
            ("data", "Mount", "Type") => Variant::from("ext4"),
            _ => return None,
        })
    }
}

fn run(work: impl Future<Output = ()> + Send + 'static) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work);
    });
}

type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    ObjectPath<'static>,
    u32,
    &'static str,
    ObjectPath<'static>,
);

fn units() -> Vec<Row> {
    let path = |path: String| ObjectPath::try_from(path).unwrap();
    let unit = |name: &'static str, load, state| {
        let unit = format!("/org/freedesktop/systemd1/unit/{}", name.replace('.', "_2e").replace('-', "_2d"));
        (name, "", load, state, "", "", path(unit), 0, "", path("/".into()))
    };
    vec![
        unit("nginx.service", "loaded", "active"),
        unit("gone.service", "loaded", "failed"),
        unit("masked.service", "masked", "inactive"),
        unit("apt.timer", "loaded", "active"),
        unit("ssh.socket", "loaded", "active"),
        unit("data.mount", "loaded", "active"),
        unit("reload.service", "not-found", "reloading"),
    ]
}

/// The unit's states, for a comparison.
fn states(name: &str, kind: &str, state: &str) -> String {
    let line = |is: &str| {
        let value = u8::from(is == state);
        format!("node_systemd_unit_state{{name=\"{name}\",state=\"{is}\",type=\"{kind}\"}} {value}\n")
    };
    super::STATES.map(line).concat()
}

const HEAD: &str = "node_systemd_version{version=\"252.39-1~deb12u1\"} 252.39\n\
                    node_systemd_virtualization_info{virtualization_type=\"none\"} 1\n\
                    node_systemd_system_running 1\n\
                    node_systemd_units{state=\"active\"} 4\nnode_systemd_units{state=\"activating\"} 0\n\
                    node_systemd_units{state=\"deactivating\"} 0\nnode_systemd_units{state=\"inactive\"} 1\n\
                    node_systemd_units{state=\"failed\"} 1\nnode_systemd_units{state=\"reloading\"} 1\n";
const TAIL: &str = "node_systemd_timer_last_trigger_seconds{name=\"apt.timer\"} 1700000000.5\n\
                    node_systemd_socket_accepted_connections_total{name=\"ssh.socket\"} 7\n\
                    node_systemd_socket_current_connections{name=\"ssh.socket\"} 2\n\
                    node_systemd_socket_refused_connections_total{name=\"ssh.socket\"} 1\n";

#[test]
fn units_are_told_over_a_bus_and_types_are_asked_once() {
    let tree = Tree::new("systemd", |_| {});
    let Some(daemon) = Daemon::start(&tree.path("")) else {
        return skip("units_are_told_over_a_bus_and_types_are_asked_once", "dbus-daemon is not installed");
    };
    let manager = Arc::new(Manager::default());
    manager.join(&tree.path(""));
    let expected = String::new()
        + HEAD
        + &states("nginx.service", "forking", "active")
        + &states("gone.service", "", "failed")
        + &states("apt.timer", "", "active")
        + &states("ssh.socket", "", "active")
        + TAIL;
    for scrapes in 1..=3 {
        assert_eq!(tree.scrape(), (expected.clone(), true));
        assert_eq!(manager.asked("ListUnits"), scrapes);
    }
    // One known by now, one that has none at each scrape.
    assert_eq!(manager.asked("Type"), 1 + 3);
    assert_eq!(manager.asked("Hello") + manager.asked("NRestarts") + manager.asked("TasksMax"), 0);
    manager.loaded.store(9, Ordering::Relaxed);
    assert_eq!(tree.scrape(), (expected.clone(), true));
    assert_eq!(manager.asked("Type"), 1 + 3 + 2, "asked again after a reload");
    // The bus goes away and comes back.
    drop(daemon);
    assert_eq!(tree.scrape(), (String::new(), false));
    let Some(_daemon) = Daemon::start(&tree.path("")) else { return };
    Arc::new(Manager::default()).join(&tree.path(""));
    assert_eq!(tree.scrape(), (expected, true));
}

#[test]
fn beside_node_exporter_families_and_values_are_the_same() {
    const TEST: &str = "beside_node_exporter_families_and_values_are_the_same";
    let options = ["enable-restarts-metrics", "enable-start-time-metrics", "enable-task-metrics"];
    let tree = Tree::new("systemd", |settings| {
        let options = &mut settings.options;
        options.systemd_restarts_metrics = true;
        options.systemd_start_time_metrics = true;
        options.systemd_task_metrics = true;
    });
    let Some(_daemon) = Daemon::start(&tree.path("")) else { return skip(TEST, "dbus-daemon is not installed") };
    Arc::new(Manager::default()).join(&tree.path(""));
    let mut flags = vec!["--collector.disable-defaults".to_owned(), "--collector.systemd".into()];
    flags.extend(options.map(|option| format!("--collector.systemd.{option}")));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let address = format!("unix:path={}", tree.path(BUS).display());
    let theirs = match NodeExporter::start_with(&flags, &[("DBUS_SYSTEM_BUS_ADDRESS", &address)]) {
        Ok(theirs) => theirs.metrics().unwrap(),
        Err(reason) => return skip(TEST, reason),
    };
    let families = |text: &str| {
        let mut scraped = Scraped::parse(text).unwrap();
        scraped.families.retain(|name, _| name.starts_with("node_systemd_"));
        let told = |(name, family): (_, ScrapedFamily)| (name, (family.kind, family.help, family.samples));
        scraped.families.into_iter().map(told).collect::<BTreeMap<_, _>>()
    };
    let (theirs, ours) = (families(&theirs), families(&tree.exposition(Scrape::default().deadline)));
    assert!(theirs.len() >= 12, "{theirs:?}");
    assert_eq!(ours, theirs);
}

#[test]
fn a_bus_that_is_restarted_between_scrapes_costs_nothing() {
    let tree = Tree::new("systemd", |_| {});
    let Some(daemon) = Daemon::start(&tree.path("")) else {
        return skip("a_bus_that_is_restarted_between_scrapes_costs_nothing", "dbus-daemon is not installed");
    };
    Arc::new(Manager::default()).join(&tree.path(""));
    let first = tree.scrape();
    assert!(first.1);
    drop(daemon);
    let Some(_daemon) = Daemon::start(&tree.path("")) else { return };
    Arc::new(Manager::default()).join(&tree.path(""));
    assert_eq!(tree.scrape(), first);
}

#[test]
fn options_and_whole_matches_over_the_private_socket() {
    let tree = Tree::new("systemd", |settings| {
        let options = &mut settings.options;
        options.systemd_private = true;
        options.systemd_restarts_metrics = true;
        options.systemd_start_time_metrics = true;
        options.systemd_task_metrics = true;
        let pattern = |text| crate::config::collector::Pattern::parse(text).unwrap();
        // Neither matches a part of a name.
        options.systemd_unit_include = pattern("nginx|nginx.service|gone.*|data.mount");
        options.systemd_unit_exclude = pattern("ginx.service|gone");
    });
    let manager = Arc::new(Manager::default());
    manager.listen(&tree.path(""));
    let expected = String::new()
        + HEAD
        + &states("nginx.service", "forking", "active")
        + &states("gone.service", "", "failed")
        + &states("data.mount", "ext4", "active")
        + "node_systemd_service_restart_total{name=\"nginx.service\"} 3\n\
           node_systemd_unit_start_time_seconds{name=\"nginx.service\"} 1700000000.000001\n\
           node_systemd_unit_start_time_seconds{name=\"gone.service\"} 0\n\
           node_systemd_unit_tasks_current{name=\"nginx.service\"} 5\n";
    for _ in 0..2 {
        assert_eq!(tree.scrape(), (expected.clone(), true));
    }
    assert_eq!(manager.asked("ListUnits"), 2);
}

/// An error of the collector's own reading, and whether it is that of the deadline.
fn error(root: &Path, within: Duration) -> (String, bool) {
    let mut settings = Settings::default();
    settings.paths.rootfs = root.to_owned();
    let (mut bus, mut reading) = (Bus::new(&settings), Reading::new(&settings));
    let error = bus.run(Instant::now() + within, async |connection| reading.read(connection).await).unwrap_err();
    (error.to_string(), matches!(error, CollectError::Late(_)))
}

#[test]
fn a_bus_that_never_answers_costs_the_deadline_and_names_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(BUS);
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let (text, late) = error(folder.path(), Duration::from_secs(10));
    assert!(!late && text.contains(&*socket.to_string_lossy()) && text.contains("path.rootfs"), "{text}");
    // Takes connections and keeps them, without a word.
    let listener = UnixListener::bind(&socket).unwrap();
    let (text, late) = error(folder.path(), Duration::from_millis(300));
    assert!(late && text.contains(&*socket.to_string_lossy()) && text.contains("systemctl status"), "{text}");
    drop(listener);
    let (text, late) = error(folder.path(), Duration::from_secs(10));
    assert!(!late && text.contains("refused") && text.contains("turn the collector systemd off"), "{text}");
}

#[test]
fn a_systemd_that_is_absent_or_silent_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_daemon) = Daemon::start(folder.path()) else {
        return skip("a_systemd_that_is_absent_or_silent_is_told_apart", "dbus-daemon is not installed");
    };
    let (text, late) = error(folder.path(), Duration::from_secs(10));
    assert!(!late && text.contains("systemd is not on this bus"), "{text}");
    let manager = Arc::new(Manager::default());
    manager.silent.store(true, Ordering::Relaxed);
    manager.join(folder.path());
    let (text, late) = error(folder.path(), Duration::from_millis(300));
    assert!(late && text.contains("does not answer"), "{text}");
    manager.silent.store(false, Ordering::Relaxed);
}

#[test]
fn a_collector_that_was_late_works_at_the_next_scrape() {
    let tree = Tree::new("systemd", |_| {});
    let Some(_daemon) = Daemon::start(&tree.path("")) else {
        return skip("a_collector_that_was_late_works_at_the_next_scrape", "dbus-daemon is not installed");
    };
    let manager = Arc::new(Manager::default());
    manager.join(&tree.path(""));
    manager.silent.store(true, Ordering::Relaxed);
    assert_eq!(tree.scrape_until(Instant::now() + Duration::from_millis(300)), (String::new(), false));
    manager.silent.store(false, Ordering::Relaxed);
    let (text, success) = tree.scrape();
    assert!(success && text.starts_with(HEAD), "{text}");
}

#[test]
fn versions_are_numbers() {
    let versions = ["252.39-1~deb12u1", "v256~rc3", "systemd 249 (249.11)", "255.", "12", ""];
    assert_eq!(versions.map(super::number_of), [252.39, 256.0, 249.0, 255.0, 0.0, 0.0]);
}
