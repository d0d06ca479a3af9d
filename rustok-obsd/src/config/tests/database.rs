//! `[database]`, `[errors]` and the headers of spans, from every layer.

use super::*;

#[test]
fn lists_are_taken_from_the_file_a_variable_or_a_flag() {
    let file =
        "[database]\nports = [6543, 5_432, 6543]\nprobes = ['sqlx']\n[traces]\nrequest_headers = ['X-B', 'x-a', 'x-b']";
    let config = load(file, &[], &[]).unwrap().config;
    assert_eq!(config.database.ports, [5432, 6543]);
    assert_eq!(config.database.probes, ProbeSets { sqlx: true, ..ProbeSets::none() });
    assert_eq!(config.traces.request_headers, ["x-b", "x-a"], "in lower case, once, in their order");
    let variables = [("RUSTOK_OBSD_DATABASE_PORTS", "1, 2"), ("RUSTOK_OBSD_TRACES_REQUEST_HEADERS", "x-c,")];
    let config = load(file, &variables, &[("database.probes", "sea-orm,tasks")]).unwrap().config;
    assert_eq!((config.database.ports, config.traces.request_headers), (vec![1, 2], vec!["x-c".to_owned()]));
    assert_eq!(config.database.probes, ProbeSets { sea_orm: true, tasks: true, ..ProbeSets::none() });
    // Nothing at all, in the file and as text.
    for (file, flag) in [("[database]\nprobes = []", None), ("", Some("none"))] {
        let flags: Vec<(&str, &str)> = flag.map(|text| ("database.probes", text)).into_iter().collect();
        assert_eq!(load(file, &[], &flags).unwrap().config.database.probes, ProbeSets::none());
    }
    let problems = load("", &[], &[("database.probes", "sqlx,none")]).unwrap_err();
    assert!(problems[0].starts_with("command line: --database.probes: `none`"), "{problems:?}");
}

#[test]
fn the_defaults_observe_postgres_by_every_probe_and_let_no_header_out_but_the_tenant() {
    let config = Config::default();
    let Database { enabled, statement_bytes, statements, repeated, ports, probes, probe } = config.database;
    assert_eq!((enabled, statement_bytes, statements, repeated), (true, 16_384, 500, 5));
    assert!(ports == [5432] && probe.is_empty() && probes.all().iter().all(|(_, on)| *on));
    assert_eq!(config.traces.tenant_header.as_deref(), Some("X-Tenant-ID"));
    assert!(config.traces.request_headers.is_empty());
    let off = load("[traces]\ntenant_header = ''", &[], &[]).unwrap().config;
    assert_eq!(off.traces.tenant_header, None);
}

#[test]
fn probe_points_are_read_as_written() {
    let file = "[[database.probe]]\nfunction = 'shop::Store::query'\nkind = 'text'\nargument = 2\n\
                [[database.probe]]\nkind = 'rollback'\nfunction = '<shop::Tx as shop::End>::rollback'";
    let points = load(file, &[], &[]).unwrap().config.database.probe;
    let text = ProbePoint { function: "shop::Store::query".into(), kind: ProbeKind::Text, argument: 2 };
    let end =
        ProbePoint { function: "<shop::Tx as shop::End>::rollback".into(), kind: ProbeKind::Rollback, argument: 0 };
    assert_eq!(points, [text, end]);
}

#[test]
fn modules_come_from_the_file_or_from_the_environment_over_it() {
    let pairs =
        |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    let file = "[errors]\nmodules = { '/api' = 'core', '/api/orders' = 'commerce' }";
    let of = |environment: &[(&str, &str)]| {
        let mut modules = load(file, environment, &[]).unwrap().config.errors.modules.0;
        modules.sort();
        modules
    };
    assert_eq!(of(&[]), pairs(&[("/api", "core"), ("/api/orders", "commerce")]));
    let environment = [("RUSTOK_OBSD_ERRORS_MODULES", "/=core,/a=other")];
    let told = of(&environment);
    assert!(told.contains(&("/a".into(), "other".into())), "{told:?}");
}
