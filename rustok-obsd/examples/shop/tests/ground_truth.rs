//! Server and client agree about every request, on a real database.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use shop::load::report::{self, Logged, Summary};
use shop::truth::{self, Record};
use test_support::{Child, Postgres, skip};

struct Shop {
    child: Child,
    target: String,
}

fn start_shop(postgres: &Postgres, sslmode: &str, truth: &Path) -> Shop {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command
        .args(["--listen", "127.0.0.1:0", "--workers", "2", "--ground-truth"])
        .arg(truth)
        .env("DATABASE_URL", postgres.url_with_sslmode("postgres", sslmode));
    let child = Child::spawn("shop", &mut command).expect("start shop");
    let target = child
        .wait_for_line(Duration::from_secs(30), |line| line.strip_prefix("listening on ").map(str::to_owned))
        .expect("shop listens");
    Shop { child, target }
}

fn load(shop: &Shop, args: &[&str], log: &Path) -> Summary {
    let output = Command::new(env!("CARGO_BIN_EXE_shop-load"))
        .args(["--target", &shop.target, "--log"])
        .arg(log)
        .args(args)
        .output()
        .expect("run shop-load");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a summary")
}

#[test]
fn client_and_ground_truth_agree_to_the_last_request() {
    let name = "client_and_ground_truth_agree_to_the_last_request";
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(reason) => return skip(name, reason),
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let (truth_file, log_file) = (folder.path().join("truth.jsonl"), folder.path().join("log.jsonl"));
    let mut shop = start_shop(&postgres, "prefer", &truth_file);
    let summary = load(&shop, &["--requests", "8000", "--concurrency", "64", "--seed", "11"], &log_file);
    let status = shop.child.stop(libc::SIGTERM, Duration::from_secs(15)).expect("SIGTERM ends it");
    assert!(status.success(), "{status}: {}", shop.child.log_tail());

    let log = report::read(&log_file).expect("the client's log");
    let (records, end) = truth::read(&truth_file).expect("the ground truth");
    assert_eq!(end.dropped, 0);
    assert_eq!(end.records, records.len() as u64);
    assert_eq!(log.len(), 8000);
    assert_eq!((summary.errors, summary.first_error.as_deref()), (0, None));
    assert_eq!(summary.requests + summary.aborted, 8000);
    assert!(summary.aborted > 0 && summary.aborted < 80, "{}", summary.aborted);

    compare(&log, &records);
    check_queries(&records);
    check_tasks(&records);
}

/// Ids, methods, paths, routes, statuses and times of both sides.
fn compare(log: &[Logged], records: &[Record]) {
    let mut seen: HashMap<&str, &Record> = HashMap::new();
    for record in records {
        let id = record.client_id.as_deref().expect("every request has an x-request-id");
        assert!(seen.insert(id, record).is_none(), "{id} is there twice");
    }
    let mut relays = 0;
    for logged in log {
        let Some(record) = seen.remove(logged.id.as_str()) else {
            assert!(logged.aborted, "the server has not seen {logged:?}");
            continue;
        };
        let both = |method: &str, path: &str, route: Option<&str>| format!("{method} {path} {route:?}");
        assert_eq!(
            both(&record.method, &record.path, record.route.as_deref()),
            both(&logged.method, &logged.path, logged.route.as_deref()),
        );
        assert_eq!(record.peer.port(), logged.local_port);
        assert!(logged.start_ns <= record.start_ns && record.start_ns <= record.end_ns, "{logged:?} {record:?}");
        if logged.aborted {
            continue;
        }
        assert_eq!((record.status, record.aborted), (logged.status, false), "{logged:?} {record:?}");
        assert!(record.start_ns <= record.handler_end_ns && record.handler_end_ns <= record.end_ns);
        assert!(record.handler_end_ns <= logged.end_ns, "{logged:?} {record:?}");
        relays += u32::from(logged.route.as_deref() == Some("/api/relay/{id}"));
    }
    // What is left the shop has asked itself.
    assert!(relays > 0);
    for (id, record) in &seen {
        assert!(id.ends_with(".relay"), "the client has not sent {record:?}");
        assert_eq!((record.route.as_deref(), record.status), (Some("/api/commerce/products/{id}"), Some(200)));
    }
    assert_eq!(seen.len(), relays as usize);
    let aborted = records.iter().filter(|record| record.aborted).count();
    assert!(aborted > 0, "no abort reached a handler");

    let routes: BTreeSet<_> = records.iter().map(|record| record.route.as_deref()).collect();
    assert!(routes.len() >= 30, "{routes:?}");
    for route in [None, Some("/store/{locale}/carts/{cart}"), Some("/store/*"), Some("/assets/*"), Some("/assets/")] {
        assert!(routes.contains(&route), "{route:?} is not among {routes:?}");
    }
}

