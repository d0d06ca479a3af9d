//! File below environment below flags.

use super::super::keys::{KEYS, Key};
use super::*;
use std::collections::HashMap;

/// Three different values of a key: as text and as TOML.
fn samples(key: &Key) -> [(String, String); 3] {
    let mut config = Config::default();
    let slot = (key.slot)(&mut config);
    let plain = |text: String| (text.clone(), text);
    let quoted = |text: &str| (text.to_owned(), format!("\"{text}\""));
    match &slot {
        Slot::Bool(_) => ["true", "false", "true"].map(|text| plain(text.into())),
        Slot::Integer(_, min, _) => [0, 1, 2].map(|more| plain((min + more).to_string())),
        Slot::PowerOfTwo(_, min, _) => [1, 2, 4].map(|factor| plain((min * factor).to_string())),
        Slot::Ratio(_) => ["0.1", "0.2", "0.3"].map(|text| plain(text.into())),
        Slot::Duration(..) => ["1s", "2s", "3s"].map(quoted),
        Slot::Path(_) => ["/a", "/b", "/c"].map(quoted),
        Slot::Address(_) => ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].map(quoted),
        Slot::Choice(choice) => [choice.names()[0], choice.names()[1], choice.names()[0]].map(quoted),
        Slot::Endpoint(_) => ["http://a:1", "http://b:1", "http://c:1"].map(quoted),
        Slot::HeaderName(_) => ["x-a", "x-b", "x-c"].map(quoted),
        Slot::HeaderNames(_) => ["x-a", "x-b", "x-c"].map(|name| (name.into(), format!("[\"{name}\"]"))),
        Slot::Ports(_) => ["1", "2", "3"].map(|port| (port.into(), format!("[{port}]"))),
        Slot::Probes(_) => ["sqlx", "tasks", "results"].map(|name| (name.into(), format!("[\"{name}\"]"))),
        Slot::Modules(_) => ["/a=a", "/a=b", "/a=c"].map(quoted),
        Slot::Names(_) => ["stat", "loadavg", "meminfo"].map(|name| (name.into(), format!("[\"{name}\"]"))),
        Slot::Hosts(_) => ["a.example", "[::1]", "*"].map(|name| (name.into(), format!("[\"{name}\"]"))),
        Slot::Pattern(_) => ["a.*", "b+", "c"].map(quoted),
        Slot::Text(_) | Slot::Headers(_) | Slot::Attributes(_) => ["a=1", "a=2", "a=3"].map(quoted),
    }
}

/// The current value, also of what is not shown.
fn value(config: &mut Config, key: &Key) -> String {
    match (key.slot)(config) {
        Slot::Headers(pairs) | Slot::Attributes(pairs) => format!("{:?}", pairs.0),
        slot => slot.print().unwrap_or_default(),
    }
}

#[test]
fn for_every_key_the_environment_wins_over_the_file_and_the_flag_over_both() {
    for key in KEYS.iter() {
        let [file, variable, flag] = samples(key);
        let toml = format!("{} = {}", key.path, file.1);
        let alone: Vec<String> = [&file, &variable, &flag]
            .iter()
            .map(|sample| {
                let loaded = load(&format!("{} = {}", key.path, sample.1), &[], &[]);
                value(&mut loaded.unwrap_or_else(|problems| panic!("{problems:?}")).config, key)
            })
            .collect();
        assert!(alone[0] != alone[1] && alone[1] != alone[2], "{}: {alone:?}", key.path);

        let mut loaded = load(&toml, &[], &[]).unwrap();
        assert_eq!(value(&mut loaded.config, key), alone[0], "{}", key.path);
        // Times in the specification's variables are milliseconds.
        let otel = !key.otel.is_empty();
        let text = if otel && variable.0 == "2s" { "2000" } else { &variable.0 };
        for name in key.variables() {
            let mut loaded = load(&toml, &[(&name, text)], &[]).unwrap();
            assert_eq!(value(&mut loaded.config, key), alone[1], "{name}");
            let mut loaded = load(&toml, &[(&name, "")], &[]).unwrap();
            assert_eq!(value(&mut loaded.config, key), alone[0], "{name} empty");
            if !key.flag.is_empty() {
                let mut loaded = load(&toml, &[(&name, text)], &[(key.path, &flag.0)]).unwrap();
                assert_eq!(value(&mut loaded.config, key), alone[2], "--{}", key.flag);
            }
        }
    }
}

#[test]
fn a_variable_for_traces_wins_over_the_general_one() {
    for (key, specific, general) in KEYS.iter().filter_map(|key| match key.otel {
        [specific, general] => Some((key, specific, general)),
        _ => None,
    }) {
        let [first, second, _] = samples(key);
        let text = |sample: &(String, String)| sample.0.replace("1s", "1000").replace("2s", "2000");
        let (first, second) = (text(&first), text(&second));
        let mut both = load("", &[(specific, &first), (general, &second)], &[]).unwrap();
        let mut one = load("", &[(specific, &first)], &[]).unwrap();
        assert_eq!(value(&mut both.config, key), value(&mut one.config, key), "{specific}");
    }
}

#[test]
fn headers_of_a_variable_add_to_the_files_and_win() {
    let file = "[traces]\nheaders = { a = '1', b = '2' }";
    let loaded = load(file, &[("OTEL_EXPORTER_OTLP_HEADERS", "b=3,c=4%2C5")], &[]).unwrap();
    let headers = loaded.config.traces.headers;
    assert_eq!(["a", "b", "c"].map(|key| headers.get(key).unwrap()), ["1", "3", "4,5"]);
    assert_eq!(headers.0.len(), 3);
    // Other variables leave them alone.
    let loaded = load(file, &[("OTEL_TRACES_SAMPLER", "always_on"), ("RUSTOK_OBSD_LOG_LEVEL", "warn")], &[]).unwrap();
    assert_eq!(loaded.config.traces.headers.0.len(), 2);
}

#[test]
fn targets_of_the_flags_replace_those_of_the_environment_and_those_the_files() {
    let file = "[[targets]]\nexe = 'file'\nservice_name = 'x'";
    let loaded = load(file, &[], &[]).unwrap();
    assert_eq!(loaded.config.targets[0].exe, ["file"]);
    let loaded = load(file, &[("RUSTOK_OBSD_EXE", "a, b"), ("RUSTOK_OBSD_COMMAND_LINE", "x,y *")], &[]).unwrap();
    let targets = loaded.config.targets;
    assert_eq!(targets.iter().flat_map(|target| target.exe.clone()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(targets[2].command_line, ["x,y *"]);
    let sources = Sources {
        variables: HashMap::from([("RUSTOK_OBSD_EXE".to_owned(), "a".into())]),
        targets: TargetFlags { port: vec!["3000".into()], ..TargetFlags::default() },
        ..Sources::default()
    };
    let targets = sources.load().unwrap().config.targets;
    assert_eq!((targets.len(), targets[0].port.as_slice()), (1, [3000].as_slice()));
    for (bad, reason) in [("0", "allowed: a port"), ("x", "allowed: a whole number"), ("70000", "allowed: a port")] {
        let targets = TargetFlags { port: vec![bad.into()], ..TargetFlags::default() };
        let text = Sources { targets, ..Sources::default() }.load().unwrap_err().to_string();
        assert!(text.starts_with("command line: --port: ") && text.contains(reason), "{text}");
    }
}
