//! What real clients and a real server say to each other is told as what was asked: psql (simple queries, COPY,
//! errors, LISTEN) and pgbench (libpq's simple, extended, prepared and pipelined queries), through a proxy that feeds
//! a [`PostgresConnection`] in order.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use rustok_obsd::database::Ending;
use rustok_obsd::exchange::Io;
use rustok_obsd::exchange::postgres::{PostgresConnection, Shared, Stats, WireEvent, WireSql};
use rustok_obsd::statement::{Dialect, StatementCache};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use test_support::{Postgres, Tls, skip};

/// What all connections told.
#[derive(Default)]
struct Told {
    shared: Shared,
    cache: StatementCache,
    /// Summary and ending, by connection and operation while it runs.
    open: BTreeMap<(u64, u64), String>,
    /// How often each summary came to each ending, with its rows.
    ends: BTreeMap<(String, String), (u64, u64)>,
    databases: Vec<String>,
    now: u64,
}

impl Told {
    fn feed(&mut self, id: u64, connection: &mut PostgresConnection, received: bool, data: &[u8], bound: usize) {
        self.now += 1;
        let captured = data.len().min(bound);
        let tail = if captured < data.len() && data.len() >= 8 { &data[data.len() - 8..] } else { b"" };
        let io = Io {
            time_ns: self.now,
            ready_ns: 0,
            task: 1,
            tid: 1,
            len: data.len(),
            data: &data[..captured],
            tail,
            lost: 0,
        };
        let Self { shared, cache, open, ends, databases, .. } = self;
        let mut sink = |event: WireEvent<'_>| match event {
            WireEvent::Begin { op, sql, .. } => {
                let summary = match sql {
                    WireSql::Text { sql, truncated } => {
                        cache.get(sql, truncated, Dialect::POSTGRES).summary.to_string()
                    }
                    other => format!("{other:?}"),
                };
                assert!(open.insert((id, op), summary).is_none());
            }
            WireEvent::End { op, rows, sqlstate, ending, .. } => {
                let summary = open.remove(&(id, op)).unwrap();
                let code = sqlstate.map(|code| String::from_utf8(code.to_vec()).unwrap());
                let ending =
                    if ending == Ending::Complete { "ok".to_owned() } else { code.unwrap_or(format!("{ending:?}")) };
                let (count, sum) = ends.entry((summary, ending)).or_default();
                *count += 1;
                *sum += rows.unwrap_or(0);
            }
            WireEvent::Startup { database } => databases.push(String::from_utf8(database.to_vec()).unwrap()),
            _ => {}
        };
        if received {
            connection.on_receive(&io, shared, &mut sink);
        } else {
            connection.on_send(&io, shared, &mut sink);
        }
    }
}

