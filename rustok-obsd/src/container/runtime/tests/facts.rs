//! Labels, ids and times.

use std::time::{Duration, SystemTime};

use crate::container::runtime::facts::{Facts, Health, MOST_LABEL_BYTES, RuntimeKind, is_id, rfc3339, unix_nanos};

fn labelled(labels: &[(&str, &str)]) -> (Facts, usize) {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Facts::labelled(RuntimeKind::Docker, super::id('a'), labels)
}

#[test]
fn kubernetes_labels_name_pod_and_container() {
    let (facts, dropped) = labelled(&[
        ("zone", "b"),
        ("io.kubernetes.pod.uid", "1-2"),
        ("io.kubernetes.pod.name", "web-0"),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.container.name", "nginx"),
    ]);
    assert_eq!((facts.pod.as_str(), facts.namespace.as_str(), facts.pod_uid.as_str()), ("web-0", "shop", "1-2"));
    assert_eq!((facts.container.as_str(), facts.is_sandbox, dropped), ("nginx", false, 0));
    assert_eq!(facts.label("zone"), Some("b"));
    assert_eq!(facts.label("zon"), None);
    assert!(labelled(&[("io.kubernetes.container.name", "POD")]).0.is_sandbox);
    assert!(labelled(&[("io.kubernetes.docker.type", "podsandbox")]).0.is_sandbox);
}

#[test]
fn labels_are_bounded_and_the_pod_survives_the_bound() {
    let long = "x".repeat(MOST_LABEL_BYTES);
    let (facts, dropped) = labelled(&[("a", &long), ("b", "small"), ("io.kubernetes.pod.name", "web-0")]);
    assert_eq!(dropped, 1);
    assert_eq!(facts.labels.len(), 2);
    assert_eq!((facts.label("a"), facts.label("b"), facts.pod.as_str()), (None, Some("small"), "web-0"));
}

#[test]
fn ids_are_whole() {
    assert!(is_id(&super::id('0')));
    assert!(!is_id(&super::id('0')[1..]));
    assert!(!is_id(&super::id('A')));
    assert!(!is_id(&super::id('g')));
    assert!(!is_id(&"é".repeat(32)));
}

#[test]
fn times_of_every_runtime_are_read() {
    let at = |seconds, nanos| Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos));
    assert_eq!(rfc3339("2026-11-26T00:15:48.129239719Z"), at(1_795_652_148, 129_239_719));
    // Podman has the local zone.
    assert_eq!(rfc3339("2026-11-26T01:15:48.5+01:00"), at(1_795_652_148, 500_000_000));
    assert_eq!(rfc3339("0001-01-01T00:00:00Z"), None);
    for garbage in ["", "now", "2026-13-45T99:99:99Z", "9999999999-01-01T00:00:00Z", "\u{0}"] {
        assert_eq!(rfc3339(garbage), None, "{garbage:?}");
    }
    assert_eq!(unix_nanos(1_500_000_000), at(1, 500_000_000));
    assert_eq!((unix_nanos(0), unix_nanos(-1), unix_nanos(i64::MIN)), (None, None, None));
}

#[test]
fn only_the_three_verdicts_are_health() {
    assert_eq!(Health::parse("healthy"), Some(Health::Healthy));
    assert_eq!(Health::parse("unhealthy"), Some(Health::Unhealthy));
    assert_eq!(Health::parse("starting"), Some(Health::Starting));
    assert_eq!((Health::parse("none"), Health::parse("")), (None, None));
}
