//! Caps, and scrapes beside a writer.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn routes_that_are_not_interned_share_their_series() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits { server_series: 4, ..Limits::default() });
    recorder.register_target(A, labels("shop", ""));
    for _ in 0..100_000 {
        recorder.observe(A, &server(Method::Get, 200, 1), &route("/x", Source::Learned), None);
    }
    let parsed = scrape(&metrics);
    assert_eq!(parsed.sum("rustok_http_requests_total", &[("path", "/x")]), 100_000.0);
    assert_eq!(parsed.sum("rustok_obsd_routes", &[("source", "learned")]), 1.0);
}

#[test]
fn beyond_the_caps_totals_stay_exact_and_the_loss_of_detail_is_counted() {
    let limits = Limits { server_series: 10, client_series: 10, services: 3, peers: 5 };
    let (mut recorder, metrics) = HttpRecorder::new(limits);
    let mut sent = 0;
    for service in 0..6 {
        recorder.register_target(TargetKey(service), labels(&format!("service-{service}"), ""));
        for i in 0..200u16 {
            let host = format!("host-{i}.example");
            let template = route(&format!("/{i}"), Source::Learned);
            for status in [200, 300 + i] {
                recorder.observe(TargetKey(service), &server(Method::Get, status, 1), &template, None);
                let client = exchange(Side::Client, Method::Get, status, Outcome::Complete, 1);
                recorder.observe(TargetKey(service), &Exchange { host: host.as_bytes(), ..client }, &template, None);
                sent += 1;
            }
        }
    }
    let parsed = scrape(&metrics);
    let sent = f64::from(sent);
    assert_eq!(parsed.sum("rustok_http_requests_total", &[]), sent);
    assert_eq!(parsed.sum("http_server_request_duration_seconds_count", &[]), sent);
    assert_eq!(parsed.sum("http_client_request_duration_seconds_count", &[]), sent);
    assert_eq!(parsed.sum("rustok_obsd_exchanges_total", &[("side", "server")]), sent);
    let exact = |service: &str| {
        let labels = [("service_name", service)];
        let of = parsed.find("http_server_request_duration_seconds_count", &labels);
        of.filter(|sample| sample.labels["http_route"] != "~other").count()
    };
    assert_eq!(
        [exact("service-0"), exact("service-1"), exact("service-2")],
        [10, 5, 2],
        "each has what is free: who comes later is not blind"
    );
    let other = parsed.sum("rustok_http_requests_total", &[("path", "~other")]);
    assert!(other > 0.0);
    assert_eq!(parsed.sum("rustok_obsd_routes_overflow_total", &[]), other);
    let server_family = [("family", "http_server_request_duration_seconds")];
    assert_eq!(parsed.sum("rustok_obsd_series_overflow_total", &server_family), other);
    let series = parsed.sum("rustok_obsd_series", &server_family);
    assert!(series <= limits.server_capacity() as f64, "{series}");
    assert_eq!(parsed.find("rustok_obsd_routes_overflow_total", &[]).count(), 4, "three services and ~other");
    assert!(
        parsed.sum("rustok_http_requests_total", &[("method", "_OTHER"), ("status", "000")]) > 0.0,
        "the last resort was reached"
    );
}

#[test]
fn scrapes_during_recording_agree_with_themselves_and_never_fall() {
    const EXCHANGES: u64 = 300_000;
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut before: Vec<((String, _), f64)> = Vec::new();
                loop {
                    let last = done.load(Ordering::Acquire);
                    let parsed = scrape(&metrics);
                    let total = parsed.sum("rustok_http_requests_total", &[]);
                    assert_eq!(total, parsed.sum("rustok_http_request_duration_seconds_count", &[]));
                    assert_eq!(total, parsed.sum("http_server_request_duration_seconds_count", &[]));
                    assert_eq!(total, parsed.sum("rustok_obsd_exchanges_total", &[]));
                    let now: std::collections::HashMap<_, _> = parsed
                        .samples
                        .into_iter()
                        .filter(|sample| {
                            ["_total", "_bucket", "_count", "_sum"].iter().any(|end| sample.name.ends_with(end))
                        })
                        .map(|sample| ((sample.name, sample.labels), sample.value))
                        .collect();
                    for (series, value) in before {
                        assert!(now.get(&series).is_some_and(|now| *now >= value), "{series:?} fell from {value}");
                    }
                    before = now.into_iter().collect();
                    if last {
                        assert_eq!(total, EXCHANGES as f64);
                        break;
                    }
                }
            });
        }
        let routes: Vec<_> = (0..20).map(|i| route(&format!("/{i}/{{id}}"), Source::Axum)).collect();
        for i in 0..EXCHANGES {
            if i % 1000 == 0 {
                recorder.retire_target(A);
                recorder.register_target(A, labels(if i % 3000 == 0 { "shop" } else { "blog" }, ""));
            }
            let trace = (i % 3 == 0).then_some(Exemplar { trace_id: [1; 16], span_id: [1; 8] });
            let exchange = server(Method::Get, if i % 7 == 0 { 500 } else { 200 }, i * 997 % 20_000_000_000);
            recorder.observe(A, &exchange, &routes[(i % 20) as usize], trace);
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn series_that_stand_still_give_way_where_room_is_wanted_and_begin_at_0_again() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits { server_series: 20, ..Limits::default() });
    recorder.register_target(A, labels("shop", ""));
    let observe = |recorder: &mut HttpRecorder, template: &str| {
        recorder.observe(A, &server(Method::Get, 200, 1), &route(template, Source::Learned), None);
    };
    recorder.request_started(A, Method::Get);
    (0..100).for_each(|number| observe(&mut recorder, &format!("/{number}")));
    for _ in 0..3 {
        // This one goes on being asked for.
        observe(&mut recorder, "/0");
        recorder.look();
    }
    let of =
        |path: &str| scrape(&metrics).find("rustok_http_requests_total", &[("path", path)]).next().map(|s| s.value);
    assert_eq!((of("/0"), of("/1"), of("/19"), of("~other")), (Some(4.0), None, None, Some(80.0)));
    let held = scrape(&metrics).sum("rustok_obsd_series", &[("family", "http_server_request_duration_seconds")]);
    assert_eq!((held, recorder.meters().map(|meter| meter.evicted()).sum::<u64>()), (2.0, 19));
    observe(&mut recorder, "/1");
    observe(&mut recorder, "/99");
    assert_eq!((of("/1"), of("/99"), of("~other")), (Some(1.0), Some(1.0), Some(80.0)));
    // Nobody wants room: what stands still stays.
    (0..5).for_each(|_| recorder.look());
    assert_eq!((of("/0"), of("/1"), of("/99")), (Some(4.0), Some(1.0), Some(1.0)));
    assert_eq!(scrape(&metrics).sum("http_server_active_requests", &[]), 1.0);
    recorder.request_ended(A, Method::Get);
    assert_eq!(scrape(&metrics).sum("http_server_active_requests", &[]), 0.0);
}