/// What each route asks of the database.
fn check_queries(records: &[Record]) {
    let mut by_route: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for record in records {
        for query in &record.queries {
            assert!(!query.sql.is_empty());
            assert!(record.start_ns <= query.start_ns && query.start_ns <= query.end_ns, "{record:?}");
            assert!(query.end_ns <= record.end_ns, "{record:?}");
            let fails = record.route.as_deref() == Some("/api/fail/sql");
            assert!(query.error == fails || record.aborted, "{record:?}");
        }
        // Tenants are looked up once in a while: not these counts.
        let statements = record.queries.iter().filter(|query| !query.sql.contains("\"tenants\"")).count();
        if let (Some(route), Some(200..=299)) = (record.route.as_deref(), record.status) {
            by_route.entry(route).or_default().insert(statements);
        }
    }
    for (route, statements) in [
        ("/hello", 0),
        ("/health/ready", 1),
        ("/api/commerce/products/{id}", 2),
        ("/api/dashboard", 3),
        ("/api/blog/posts/{id}", 1),
    ] {
        assert_eq!(by_route[route], BTreeSet::from([statements]), "{route}");
    }
    let created = records.iter().find(|record| record.method == "POST" && record.status == Some(201)).expect("a node");
    let sql: Vec<_> = created.queries.iter().map(|query| query.sql.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(sql, ["BEGIN", "INSERT", "INSERT", "COMMIT"]);
}

/// The handler and its statements run in the connection's task, unless the handler spawns.
fn check_tasks(records: &[Record]) {
    let mut connections: HashMap<_, BTreeSet<u64>> = HashMap::new();
    for record in records {
        let task = record.task.expect("handlers run in a task");
        connections.entry((record.peer, record.local)).or_default().insert(task);
        let own = record.queries.iter().filter(|query| query.task == Some(task)).count();
        let spawned = if record.route.as_deref() == Some("/api/dashboard") { 3 } else { 0 };
        assert!(record.aborted || record.queries.len() - own == spawned, "{record:?}");
    }
    // A port can be used again by a later connection: nearly all, not all.
    let one_task = connections.values().filter(|tasks| tasks.len() == 1).count();
    assert!(one_task * 100 >= connections.len() * 99, "{one_task} of {}", connections.len());
}

#[test]
fn a_second_server_on_the_same_database_starts_without_tls_and_keeps_the_rows() {
    let name = "a_second_server_on_the_same_database_starts_without_tls_and_keeps_the_rows";
    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(reason) => return skip(name, reason),
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let count = || postgres.psql("postgres", "SELECT count(*) FROM shop.products").expect("count");
    let first = start_shop(&postgres, "require", &folder.path().join("first.jsonl"));
    let before = count();
    let second = start_shop(&postgres, "disable", &folder.path().join("second.jsonl"));
    assert_eq!(count(), before);
    for shop in [&first, &second] {
        let log = folder.path().join("log.jsonl");
        let summary = load(shop, &["--mix", "crud", "--requests", "500", "--concurrency", "8"], &log);
        assert_eq!((summary.requests, summary.errors, summary.first_error), (500, 0, None));
    }
    let tls = "SELECT string_agg(DISTINCT ssl::text, ',') FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    assert_eq!(postgres.psql("postgres", tls).expect("TLS in use"), "false,true");
}

#[test]
fn a_database_that_is_not_there_is_an_error_that_says_so() {
    let url = format!("postgres://nobody@127.0.0.1:{}/x", test_support::free_port());
    let output = Command::new(env!("CARGO_BIN_EXE_shop"))
        .args(["--listen", "127.0.0.1:0", "--database-url", &url])
        .output()
        .expect("run shop");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("cannot connect to the database"), "{error}");
}

#[test]
fn load_for_a_server_that_is_not_there_is_an_error_that_names_it() {
    let target = format!("http://127.0.0.1:{}", test_support::free_port());
    let output = Command::new(env!("CARGO_BIN_EXE_shop-load"))
        .args(["--target", &target, "--requests", "1"])
        .output()
        .expect("run shop-load");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("is the server running?") && error.contains(&target[7..]), "{error}");
}
