//! Planted secrets: whatever a server, its clients, its command line and the daemon's own settings hold of them, none is
//! in any output of the daemon.
//!
//! Reads: the server `ledger`, whose routes take SQL; a server without Tokio, whose routes are learned. Yields: fails for
//! each output that holds a secret, or a piece of one, and names both. Costs: two databases, some hundred requests.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Command, Output},
    time::Duration,
};

use test_support::{Child, Postgres, Sink, Skip, SpanKind, Tls, http_get, http_get_with, skip, wait_until};

use super::{
    faults::or_skip,
    running::{Binary, Daemon, PATIENCE, Script},
    scene::program,
    serial,
};

/// So much of a secret tells it.
const PIECE: usize = 10;

/// What was planted, and where.
#[derive(Default)]
struct Planted(Vec<(String, String)>);

impl Planted {
    /// A secret of its own: letters and digits of which no piece is anywhere else. It begins as a name does, so that what
    /// takes it for one shows it.
    fn make(&mut self, place: &str) -> String {
        self.shaped(place, |seed| format!("k{:016x}{:08x}", mix(seed), mix(seed + 1) as u32))
    }

    /// The same in a shape that its place needs.
    fn shaped(&mut self, place: &str, shape: impl FnOnce(u64) -> String) -> String {
        let secret = shape(0x5eed + 16 * self.0.len() as u64);
        self.add(place, &secret);
        secret
    }

    fn add(&mut self, place: &str, secret: &str) {
        assert!(secret.len() >= PIECE, "{place}: {secret} is too short to be found");
        self.0.push((place.to_owned(), secret.to_owned()));
    }

    /// Which of them a text holds: the beginning or the end of one is enough.
    fn found_in<'p>(&'p self, output: &'p str, text: &'p str) -> impl Iterator<Item = String> + 'p {
        self.0.iter().filter_map(move |(place, secret)| {
            let pieces = [&secret[..PIECE], &secret[secret.len() - PIECE..]];
            let at = pieces.iter().find_map(|piece| text.find(piece))?;
            let before = text[..at].chars().rev().take(200).take_while(|letter| *letter != '\n');
            let before: String = before.collect::<Vec<_>>().into_iter().rev().collect();
            let after: String = text[at..].chars().take(200).take_while(|letter| *letter != '\n').collect();
            let shown = before + &after;
            Some(format!("{output} holds the secret of {place}:\n    {shown}"))
        })
    }
}

