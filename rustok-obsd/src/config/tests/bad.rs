//! Bad input: each message names place, key, reason and what is allowed.

use super::*;

#[test]
fn bad_input_of_the_file_is_told_by_line_key_and_what_is_allowed() {
    for (file, place, parts) in [
        (
            "\n[web]\nlisten_addres = 'x'",
            "test.toml:3: web.listen_addres",
            ["did you mean `web.listen_address`?", "allowed here: listen_address"],
        ),
        ("[web]\nlisten_address = '9464'", "test.toml:2: web.listen_address", ["`9464`", "allowed: `ADDRESS:PORT`"]),
        (
            "[web]\nlisten_address = 9464",
            "test.toml:2: web.listen_address",
            ["is an integer", "allowed: `ADDRESS:PORT`"],
        ),
        ("web = 1", "test.toml:1: web", ["is an integer", "allowed: a table `[web]`"]),
        ("[wep]\nx = 1", "test.toml:1: wep", ["did you mean `web`?", "allowed here: targets, web, traces"]),
        (
            "[web]\nsampler = 'always_on'",
            "test.toml:2: web.sampler",
            ["did you mean `traces.sampler`?", "listen_address"],
        ),
        ("[traces]\nsampler = 'always'", "test.toml:2: traces.sampler", ["`always`", "`parentbased_traceidratio`"]),
        (
            "[traces]\nsampler_arg = 1.5",
            "test.toml:2: traces.sampler_arg",
            ["`1.5`", "allowed: a number from 0.0 to 1.0"],
        ),
        ("[traces]\nsampler_arg = nan", "test.toml:2: traces.sampler_arg", ["`nan`", "from 0.0 to 1.0"]),
        ("[traces]\nqueue_size = 0", "test.toml:2: traces.queue_size", ["`0`", "from 1 to 1048576"]),
        ("[traces]\nqueue_size = -1", "test.toml:2: traces.queue_size", ["`-1`", "from 1 to 1048576"]),
        (
            "[traces]\nqueue_size = 99999999999999999999",
            "test.toml:2: traces.queue_size",
            ["99999999999999999999", "1048576"],
        ),
        ("[traces]\nqueue_size = '10'", "test.toml:2: traces.queue_size", ["is a string", "a whole number"]),
        ("[traces]\nschedule_delay = 5", "test.toml:2: traces.schedule_delay", ["is an integer", "such as `5s`"]),
        ("[traces]\nschedule_delay = '0s'", "test.toml:2: traces.schedule_delay", ["`0s`", "from 1ms to 1h"]),
        ("[traces]\nendpoint = 'ftp://x'", "test.toml:2: traces.endpoint", ["the scheme `ftp`", "allowed: a URL"]),
        ("[traces]\nendpoint = 'https://x'", "test.toml:2: traces.endpoint", ["TLS", "allowed: an `http://` URL"]),
        ("[traces]\nendpoint = 'http://u:p@x'", "test.toml:2: traces.endpoint", ["user name", "use `traces.headers`"]),
        ("[traces]\nendpoint = 'a b'", "test.toml:2: traces.endpoint", ["is no URL", "allowed: a URL"]),
        (
            "[traces]\nprotocol = 'http/json'",
            "test.toml:2: traces.protocol",
            ["`http/json`", "`grpc`, `http/protobuf`"],
        ),
        (
            "[traces]\nheaders = { 'a b' = 'x' }",
            "test.toml:2: traces.headers",
            ["the name of header 1 is no name", "allowed: letters"],
        ),
        ("[traces]\nheaders = { a = 1 }", "test.toml:2: traces.headers", ["`a` must be text", ""]),
        ("[traces]\nurl_path = 'yes'", "test.toml:2: traces.url_path", ["is a string", "`true` or `false`"]),
        (
            "[capture]\nring_bytes = 100000",
            "test.toml:2: capture.ring_bytes",
            ["`100000`", "a power of two from 65536"],
        ),
        ("[capture]\npayload_bytes = 16385", "test.toml:2: capture.payload_bytes", ["`16385`", "from 256 to 16384"]),
        ("[ebpf]\nbackend = 'kprobe'", "configuration: ebpf.backend", ["not built yet", "allowed: `auto`, `sock`"]),
        ("[path]\nprocfs = 'proc'", "test.toml:2: path.procfs", ["`proc`", "allowed: an absolute path"]),
        ("[log]\nlevel = 'INFO'", "test.toml:2: log.level", ["`INFO`", "`info`"]),
        ("targets = 1", "test.toml:1: targets", ["is an integer", "allowed: tables `[[targets]]`"]),
        ("targets = ['shop']", "test.toml:1: targets", ["is a string", "allowed: tables `[[targets]]`"]),
        ("\n[[targets]]\nservice_name = 'x'", "test.toml:2: targets", ["names no process", "at least one of `exe`"]),
        ("[[targets]]\nex = 'x'", "test.toml:2: targets.ex", ["did you mean `exe`?", "allowed: exe, command_line"]),
        ("[[targets]]\nexe = 'a/b'", "test.toml:2: targets.exe", ["relative path", "`**/a/b`"]),
        ("[[targets]]\nexe = '[a'", "test.toml:2: targets.exe", ["`[a` is no glob", "allowed: `*`"]),
        ("[[targets]]\nexe = ''", "test.toml:2: targets.exe", ["is empty", "allowed: text"]),
        ("[[targets]]\nport = 0", "test.toml:2: targets.port", ["`0`", "allowed: a port from 1 to 65535"]),
        ("[[targets]]\nport = '80'", "test.toml:2: targets.port", ["is a string", "allowed: a port"]),
        ("[[targets]]\npid = [1, -5]", "test.toml:2: targets.pid", ["`-5`", "allowed: a process id"]),
        (
            "[[targets]]\nexe = 'x'\nroutes = ['a']",
            "test.toml:3: targets.routes",
            ["does not begin with `/`", "allowed: a path such as"],
        ),
        (
            "[[targets]]\nexe = 'x'\nroutes = ['/{a']",
            "test.toml:3: targets.routes",
            ["`{a`", "allowed: a path such as"],
        ),
        (
            "[[targets]]\nexe = 'x'\nroutes = ['/{*a}/b']",
            "test.toml:3: targets.routes",
            ["not the last segment", "allowed"],
        ),
        (
            "[traces]\ntenant_header = 'a b'",
            "test.toml:2: traces.tenant_header",
            ["`a b` is no name", "allowed: letters"],
        ),
        (
            "[traces]\ntenant_header = 'Cookie'",
            "test.toml:2: traces.tenant_header",
            ["`Cookie` is refused", "leave it out"],
        ),
        (
            "[traces]\nrequest_headers = ['x-a', 'Authorization']",
            "test.toml:2: traces.request_headers",
            ["`Authorization` is refused: its value is a secret", "leave it out"],
        ),
        (
            "[traces]\nrequest_headers = [1.5]",
            "test.toml:2: traces.request_headers",
            ["holds a float", "a list of up to 16"],
        ),
        (
            "[traces]\nrequest_headers = 'x-a'",
            "test.toml:2: traces.request_headers",
            ["is a string", "a list of up to 16"],
        ),
        (
            "[traces]\nrequest_headers = ['a','b','c','d','e','f','g','h','i','j','k','l','m','n','o','p','q']",
            "test.toml:2: traces.request_headers",
            ["lists 17 headers", "allowed: a list of up to 16"],
        ),
        ("[database]\nenabled = 1", "test.toml:2: database.enabled", ["is an integer", "`true` or `false`"]),
        (
            "[database]\nstatement_bytes = 16385",
            "test.toml:2: database.statement_bytes",
            ["`16385`", "from 256 to 16384"],
        ),
        ("[database]\nstatements = 0", "test.toml:2: database.statements", ["`0`", "from 1 to 100000"]),
        ("[database]\nrepeated = 0", "test.toml:2: database.repeated", ["`0`", "from 1 to 1000000"]),
        ("[database]\nports = [5432, 0]", "test.toml:2: database.ports", ["`0`", "a list of ports from 1 to 65535"]),
        ("[database]\nports = 5432", "test.toml:2: database.ports", ["is an integer", "a list of ports"]),
        (
            "[database]\nprobes = ['diesel']",
            "test.toml:2: database.probes",
            ["`diesel`", "`sea-orm`, `sqlx`, `results`, `tasks`"],
        ),
        (
            "[process]\ngroup_by = 'pid'",
            "test.toml:2: process.group_by",
            ["`pid`", "`comm`, `exe`, `unit`, `cgroup`, `none`"],
        ),
        (
            "[[process.group]]\nname = 'a'",
            "test.toml:1: process.group",
            ["has no condition", "at least one of `comm`, `exe`"],
        ),
        (
            "[[process.group]]\ncmdline = '('",
            "test.toml:2: process.group.cmdline",
            ["unclosed group", "syntax of the crate `regex`"],
        ),
        (
            "[[process.group]]\nname = '{jar}'\ncmdline = '-jar (?P<file>.*)'",
            "test.toml:1: process.group.name",
            ["knows no `{jar}`", "cgroup, user, file"],
        ),
        (
            "[[process.group]]\nname = '{comm'\ncomm = 'a'",
            "test.toml:2: process.group.name",
            ["without its `}`", "variables in braces"],
        ),
        (
            "[[process.group]]\nexes = 'a'",
            "test.toml:2: process.group.exes",
            ["did you mean `exe`?", "allowed: name, comm"],
        ),
        (
            "[[process.group]]\ncgroup = ['system.slice']",
            "test.toml:2: process.group.cgroup",
            ["without `/`", "`/system.slice`"],
        ),
        ("[[process.group]]\ncomm = [1]", "test.toml:2: process.group.comm", ["holds an integer", "a list of texts"]),
        (
            "[database]\nprob = 1",
            "test.toml:2: database.prob",
            ["did you mean `database.probe`?", "allowed here: enabled"],
        ),
        (
            "[database]\nprobe = 1",
            "test.toml:2: database.probe",
            ["is an integer", "allowed: tables `[[database.probe]]`"],
        ),
        (
            "\n[[database.probe]]\nkind = 'begin'",
            "test.toml:2: database.probe",
            ["names no `function`", "required: its demangled"],
        ),
        (
            "[[database.probe]]\nfunction = 'a::b'",
            "test.toml:1: database.probe",
            ["has no `kind`", "one of `statement`, `text`, `begin`"],
        ),
        (
            "[[database.probe]]\nfunction = 'a::b'\nkind = 'query'",
            "test.toml:3: database.probe.kind",
            ["`query`", "allowed: `statement`, `text`"],
        ),
        (
            "[[database.probe]]\nfunction = 'a::b'\nkind = 'statement'",
            "test.toml:1: database.probe",
            ["has no `argument`", "from 0 to 5"],
        ),
        (
            "[[database.probe]]\nfunction = 'a::b'\nkind = 'commit'\nargument = 1",
            "test.toml:1: database.probe",
            ["the kind `commit` does not use", "leave it out"],
        ),
        (
            "[[database.probe]]\nfunction = 'a::b'\nkind = 'statement'\nargument = 6",
            "test.toml:4: database.probe.argument",
            ["`6`", "from 0 to 5"],
        ),
        (
            "[[database.probe]]\nfunction = 'a::b'\nkind = 'text'\nargument = 5",
            "test.toml:1: database.probe.argument",
            ["whose length is the argument behind it", "from 0 to 4"],
        ),
        (
            "[[database.probe]]\nfunction = 'query'\nkind = 'begin'",
            "test.toml:2: database.probe.function",
            ["has no `::`", "allowed: a demangled Rust path"],
        ),
        (
            "[[database.probe]]\nfunction = 'a::b::h0123456789abcdef'\nkind = 'begin'",
            "test.toml:2: database.probe.function",
            ["which every build changes", "without `::h0123456789abcdef`"],
        ),
        (
            "[[database.probe]]\nfunction = '_ZN1a1b17h0123456789abcdefE::x'\nkind = 'begin'",
            "test.toml:2: database.probe.function",
            ["is a mangled name", "allowed: a demangled"],
        ),
        (
            "[[database.probe]]\nfunktion = 'a::b'",
            "test.toml:2: database.probe.funktion",
            ["did you mean `function`?", "allowed: function, kind, argument"],
        ),
        (
            "[errors]\nmodules = { 'api' = 'orders' }",
            "test.toml:2: errors.modules",
            ["`api` is no prefix of a route", "allowed: a table"],
        ),
        (
            "[errors]\nmodules = { '/api' = 'My Orders' }",
            "test.toml:2: errors.modules",
            ["`My Orders` of `/api` is no name", "allowed: a table"],
        ),
        ("[errors]\nmodules = ['/api']", "test.toml:2: errors.modules", ["is an array", "a table of route prefixes"]),
        ("[web\nx", "test.toml:1", ["not TOML", ""]),
        ("[web]\n[web]", "test.toml:2", ["not TOML: duplicate key", ""]),
    ] {
        let problems = load(file, &[], &[]).err().unwrap_or_else(|| panic!("{file} was taken"));
        let problem = problems.iter().find(|problem| problem.starts_with(&format!("{place}: ")));
        let problem = problem.unwrap_or_else(|| panic!("{file}: no {place} in {problems:?}"));
        for part in parts {
            assert!(problem.contains(part), "{file}: no {part} in {problem}");
        }
    }
}