#[test]
fn a_route_that_is_too_long_for_a_label_is_other() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    recorder.register_target(A, labels(&"n".repeat(5000), ""));
    let long = route(&format!("/{}", "a".repeat(5000)), Source::Axum);
    recorder.observe(A, &server(Method::Get, 200, 1), &long, None);
    assert_eq!(scrape(&metrics).sum("rustok_http_requests_total", &[("path", "~other")]), 1.0);
    assert!(to_text(&*metrics, Format::Text).lines().all(|line| line.len() < 2000));
}

fn of(name: &str, behind: Behind) -> TargetLabels {
    TargetLabels { behind, ..labels(name, "") }
}

/// So many targets of a user, each of another service, ask once and end; their names.
fn pass_by(recorder: &mut HttpRecorder, behind: Behind, first: u32, count: u32) {
    for key in (first..first + count).map(TargetKey) {
        recorder.register_target(key, of(&format!("gone-{}", key.0), behind));
        recorder.observe(key, &server(Method::Get, 200, 1), &route("/x", Source::Axum), None);
        recorder.retire_target(key);
    }
}

#[test]
fn services_of_a_stranger_leave_room_for_others_and_those_that_ended_give_it_back() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    let requests = |name: &str| {
        let parsed = scrape(&metrics);
        parsed.find("http_server_request_duration_seconds_count", &[("service_name", name)]).next().map(|s| s.value)
    };
    let ask = |recorder: &mut HttpRecorder, key| {
        recorder.observe(key, &server(Method::Get, 200, 1), &route("/x", Source::Axum), None);
    };
    pass_by(&mut recorder, Behind::Stranger(1000), 100, 300);
    assert_eq!(requests("~other"), Some(300.0 - 48.0));
    // Another user finds room, and who is trusted as well, though there are only as many as places.
    recorder.register_target(A, of("good", Behind::Stranger(1001)));
    ask(&mut recorder, A);
    pass_by(&mut recorder, Behind::Trusted, 500, 200);
    recorder.register_target(B, of("late", Behind::Trusted));
    recorder.request_started(B, Method::Get);
    ask(&mut recorder, B);
    assert_eq!((requests("good"), requests("gone-500"), requests("late")), (Some(1.0), Some(1.0), None));
    let start = std::time::Instant::now();
    recorder.age(start);
    assert_eq!(requests("late"), None, "those that ended are scraped still");
    recorder.age(start + std::time::Duration::from_secs(700));
    ask(&mut recorder, A);
    ask(&mut recorder, B);
    assert_eq!((requests("good"), requests("gone-500"), requests("late")), (Some(2.0), None, Some(1.0)));
    assert!(recorder.meters().map(|meter| meter.evicted()).sum::<u64>() > 100);
    // The request that began among the others ends where its target is now.
    let active = |name| scrape(&metrics).sum("http_server_active_requests", &[("service_name", name)]);
    assert_eq!((active("late"), active("~other")), (1.0, 0.0));
    recorder.request_ended(B, Method::Get);
    assert_eq!((active("late"), active("~other")), (0.0, 0.0));
    // All others have their places still: a service that lives is never given up.
    recorder.age(start + std::time::Duration::from_secs(7000));
    assert_eq!(requests("good"), Some(2.0));
}

#[test]
fn renewals_again_and_again_hold_no_more_than_the_lists_have_room_for() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits { server_series: 50, ..Limits::default() });
    let mut sent = 0;
    let keys: Vec<_> = (0..9).map(TargetKey).collect();
    keys.iter().for_each(|key| recorder.register_target(*key, labels(&format!("service-{}", key.0), "")));
    for round in 0..10 {
        for key in &keys {
            for number in 0..60 {
                // All but one come again.
                let path = if number > 0 { format!("/{number}") } else { format!("/{round}-{number}") };
                recorder.observe(*key, &server(Method::Get, 200, 1), &route(&path, Source::Axum), None);
                sent += 1;
            }
        }
        recorder.look();
        let held = recorder.server.len();
        assert_eq!(recorder.lists.server.len(), held, "each series is shown");
        let room = recorder.room.used() / super::super::series::ServerSeries::SIZE;
        let own = recorder.server.values().filter(|kept| !kept.series.overflow).count();
        assert_eq!(room, own, "and charged");
    }
    assert!(recorder.room.meter().evicted() > 0, "there were renewals");
    assert!(scrape(&metrics).sum("rustok_http_requests_total", &[]) < f64::from(sent));
}