/// The output of splitmix64 for a state.
fn mix(state: u64) -> u64 {
    let mut value = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Shapes that tokens in paths have: 16 to 40 letters, digits, `-` and `_`.
fn tokens(seed: u64) -> [String; 6] {
    let letters = |seed: u64, count: usize, of: &[u8]| -> String {
        (0..count).map(|at| char::from(of[(mix(mix(seed) + at as u64) % of.len() as u64) as usize])).collect()
    };
    const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
    const URL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    [
        letters(seed, 16, LOWER),
        letters(seed + 1, 40, LOWER),
        letters(seed + 2, 22, URL),
        letters(seed + 3, 32, b"0123456789abcdef"),
        format!("{}-{}-{}", letters(seed + 4, 11, LOWER), letters(seed + 5, 11, LOWER), letters(seed + 6, 11, LOWER)),
        format!("{}_{}", letters(seed + 7, 12, b"0123456789"), letters(seed + 8, 12, LOWER)),
    ]
}

/// Sends one request on a connection of its own; yields the status.
fn send(server: SocketAddr, request: &str) -> u16 {
    let mut stream = TcpStream::connect(server).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.write_all(request.as_bytes()).expect("send");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let _ = stream.shutdown(Shutdown::Both);
    let text = String::from_utf8_lossy(&answer);
    text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{request}\n{text}"))
}

/// Headers with a secret in each.
fn headers(planted: &mut Planted) -> String {
    let fields = [
        ("Authorization", "Bearer "),
        ("Proxy-Authorization", "Basic "),
        ("Cookie", "session="),
        ("X-Api-Key", ""),
        ("X-CSRF-Token", ""),
        ("Referer", "http://shop.example/?token="),
        ("User-Agent", "client/"),
        ("X-Forwarded-For", ""),
        ("tracestate", "vendor="),
    ];
    let line = |(name, before)| format!("{name}: {before}{}\r\n", planted.make(&format!("the header {name}")));
    fields.map(line).concat()
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Type: \
         text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Statements of PostgreSQL with a secret in every position that a literal can have. Some fail: the database's message then
/// holds the secret too.
fn statements(planted: &mut Planted) -> Vec<String> {
    let mut all = Vec::new();
    for template in [
        "SELECT 'S'",
        "SELECT 'it''s S'",
        "SELECT E'a\\'b S'",
        "SELECT E'S\\n'",
        "SELECT U&'S\\0041'",
        "SELECT N'S'",
        "SELECT $$S$$",
        "SELECT $tag$S $$ $tag$",
        "SELECT 1 WHERE 'S' = ANY(ARRAY['a', 'S'])",
        "SELECT 1 WHERE 'x' IN ('S', 'S')",
        "SELECT 1 WHERE 'x' LIKE 'S%' ESCAPE '!'",
        "SELECT 1 WHERE 'x' LIKE '%S\\'",
        "SELECT 1 AS a /* S */ WHERE 1 = 1 -- S",
        "SELECT 1 /* a /* nested S */ b */",
        "VALUES ('S', 1), ('x', 2)",
        "SELECT 'S'::text::varchar",
        "SELECT CAST('S' AS text)",
        "SELECT text 'S'",
        "SELECT '{\"k\": \"S\"}'::jsonb ->> 'k'",
        "SELECT 'S'::int",
        "SELECT date 'S'",
        "SELECT interval 'S'",
        "SELECT b'1S'",
        "SELECT 'a'\n'S'",
        "SELECT 'x' WHERE 'x' ~ 'S'",
        "INSERT INTO shop.tenants (id, slug) VALUES (gen_random_uuid(), 'S') RETURNING slug",
        "UPDATE shop.tenants SET slug = slug || 'S' WHERE slug = 'S'",
        "DELETE FROM shop.tenants WHERE slug = 'S'",
        "COMMENT ON TABLE shop.tenants IS 'S'",
        "SET application_name = 'S'",
        "SET application_name TO 'S'",
        "SET search_path TO public, 'S'",
        "SET shop.section.key = 'S'",
        "SET shop.a.b.c = S",
        "SET shop.a.b.c TO 'x', S",
        "SET shop.token = S",
        "SELECT set_config('shop.token', 'S', false)",
        "NOTIFY shop, 'S'",
        "CREATE ROLE planted_a PASSWORD 'S'",
        "CREATE USER planted_b WITH ENCRYPTED PASSWORD 'S' VALID UNTIL 'infinity'",
        "ALTER ROLE postgres SET application_name = 'S'",
        "DO $$ BEGIN PERFORM 'S'; END $$",
        "DO $body$ BEGIN RAISE EXCEPTION 'S'; END $body$",
        "PREPARE planted AS SELECT 'S' || $1",
        "EXECUTE planted('S')",
        "SELECT 'S",
        "SELECT $$S",
        "SELECT 1 /* S",
        // The server reads a backslash as an escape from here on, and the next text by that.
        "SET standard_conforming_strings = off",
        "SELECT '\\' S'",
        "SELECT '\\'S'",
        "SET standard_conforming_strings = on",
    ] {
        let secret =
            if template.contains('S') { planted.make(&format!("the statement {template}")) } else { String::new() };
        all.push(replace_alone(template, &secret));
    }
    let number = planted.shaped("a number", |seed| format!("4{:017}", mix(seed) % 100_000_000_000_000_000));
    all.push(format!("SELECT {number}"));
    all.push(format!("SELECT -{number}.5e3"));
    all.push(format!("SELECT 1 WHERE 1 = {number} OR 2 BETWEEN {number} AND {number}"));
    let hex = planted.shaped("a bit string", |seed| format!("{:016x}{:016x}", mix(seed), mix(seed + 1)));
    all.push(format!("SELECT X'{hex}'"));
    all.push(format!("SELECT 0x{}", &hex[..15]));
    all.push(format!("SELECT '\\x{hex}'::bytea"));
    all
}

/// Puts the secret where an `S` is no part of a word.
fn replace_alone(text: &str, secret: &str) -> String {
    let bytes = text.as_bytes();
    let is_word = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at)).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
    };
    text.char_indices()
        .map(|(at, letter)| match letter {
            'S' if !is_word(at.checked_sub(1)) && !is_word(Some(at + 1)) => secret.to_owned(),
            letter => letter.to_string(),
        })
        .collect()
}

/// A daemon whose whole log is kept.
fn daemon(log: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Daemon, Skip> {
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$0\" \"$@\" 2> >(exec tee \"$WHOLE_LOG\" >&2)"]).arg(program("RUSTOK_OBSD_BIN")?);
    command.env("WHOLE_LOG", log).envs(variables.iter().copied());
    Daemon::start_with(command, arguments)
}

/// What a command of the daemon prints, on both outputs.
fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(program("RUSTOK_OBSD_BIN").expect("the daemon"));
    let Output { stdout, stderr, .. } =
        command.args(arguments).envs(variables.iter().copied()).output().expect("it starts");
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
}

