//! What is wrong is said without what is secret: values of keys that hold secrets, and lines that are no configuration.

use super::*;

/// Loads values of a key by each layer that has it; yields what is said, errors and warnings.
fn said(key: &str, value: &str) -> Vec<String> {
    let row = keys::KEYS.iter().find(|row| row.path == key).unwrap();
    let path = row.path;
    let toml = format!("{path} = {}", toml::Value::String(value.to_owned()));
    let mut results = vec![load(&toml, &[], &[])];
    results.extend(row.variables().iter().map(|name| load("", &[(name, value)], &[])));
    if !row.flag.is_empty() {
        results.push(load("", &[], &[(path, value)]));
    }
    results.into_iter().flat_map(|result| result.map_or_else(|problems| problems, |loaded| loaded.warnings)).collect()
}

#[test]
fn an_endpoint_is_never_shown_in_whatever_way_it_is_wrong() {
    for bad in [
        "http://user:s3cret@collector:4318",
        "https://user:s3cret@collector:4318",
        "http://user:s3cret@collector:port",
        "http://user:s3/cret@collector:4318",
        "http://user:s3cret@[::1",
        "http:// s3cret@collector",
        "http://collector:s3cret",
        "http://collector/ s3cret",
        "user:s3cret@collector:4317",
        "s3cret@collector",
        "s3cret://collector",
        "ftp://user:s3cret@collector",
        "http:/user:s3cret@collector:4318",
        "s3cret s3cret",
        "http://s3cret^@collector",
        "://s3cret",
    ] {
        let said = said("traces.endpoint", bad);
        assert!(
            said.iter().any(|text| text.contains("traces.endpoint") || text.contains("ENDPOINT")),
            "{bad}: {said:?}"
        );
        assert!(!said.join("\n").contains("cret"), "{bad}: {said:?}");
    }
}

#[test]
fn headers_and_attributes_are_never_shown_in_whatever_way_they_are_wrong() {
    for bad in [
        "s3cret",
        "authorization: Bearer s3cret",
        "authorization: Bearer s3cret==",
        "authorization=Bearer s3cret\u{1}",
        "authorization=s3cret%",
        "authorization=s3cret%zz",
        "Bearer s3cret=x",
        "s3cret=%ff",
        "a=1,s3cret",
        "=s3cret",
        "a=s3cret%0a",
    ] {
        for key in ["traces.headers", "resource.attributes"] {
            let said = said(key, bad);
            assert!(!said.join("\n").contains("s3cret"), "{key} {bad}: {said:?}");
        }
        assert!(!said("traces.headers", bad).is_empty(), "{bad} was taken");
    }
    let problems = load("[traces]\nheaders = { authorization = \"s3cret\\u007f\" }", &[], &[]).unwrap_err();
    assert!(problems[0].contains("traces.headers") && !problems[0].contains("s3cret"), "{problems:?}");
}

#[test]
fn settings_are_shown_without_their_secrets() {
    let file = "[traces]\nendpoint = 'http://collector:4318/x?key=s3cret'\nheaders = { x-key = 's3cret' }";
    let config = load(file, &[("OTEL_RESOURCE_ATTRIBUTES", "k=s3cret")], &[]).unwrap().config;
    assert!(config.traces.url().contains("s3cret"));
    assert_eq!(config.traces.shown_url(), "http://collector:4318/x");
    let shown = format!("{:?}", config.traces.headers) + &format!("{:?}", config.resource.attributes);
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn of_a_file_that_is_no_configuration_nothing_is_shown() {
    for text in [
        "-----BEGIN s3cret KEY-----\ns3crets3crets3cret\n-----END s3cret KEY-----\n",
        "root:$6$s3cret$s3cret:19000:0:99999:7:::\n",
        "[default]\naws_secret_access_key = s3cret/s3cret+s3cret\n",
        "machine host login me password s3cret\n",
        "password: s3cret\n",
        "s3cret",
        "\"s3cret",
        "x = 's3cret",
        "x = \"\\s3cret\"",
        "x = s3cret",
        "x = 12s3cret",
        "x = 2026-01-01s3cret",
        "s3cret s3cret = 1",
        "[s3cret",
        "x = { s3cret",
        "x = [ s3cret",
        "x.s3cret = 1\nx = 's3cret'",
        "x = 's3cret'\nx = 's3cret'",
        "x = 's3cret'\n[x.s3cret]",
        "x = 's3cret'\nx.s3cret = 1",
        "PASSWORD = 's3cret'",
        "[x]\ntoken = 's3cret'",
        "[web]\ntoken = 's3cret'",
        "web = 's3cret'",
        "targets = ['s3cret']",
    ] {
        let problems = load(text, &[], &[]).unwrap_err();
        assert!(problems[0].starts_with("test.toml:"), "{problems:?}");
        assert!(!problems.join("\n").contains("s3cret"), "{text}: {problems:?}");
    }
}

#[test]
fn a_file_that_does_not_end_is_left() {
    let problem = |path: &str| {
        let sources = Sources { file: Some(path.into()), ..Sources::default() };
        sources.load().unwrap_err().to_string()
    };
    assert!(problem("/dev/zero").contains("longer than 1 MiB"), "{}", problem("/dev/zero"));
    assert!(problem("/").contains("cannot be read"), "{}", problem("/"));
    // A name cannot forge a line.
    assert_eq!(problem("/nonexistent/a\nrustok-obsd: all is well").lines().count(), 1);
}

#[test]
fn hosts_are_names_or_addresses() {
    for good in ["a.example", "host.docker.internal", "192.0.2.1", "[2001:db8::1]", "2001:db8::1", "*", "my_host-1"] {
        let file = format!("[web]\nallowed_hosts = ['{good}']");
        assert_eq!(load(&file, &[], &[]).unwrap().config.web.allowed_hosts, [good]);
    }
    for bad in ["a.example:9464", "http://a.example", "a b", "*.example", ""] {
        let problems = load(&format!("[web]\nallowed_hosts = ['{bad}']"), &[], &[]).unwrap_err();
        assert!(problems[0].contains("no name of a host; allowed: a list of names"), "{bad}: {problems:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_value_of_a_line_that_does_not_parse_is_shown(
        text in "([a-z.\\[\\]{}=\"',#:\\\\ \n0-9-]{0,5}= *[0-9'\"{\\[]?s3cret[\"'}\\]]?\n?){1,5}",
    ) {
        if let Err(problems) = load(&text, &[], &[]) {
            proptest::prop_assert!(!problems.join("\n").contains("s3cret"), "{:?}: {:?}", text, problems);
        }
    }
}