/// Forwards connections to the server; at most `bound` bytes of each transfer are told.
fn proxy(server: u16, bound: usize) -> (u16, Arc<Mutex<Told>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Arc::new(Mutex::new(Told::default()));
    let all = Arc::clone(&told);
    // Ends with the test's process.
    std::thread::spawn(move || {
        for (id, client) in (1..).zip(listener.incoming()) {
            let client = client.unwrap();
            let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let connection = Arc::new(Mutex::new(PostgresConnection::new(false, &all.lock().unwrap().shared)));
            for (received, mut from, mut to) in
                [(false, client.try_clone().unwrap(), server.try_clone().unwrap()), (true, server, client)]
            {
                let (all, connection) = (Arc::clone(&all), Arc::clone(&connection));
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 8192];
                    while let Ok(length @ 1..) = from.read(&mut buffer) {
                        {
                            let mut all = all.lock().unwrap();
                            all.feed(id, &mut connection.lock().unwrap(), received, &buffer[..length], bound);
                        }
                        if to.write_all(&buffer[..length]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (port, told)
}

fn run(command: &mut Command, password: &str) -> String {
    let output = command
        .env("PGPASSWORD", password)
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable")
        .output()
        .unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn check(told: &Told, want: &[(&str, &str, u64, u64)]) {
    assert!(told.open.is_empty(), "{:?}", told.open);
    let got: Vec<_> = told.ends.iter().map(|((sum, end), (n, rows))| (&**sum, &**end, *n, *rows)).collect();
    assert_eq!(got, want);
    let Stats { mismatches, unmatched_answers, malformed, broken_operations, operations, ended, .. } =
        told.shared.stats;
    assert_eq!((mismatches, unmatched_answers, malformed, broken_operations), (0, 0, 0, 0));
    assert_eq!(operations, ended);
}

/// Password and user of the test cluster, from its URL.
fn password(postgres: &Postgres) -> String {
    let url = postgres.url("postgres");
    url.split("://postgres:").nth(1).unwrap().split('@').next().unwrap().to_owned()
}

#[test]
fn psql_is_told_as_it_asks() {
    let postgres = match Postgres::start_with(Tls::Off) {
        Ok(postgres) => postgres,
        Err(reason) => return skip("psql_is_told_as_it_asks", reason),
    };
    let (port, told) = proxy(postgres.port(), usize::MAX);
    let script = "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, name text);
        INSERT INTO t SELECT g, repeat('x', 3000) FROM generate_series(1, 100) g;
        SELECT * FROM t ORDER BY id;
        SELECT * FROM t WHERE id IN (1, 2, 3) \\gdesc
        SELECT oops FROM t;
        BEGIN; INSERT INTO t VALUES (1, 'twice'); COMMIT;
        COPY t TO STDOUT;
        COPY t FROM STDIN;
1001\tone
1002\ttwo
\\.
        LISTEN c; NOTIFY c, 'x';
        DO $$ BEGIN RAISE NOTICE 'n'; END $$;
        SELECT 1 \\; SELECT 2 FROM t;
        UPDATE t SET name = '' WHERE id > 90;
        DELETE FROM t;\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string(), "-f"]).arg(file.path());
    let said = run(psql.arg("postgres"), &password(&postgres));
    let told = told.lock().unwrap();
    assert_eq!(told.databases, ["postgres"], "{said}");
    check(
        &told,
        &[
            ("BATCH SELECT SELECT t", "ok", 1, 103),
            ("BEGIN", "ok", 1, 0),
            ("COMMIT", "23505", 1, 0),
            ("COPY t", "ok", 2, 102),
            ("CREATE TABLE t", "ok", 1, 0),
            ("DELETE t", "ok", 1, 102),
            ("DO", "ok", 1, 0),
            ("INSERT t", "ok", 1, 1),
            ("INSERT t SELECT", "ok", 1, 100),
            ("LISTEN", "ok", 1, 0),
            ("NOTIFY", "ok", 1, 0),
            ("SELECT", "ok", 1, 2),
            ("SELECT t", "42703", 1, 0),
            ("SELECT t", "ok", 1, 100),
            ("UPDATE t", "ok", 1, 12),
        ],
    );
}

#[test]
fn pgbench_is_told_as_it_asks() {
    let postgres = match Postgres::start_with(Tls::Off) {
        Ok(postgres) => postgres,
        Err(reason) => return skip("pgbench_is_told_as_it_asks", reason),
    };
    let Some(pgbench) = ["/usr/lib/postgresql/15/bin/pgbench", "/usr/local/bin/pgbench"]
        .iter()
        .find(|path| std::path::Path::new(path).exists())
    else {
        return skip("pgbench_is_told_as_it_asks", "pgbench is not installed");
    };
    postgres.psql("postgres", "CREATE TABLE a (id int); INSERT INTO a VALUES (1), (2)").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (plain, pipeline) = (folder.path().join("plain"), folder.path().join("pipeline"));
    let statements = "\\set id random(1, 2)\nSELECT * FROM a WHERE id = :id;\nBEGIN;\nUPDATE a SET id = id;\nCOMMIT;\n";
    std::fs::write(&plain, statements).unwrap();
    std::fs::write(&pipeline, format!("\\startpipeline\n{statements}\\endpipeline\n")).unwrap();
    // The last ones with most of each record cut off: the ends are known, but not all counts of rows.
    for (mode, script, bound) in [
        ("simple", &plain, usize::MAX),
        ("extended", &plain, usize::MAX),
        ("prepared", &plain, usize::MAX),
        ("extended", &pipeline, usize::MAX),
        ("prepared", &pipeline, usize::MAX),
        ("simple", &plain, 48),
        ("prepared", &plain, 48),
    ] {
        let (port, told) = proxy(postgres.port(), bound);
        let mut command = Command::new(pgbench);
        command.args(["-n", "-h", "127.0.0.1", "-U", "postgres", "-c", "4", "-t", "25", "-p", &port.to_string()]);
        let said = run(command.args(["-M", mode, "-f"]).arg(script).arg("postgres"), &password(&postgres));
        assert!(said.contains("actually processed: 100/100"), "{said}");
        let mut told = told.lock().unwrap();
        if bound < usize::MAX {
            let select = told.ends.get_mut(&("SELECT a".to_owned(), "ok".to_owned())).unwrap();
            assert!(select.1 < 100, "nothing was cut off");
            select.1 = 100;
        }
        check(
            &told,
            &[
                ("BEGIN", "ok", 100, 0),
                ("COMMIT", "ok", 100, 0),
                ("SELECT a", "ok", 100, 100),
                ("UPDATE a", "ok", 100, 200),
            ],
        );
    }
}