fn run(binary: &Binary, tls: Tls, exact_routes: bool) -> Result<Vec<String>, Skip> {
    let mut planted = Planted::default();
    let postgres = Postgres::start_with(tls)?;
    // The password of the connection string: in the command line, where every user can read it.
    let url = postgres.url("postgres");
    let password = url.split_once("postgres:").and_then(|(_, rest)| rest.split_once('@'));
    planted.add("the connection string", password.expect("a password").0);
    let mut command = Command::new(&binary.path);
    command.args(["--listen", "127.0.0.1:0", "--workers", "2", "--pool", "2", "--raw-sql", "--database-url", &url]);
    for name in ["API_TOKEN", "AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_HEADERS"] {
        command.env(name, format!("authorization={}", planted.make(&format!("the server's {name}"))));
    }
    let ledger = Child::spawn("ledger", &mut command).expect("start the server");
    let server: SocketAddr = ledger
        .wait_for_line(PATIENCE, |line| line.strip_prefix("listening on http://")?.parse().ok())
        .expect("the server listens");
    let script_secret = planted.make("an argument of a command line");
    let script = Script::server(&format!("planted-{script_secret}"))?;

    let sink = Sink::start();
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log").to_string_lossy().into_owned();
    let file = folder.path().join("rustok-obsd.toml").to_string_lossy().into_owned();
    let in_file = planted.make("traces.headers of the file");
    fs::write(&file, format!("[traces]\nheaders = {{ x-file-key = {in_file:?} }}\n[log]\nlevel = \"trace\"\n"))
        .expect("write");
    let exported =
        format!("authorization=Bearer%20{},x-key={}", planted.make("a header of exports"), planted.make("another"));
    let endpoint = sink.endpoint();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", exported.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100000"),
    ];
    let port = script.address.port().to_string();
    let arguments = ["--config.file", &file, "--exe", binary.text(), "--port", &port];
    let mut daemon = daemon(&log, &arguments, &variables)?.ready()?;
    daemon.observes(ledger.id());
    daemon.observes(script.child.id());

    let secret_headers = headers(&mut planted);
    let mut sent = 0u64;
    let mut ask = |request: &str, to: SocketAddr| {
        sent += 1;
        send(to, request)
    };
    let mut answered = 0;
    for statement in statements(&mut planted) {
        for path in ["/api/sql", "/api/sql/prepared"] {
            let status = ask(&request("POST", path, &secret_headers, &statement), server);
            answered += u32::from(status == 200);
        }
    }
    let bound = planted.make("a bound value");
    let body = "SELECT $1::text";
    let request_bound = request("POST", "/api/sql/prepared", &secret_headers, body);
    assert_eq!(ask(&request_bound.replacen("\r\n", &format!("\r\nX-Bind: {bound}\r\n"), 1), server), 200);
    assert!(answered > 40, "{answered} statements worked");

    let method = planted.shaped("a method", |seed| format!("PLANTED{:012X}", mix(seed) >> 16));
    let query = planted.make("a query string");
    for to in [server, script.address] {
        for path in ["/hello", "/api/content/nodes", "/nothing"] {
            ask(&request("GET", &format!("{path}?token={query}&{query}=1"), &secret_headers, ""), to);
        }
        ask(&request(&method, "/hello", &secret_headers, ""), to);
    }
    // Tokens of paths: on routes that exist, where nothing matched, and on a server whose routes nobody knows. One that
    // comes again and again is as secret as one that comes once.
    for round in 0..6u64 {
        for (shape, token) in tokens(0xf00d + 1000 * round).into_iter().enumerate() {
            planted.add(&format!("a path, shape {shape}, round {round}"), &token);
            let again = if round == 0 { 25 } else { 1 };
            for _ in 0..again {
                ask(&request("GET", &format!("/reset/{token}"), &secret_headers, ""), script.address);
                ask(&request("GET", &format!("/users/{token}/keys"), &secret_headers, ""), script.address);
                ask(&request("GET", &format!("/reset/{token}"), &secret_headers, ""), server);
                ask(&request("GET", &format!("/api/content/nodes/{token}"), &secret_headers, ""), server);
            }
        }
    }

    let counted = daemon.wait("all requests to be counted", |daemon| {
        let seen = daemon.metrics().sum("rustok_http_requests_total", &[]);
        (seen >= sent as f64).then_some(seen)
    });
    assert_eq!(counted, sent as f64);
    let of_kind = |kind| sink.spans().iter().filter(|span| span.kind == kind).count();
    let complete = wait_until(PATIENCE, || (of_kind(SpanKind::Server) as u64 >= sent).then_some(()));
    assert!(complete.is_some(), "{} of {sent} spans", of_kind(SpanKind::Server));
    let texts = sink.spans().iter().filter(|span| span.text("db.query.text").is_some()).count();
    assert!(texts >= 100, "statements in spans: {texts}");

    let spans: Vec<String> = sink.spans().iter().map(|span| format!("{span:?}")).collect();
    let mut outputs = vec![("the spans".to_owned(), spans.join("\n"))];
    let openmetrics = ("accept", "application/openmetrics-text; version=1.0.0");
    for path in ["/metrics", "/metrics/app", "/metrics/node", "/metrics/cadvisor", "/metrics/process"] {
        for headers in [&[][..], &[openmetrics]] {
            let (status, _, body) = http_get_with(daemon.address, path, headers).expect("it answers");
            assert_eq!(status, 200, "{path}");
            outputs.push((path.to_owned(), String::from_utf8_lossy(&body).into_owned()));
        }
    }
    for path in ["/status", "/readyz", "/healthz", "/", "/nothing"] {
        let (_, _, body) = http_get(daemon.address, path).expect("it answers");
        outputs.push((path.to_owned(), String::from_utf8_lossy(&body).into_owned()));
    }
    let exact = daemon.metrics().sum("rustok_obsd_routes", &[("source", "axum")]);
    assert_eq!(exact > 0.0, exact_routes, "{exact} exact routes");
    daemon.child.stop(libc::SIGTERM, PATIENCE).expect("it ends");
    let whole = wait_until(PATIENCE, || fs::read_to_string(&log).ok().filter(|log| log.contains("SIGTERM")));
    outputs.push(("the log".to_owned(), whole.expect("a log")));

    let doctor = [&["doctor"][..], &arguments].concat();
    outputs.push(("doctor".to_owned(), printed(&doctor, &variables)));
    outputs.push(("doctor --json".to_owned(), printed(&[&doctor[..], &["--json"]].concat(), &variables)));
    outputs.push(("check-config".to_owned(), printed(&[&["check-config"][..], &arguments].concat(), &variables)));
    outputs.push(("probes".to_owned(), printed(&["probes", "--binary", binary.text()], &variables)));
    outputs.push(("probes --json".to_owned(), printed(&["probes", "--json", "--binary", binary.text()], &variables)));
    assert!(outputs.iter().all(|(output, text)| !text.is_empty() || output == "/healthz"));

    let mut found: Vec<String> =
        outputs.iter().flat_map(|(output, text)| planted.found_in(output, text).collect::<Vec<_>>()).collect();
    found.dedup();
    Ok(found)
}

