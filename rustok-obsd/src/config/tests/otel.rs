//! The variables of the OpenTelemetry specification.

use super::*;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[test]
fn bad_numbers_and_names_of_the_specification_warn_and_are_ignored() {
    for (name, bad) in [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "half"),
        ("OTEL_TRACES_SAMPLER_ARG", "-0.1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
    ] {
        let loaded = load("", &[(name, bad)], &[]).unwrap();
        assert_eq!(loaded.config, Config::default(), "{name}={bad}");
        let warning = loaded.warnings.iter().find(|warning| warning.contains(name));
        assert!(warning.is_some_and(|text| text.contains("ignored")), "{name}={bad}: {:?}", loaded.warnings);
    }
}

#[test]
fn a_bad_endpoint_or_header_of_the_specification_is_an_error_without_secrets() {
    for (name, bad) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "not a url"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret%0a"),
        ("RUSTOK_OBSD_LOG_LEVEL", "INFO"),
    ] {
        let problems = load("", &[(name, bad)], &[]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with(&format!("environment: {name}: ")), "{problems:?}");
        assert!(!problems[0].contains("s3cret"), "{problems:?}");
    }
    let variables = HashMap::from([("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), OsStr::from_bytes(b"\xff").to_owned())]);
    let text = Sources { variables, ..Sources::default() }.load().unwrap_err().to_string();
    assert_eq!(text, "environment: OTEL_EXPORTER_OTLP_ENDPOINT: is not UTF-8");
}

#[test]
fn the_specifications_variables_mean_what_it_says() {
    let traces = |variables: &[(&str, &str)]| load("", variables, &[]).unwrap().config.traces;
    let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let exact = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    for (variables, enabled, protocol, url) in [
        (vec![], false, "http/protobuf", "http://localhost:4318/v1/traces"),
        (vec![(base, "http://c:4318")], true, "http/protobuf", "http://c:4318/v1/traces"),
        (vec![(base, "http://c:4318/")], true, "http/protobuf", "http://c:4318/v1/traces"),
        (vec![(base, "http://c/otlp")], true, "http/protobuf", "http://c/otlp/v1/traces"),
        (vec![(base, "http://c:4317")], true, "grpc", "http://c:4317"),
        (
            vec![(base, "http://c:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
            true,
            "http/protobuf",
            "http://c:4317/v1/traces",
        ),
        (vec![(exact, "http://c:4318/x")], true, "http/protobuf", "http://c:4318/x"),
        (vec![(exact, "http://c:4318"), (base, "http://d:4317")], true, "http/protobuf", "http://c:4318"),
        (vec![(base, "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "True")], true, "grpc", "http://c:4317"),
        (vec![(base, "http://c:4317"), ("OTEL_TRACES_EXPORTER", "none")], false, "grpc", "http://c:4317"),
        (vec![(base, "http://c:4317"), ("OTEL_SDK_DISABLED", "true")], false, "grpc", "http://c:4317"),
        (vec![("OTEL_TRACES_EXPORTER", "console,otlp")], true, "http/protobuf", "http://localhost:4318/v1/traces"),
        (
            vec![("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            true,
            "grpc",
            "http://localhost:4317",
        ),
    ] {
        let traces = traces(&variables);
        let found = (traces.enabled(), traces.resolved_protocol().name(), traces.url());
        assert_eq!(found, (enabled, protocol, url.to_owned()), "{variables:?}");
    }
    let problems = load("", &[(base, "c:4317")], &[]).unwrap_err();
    assert!(problems[0].contains("traces.insecure"), "{problems:?}");
    let sampled = traces(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")]);
    assert_eq!((sampled.sampler, sampled.sampler_arg), (Sampler::TraceIdRatio, 0.25));
    assert_eq!(traces(&[("OTEL_BSP_SCHEDULE_DELAY", "250")]).schedule_delay, Duration::from_millis(250));
    let small = load("", &[("OTEL_BSP_MAX_QUEUE_SIZE", "100")], &[]).unwrap();
    assert_eq!((small.config.traces.batch_size, small.warnings[0].contains("100")), (100, true));
}