#[test]
fn everything_wrong_is_reported_at_once_and_in_order() {
    let problems = load(
        "[web]\nlisten_address = 1\n[log]\nlevel = 'x'\n[[targets]]\nport = 0\nexe = ''",
        &[("RUSTOK_OBSD_LOG_FORMAT", "xml"), ("RUSTOK_OBSD_PORT", "http")],
        &[("ebpf.backend", "magic")],
    )
    .unwrap_err();
    let places: Vec<&str> = problems.iter().map(|problem| problem.split(": ").take(2).last().unwrap()).collect();
    for key in [
        "web.listen_address",
        "log.level",
        "targets.port",
        "targets.exe",
        "RUSTOK_OBSD_LOG_FORMAT",
        "RUSTOK_OBSD_PORT",
        "--backend",
    ] {
        assert!(places.contains(&key), "no {key} in {problems:?}");
    }
    assert_eq!(problems.len(), 7, "{problems:?}");
    assert!(problems[4].starts_with("environment: RUSTOK_OBSD_LOG_FORMAT: `xml`"), "{problems:?}");
    assert!(problems[6].starts_with("command line: --backend: `magic`"), "{problems:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let sources = Sources { file: Some("/nonexistent/a.toml".into()), ..Sources::default() };
    let text = sources.load().unwrap_err().to_string();
    assert!(
        text.starts_with("/nonexistent/a.toml: cannot be read: No such file") && text.contains("--config.file"),
        "{text}"
    );
}

#[test]
fn what_is_ignored_is_said() {
    let warnings = load("", &[("RUSTOK_OBSD_LOG_LEVL", "debug"), ("RUSTOK_OBSD_JAEGER", "/x")], &[]).unwrap().warnings;
    assert!(warnings.iter().any(|text| text.contains("did you mean RUSTOK_OBSD_LOG_LEVEL?")), "{warnings:?}");
    assert!(!warnings.iter().any(|text| text.contains("JAEGER")), "{warnings:?}");
    assert!(warnings.iter().any(|text| text.contains("no target is configured")), "{warnings:?}");
    let two = "[[targets]]\nexe = 'a'\n[[targets]]\nexe = 'b'";
    let warnings = load(two, &[("OTEL_SERVICE_NAME", "x")], &[]).unwrap().warnings;
    assert!(warnings[0].contains("OTEL_SERVICE_NAME") && warnings[0].contains("service_name"), "{warnings:?}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics_as_a_file_or_as_a_value(text in "(?s).{0,80}", key in 0..keys::KEYS.len()) {
        let _ = load(&text, &[], &[]);
        let key = &keys::KEYS[key];
        let _ = load(&format!("{} = {text}", key.path), &[], &[]);
        let _ = load("", &[(&key.variables()[0], &text.replace('\0', ""))], &[(key.path, &text)]);
    }
}