#[test]
fn no_planted_secret_is_in_any_output() {
    let name = "no_planted_secret_is_in_any_output";
    let _alone = serial();
    let ledger = or_skip!(name, program("RUSTOK_OBSD_LEDGER"));
    let whole = or_skip!(name, Binary::copy(&ledger, "ledger-copy"));
    let mut found = or_skip!(name, run(&whole, Tls::On, true));
    // Without symbols: routes are learned, and statements come from the wire.
    let stripped = or_skip!(name, Binary::copy(&ledger, "ledger-bare"));
    match Command::new("strip").arg(&stripped.path).status() {
        Ok(status) if status.success() => found.extend(or_skip!(name, run(&stripped, Tls::Off, false))),
        other => skip("no_planted_secret_is_in_any_output, without symbols", Skip::new(format!("strip: {other:?}"))),
    }
    assert!(found.is_empty(), "{} secrets leak:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_collector_that_refuses_and_one_that_is_gone_are_told_without_the_key_of_their_url() {
    let name = "a_collector_that_refuses_and_one_that_is_gone_are_told_without_the_key_of_their_url";
    let _alone = serial();
    let script = or_skip!(name, Script::server("exporting"));
    let sink = Sink::start();
    let port = script.address.port().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    for (endpoint, protocol) in [
        (sink.endpoint(), "http/protobuf"),
        ("http://127.0.0.1:1".to_owned(), "http/protobuf"),
        ("http://127.0.0.1:1".to_owned(), "grpc"),
    ] {
        let mut planted = Planted::default();
        let url = format!("{endpoint}/v1/traces?key={}", planted.make("the query of the URL"));
        let headers = format!("x-key={}", planted.make("a header"));
        let variables = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str()),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ];
        let log = folder.path().join(protocol.replace('/', "-")).to_string_lossy().into_owned();
        let daemon = or_skip!(name, daemon(&log, &["--port", &port, "--log.level", "trace"], &variables));
        let daemon = or_skip!(name, daemon.ready());
        daemon.observes(script.child.id());
        send(script.address, "GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        daemon
            .child
            .wait_for_line(Duration::from_secs(30), |line| line.contains("spans cannot be exported").then_some(()))
            .unwrap_or_else(|error| panic!("{error}"));
        let text = fs::read_to_string(&log).expect("a log") + &daemon.status().to_string() + &daemon.metrics().0;
        assert!(text.contains("127.0.0.1"), "{text}");
        let found: Vec<String> = planted.found_in(&endpoint, &text).collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
