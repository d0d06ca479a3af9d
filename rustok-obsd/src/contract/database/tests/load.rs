//! Caps, and scrapes beside a writer.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn beyond_the_caps_totals_stay_exact_and_the_loss_of_detail_is_counted() {
    let settings = Settings {
        operations: 10,
        statements: 20,
        requests: 10,
        services: 3,
        databases: 4,
        errors: 8,
        ..Settings::default()
    };
    let (mut recorder, metrics) = DatabaseRecorder::new(settings.clone());
    let (mut sent, mut requests, mut errors) = (0, 0, 0);
    for service in 0..6 {
        let key = TargetKey(service);
        recorder.register_target(key, &format!("service-{service}"), Behind::Trusted);
        for i in 0..100u16 {
            let server = SocketAddr::new(SERVER.ip(), i);
            let namespace: Arc<str> = format!("db{i}").into();
            let select = statement("SELECT", Some(&format!("table{i}")), i.into());
            let base = Operation {
                addresses: Some((APP, server)),
                namespace: Some(&namespace),
                parent: Parent::Request(u64::from(i)),
                ..operation(&select)
            };
            let code = *format!("{i:05}").as_bytes().first_chunk::<5>().unwrap();
            for ending in [Ending::Complete, Ending::Failed, Ending::Cancelled] {
                let sqlstate = (ending == Ending::Failed).then_some(code);
                recorder.observe(key, &Operation { ending, sqlstate, ..base }, None);
                sent += 1;
            }
            let pool = recorder.pool(key, Some(server), Some(&namespace)).unwrap();
            recorder.connection_opened(pool);
            let none = spent(None);
            let exchange = Exchange { id: i.into(), ..request(500 + i % 50, Some(&none)) };
            recorder.observe_request(key, &exchange, &route(&format!("/api/module{i}/x")));
            requests += 1;
            errors += 2;
        }
    }
    let parsed = scrape(&metrics);
    let (sent, requests, errors) = (f64::from(sent), f64::from(requests), f64::from(errors));
    for name in [
        "db_client_operation_duration_seconds_count",
        "rustok_database_query_duration_seconds_count",
        "rustok_obsd_statement_calls_total",
        "rustok_obsd_database_operations_total",
        "rustok_obsd_database_parents_total",
        "db_client_connection_wait_time_seconds_count",
    ] {
        assert_eq!(parsed.sum(name, &[]), sent, "{name}");
    }
    assert_eq!(parsed.sum("rustok_obsd_http_request_queries_count", &[]), requests);
    assert_eq!(parsed.sum("rustok_database_connections", &[]), requests);
    assert_eq!(parsed.sum("rustok_errors_total", &[]), errors);
    let lost = |family| parsed.sum("rustok_obsd_database_series_overflow_total", &[("family", family)]);
    let other = parsed.sum("db_client_operation_duration_seconds_count", &[("db_collection_name", "~other")]);
    assert!(other > 0.0 && lost("db_client_operation_duration_seconds") >= other);
    let other = parsed.sum("rustok_obsd_statement_calls_total", &[("fingerprint", "~other")]);
    assert_eq!(lost("rustok_obsd_statement_calls_total"), other);
    assert!(other > 0.0);
    let exact = parsed.find("rustok_obsd_statement_calls_total", &[("service_name", "service-0")]).count();
    assert_eq!(exact, 21, "twenty, and ~other");
    let other = parsed.sum("rustok_obsd_http_request_queries_count", &[("http_route", "~other")]);
    assert_eq!(lost("rustok_obsd_http_request_phase_seconds"), other);
    let other = parsed.sum("rustok_errors_total", &[("error_type", "~other")]);
    assert_eq!(lost("rustok_errors_total"), other);
    assert!(other > 0.0);
    let held = parsed.sum("rustok_obsd_database_series", &[("family", "db_client_operation_duration_seconds")]);
    assert!(held <= settings.operation_capacity() as f64, "{held}");
}

#[test]
fn statements_that_are_not_interned_share_their_series() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings { operations: 4, ..Settings::default() });
    recorder.register_target(A, "shop", Behind::Trusted);
    for _ in 0..20_000 {
        recorder.observe(A, &operation(&statement("SELECT", Some("nodes"), 1)), None);
    }
    let parsed = scrape(&metrics);
    assert_eq!(parsed.find("rustok_obsd_statement_calls_total", &[]).count(), 1);
    assert_eq!(parsed.sum("rustok_obsd_statement_calls_total", &[]), 20_000.0);
}

#[test]
fn errors_of_requests_that_never_end_are_not_lost() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
    recorder.register_target(A, "shop", Behind::Trusted);
    let select = statement("SELECT", Some("nodes"), 1);
    for id in 0..1000 {
        recorder.observe(A, &Operation { parent: Parent::Request(id), ..failed(&select, b"23505") }, None);
    }
    let told = scrape(&metrics).sum("rustok_errors_total", &[("module", "unknown")]);
    assert!((700.0..1000.0).contains(&told), "{told}");
}

#[test]
fn scrapes_during_recording_agree_with_themselves_and_never_fall() {
    const OPERATIONS: u64 = 200_000;
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut before: Vec<((String, _), f64)> = Vec::new();
            loop {
                let last = done.load(Ordering::Acquire);
                let parsed = scrape(&metrics);
                let total = parsed.sum("rustok_database_query_duration_seconds_count", &[]);
                assert_eq!(total, parsed.sum("db_client_operation_duration_seconds_count", &[]));
                let now: std::collections::HashMap<_, _> = parsed
                    .samples
                    .into_iter()
                    .filter(|sample| {
                        ["_total", "_bucket", "_count", "_sum"].iter().any(|end| sample.name.ends_with(end))
                    })
                    .filter(|sample| sample.name != "db_client_connection_count")
                    .map(|sample| ((sample.name, sample.labels), sample.value))
                    .collect();
                for (series, value) in before {
                    assert!(now.get(&series).is_some_and(|now| *now >= value), "{series:?} fell from {value}");
                }
                before = now.into_iter().collect();
                if last {
                    assert_eq!(total, OPERATIONS as f64);
                    break;
                }
            }
        });
        let statements: Vec<_> = (0..20).map(|i| statement("SELECT", Some(&format!("t{}", i % 7)), i)).collect();
        let routes: Vec<_> = (0..20).map(|i| route(&format!("/{i}/{{id}}"))).collect();
        for i in 0..OPERATIONS {
            if i % 1000 == 0 {
                recorder.retire_target(A);
                recorder.register_target(A, if i % 3000 == 0 { "shop" } else { "blog" }, Behind::Trusted);
            }
            let trace = (i % 3 == 0).then_some(Exemplar { trace_id: [1; 16], span_id: [1; 8] });
            let base = operation(&statements[(i % 20) as usize]);
            let end_ns = base.start_ns + i * 997 % 20_000_000_000;
            recorder.observe(A, &Operation { end_ns, ..base }, trace);
            recorder.observe_request(A, &request(200, Some(&spent(None))), &routes[(i % 20) as usize]);
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn one_service_cannot_take_the_series_of_another() {
    let settings = Settings { operations: 20, requests: 20, databases: 10, statements: 10, ..Settings::default() };
    let (mut recorder, metrics) = DatabaseRecorder::new(settings);
    let (hog, good) = (TargetKey(1), TargetKey(2));
    recorder.register_target(hog, "hog", Behind::Trusted);
    recorder.register_target(good, "good", Behind::Trusted);
    for i in 0..500u16 {
        let select = statement("SELECT", Some(&format!("table{i}")), i.into());
        let server = SocketAddr::new(SERVER.ip(), i);
        recorder.observe(hog, &Operation { addresses: Some((APP, server)), ..operation(&select) }, None);
        recorder.observe_request(hog, &request(200, None), &route(&format!("/{i}")));
    }
    let select = statement("SELECT", Some("orders"), 7000);
    for _ in 0..3 {
        recorder.observe(good, &operation(&select), None);
        recorder.observe_request(good, &request(200, None), &route("/orders"));
    }
    let parsed = scrape(&metrics);
    let own = |name, labels: &[(&str, &str)]| parsed.sum(name, &[&[("service_name", "good")], labels].concat());
    assert_eq!(own("db_client_operation_duration_seconds_count", &[("db_collection_name", "orders")]), 3.0);
    assert_eq!(own("rustok_obsd_statement_calls_total", &[("fingerprint", "0000000000001b58")]), 3.0);
    assert_eq!(own("rustok_obsd_http_request_queries_count", &[]), 0.0);
    let handled =
        own("rustok_obsd_http_request_phase_seconds_count", &[("http_route", "/orders"), ("phase", "handler")]);
    assert_eq!(handled, 3.0);
    let hogs = parsed.find("db_client_operation_duration_seconds_count", &[("service_name", "hog")]).count();
    assert!(hogs < 40, "{hogs}");
    assert!(recorder.meters().map(|meter| meter.refused()).sum::<u64>() > 500);
}

#[test]
fn series_that_stand_still_give_way_where_room_is_wanted_and_the_rest_goes_on() {
    let settings = Settings { operations: 20, statements: 10, requests: 20, databases: 5, ..Settings::default() };
    let (mut recorder, metrics) = DatabaseRecorder::new(settings);
    recorder.register_target(A, "shop", Behind::Trusted);
    let namespace: Arc<str> = "orders".into();
    let kept = statement("SELECT", Some("kept"), 9000);
    let observe = |recorder: &mut DatabaseRecorder| {
        let failed = Operation { namespace: Some(&namespace), ..failed(&kept, b"23505") };
        recorder.observe(A, &Operation { parent: Parent::Background, ..failed }, None);
        recorder.observe_request(A, &request(500, None), &route("/api/shop/x"));
    };
    observe(&mut recorder);
    let pool = recorder.pool(A, Some(SERVER), Some(&namespace)).unwrap();
    recorder.connection_opened(pool);
    for i in 0..200u16 {
        let select = statement("SELECT", Some(&format!("t{i}")), i.into());
        let server = SocketAddr::new(SERVER.ip(), 1000 + i);
        recorder.observe(A, &Operation { addresses: Some((APP, server)), ..operation(&select) }, None);
        recorder.observe_request(A, &request(200, None), &route(&format!("/api/m{i}/x")));
    }
    let before = scrape(&metrics);
    for _ in 0..3 {
        observe(&mut recorder);
        recorder.look();
    }
    let after = scrape(&metrics);
    let calls = |parsed: &Parsed, labels: &[(&str, &str)]| parsed.sum("rustok_obsd_statement_calls_total", labels);
    let of_kept = [("fingerprint", "0000000000002328")];
    assert_eq!((calls(&before, &of_kept), calls(&after, &of_kept)), (1.0, 4.0));
    assert_eq!(calls(&after, &[("fingerprint", "~other")]), calls(&before, &[("fingerprint", "~other")]));
    assert_eq!(after.find("rustok_obsd_statement_calls_total", &[]).count(), 2, "the one in use, and ~other");
    let labels = [("db_collection_name", "kept"), ("db_namespace", "orders"), ("db_response_status_code", "23505")];
    assert_eq!(after.sum("db_client_operation_duration_seconds_count", &labels), 4.0);
    assert_eq!(after.sum("rustok_database_query_errors_total", &[]), 4.0);
    let phases = [("http_route", "/api/shop/x"), ("phase", "handler")];
    assert_eq!(after.sum("rustok_obsd_http_request_phase_seconds_count", &phases), 4.0);
    let mishaps =
        |parsed: &Parsed| parsed.sum("rustok_errors_total", &[("module", "shop"), ("error_type", "http_500")]);
    assert_eq!((mishaps(&before), mishaps(&after)), (1.0, 4.0));
    assert_eq!(after.sum("rustok_database_connections", &[]), 1.0);
    recorder.connection_closed(pool, ConnectionState::Idle);
    assert_eq!(scrape(&metrics).sum("rustok_database_connections", &[]), 0.0);
    // There is room for new ones.
    let fresh = statement("SELECT", Some("fresh"), 9001);
    recorder.observe(A, &operation(&fresh), None);
    observe(&mut recorder);
    let parsed = scrape(&metrics);
    assert_eq!(parsed.sum("db_client_operation_duration_seconds_count", &[("db_collection_name", "fresh")]), 1.0);
    assert_eq!(mishaps(&parsed), 5.0);
    assert!(recorder.meters().map(|meter| meter.evicted()).sum::<u64>() > 30);
}

#[test]
fn services_of_a_stranger_leave_room_for_others_and_those_that_ended_give_it_back() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
    let select = statement("SELECT", Some("orders"), 7000);
    let pass_by = |recorder: &mut DatabaseRecorder, behind, keys: std::ops::Range<u32>| {
        for key in keys.map(TargetKey) {
            recorder.register_target(key, &format!("gone-{}", key.0), behind);
            recorder.observe(key, &operation(&select), None);
            recorder.observe_request(key, &request(200, None), &route("/orders"));
            recorder.retire_target(key);
        }
    };
    let calls = |name: &str| {
        let parsed = scrape(&metrics);
        parsed.find("rustok_obsd_statement_calls_total", &[("service_name", name)]).next().map(|sample| sample.value)
    };
    pass_by(&mut recorder, Behind::Stranger(1000), 100..400);
    assert_eq!(calls("~other"), Some(300.0 - 48.0));
    recorder.register_target(A, "good", Behind::Stranger(1001));
    recorder.observe(A, &operation(&select), None);
    pass_by(&mut recorder, Behind::Trusted, 500..700);
    recorder.register_target(B, "late", Behind::Trusted);
    recorder.observe(B, &operation(&select), None);
    let pool = recorder.pool(B, Some(SERVER), None).unwrap();
    recorder.connection_opened(pool);
    assert_eq!((calls("good"), calls("gone-500"), calls("late")), (Some(1.0), Some(1.0), None));
    let start = std::time::Instant::now();
    recorder.age(start);
    assert_eq!(calls("gone-500"), Some(1.0), "those that ended are scraped still");
    recorder.age(start + std::time::Duration::from_secs(700));
    recorder.observe(A, &operation(&select), None);
    recorder.observe(B, &operation(&select), None);
    assert_eq!((calls("good"), calls("gone-500"), calls("late")), (Some(2.0), None, Some(1.0)));
    // The connection that was among the others is counted where its target is now.
    let idle = |name| scrape(&metrics).sum("db_client_connection_count", &[("service_name", name)]);
    assert_eq!((idle("late"), idle("~other")), (1.0, 0.0));
    recorder.connection_closed(pool, ConnectionState::Idle);
    assert_eq!((idle("late"), idle("~other")), (0.0, 0.0));
}

#[test]
fn errors_and_modules_of_one_service_leave_room_for_others_and_those_of_long_ago_go() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings { errors: 20, ..Settings::default() });
    let (hog, good) = (TargetKey(1), TargetKey(2));
    recorder.register_target(hog, "hog", Behind::Trusted);
    recorder.register_target(good, "good", Behind::Trusted);
    let fail = |recorder: &mut DatabaseRecorder, key, module: &str| {
        recorder.observe_request(key, &request(500, None), &route(&format!("/api/{module}/x")));
    };
    let errors = |module: &str| {
        let parsed = scrape(&metrics);
        let found =
            parsed.find("rustok_errors_total", &[("module", module)]).map(|sample| sample.value).collect::<Vec<_>>();
        assert!(found.len() <= 1, "{module}: {found:?}");
        found.first().copied()
    };
    (0..100).for_each(|number| fail(&mut recorder, hog, &format!("hog{number}")));
    assert_eq!((errors("hog19"), errors("hog20")), (Some(1.0), None));
    fail(&mut recorder, good, "orders");
    assert_eq!((errors("orders"), errors("~other")), (Some(1.0), Some(80.0)));
    // The other one asks again and again, and finds room once nothing was heard of the first ones for long.
    for _ in 0..3 {
        fail(&mut recorder, good, "orders");
        fail(&mut recorder, hog, "hog0");
        recorder.look();
    }
    assert_eq!((errors("orders"), errors("hog0"), errors("hog1")), (Some(4.0), Some(4.0), None));
    (200..215).for_each(|number| fail(&mut recorder, hog, &format!("hog{number}")));
    assert_eq!((errors("hog214"), errors("~other")), (Some(1.0), Some(80.0)));
    let total = scrape(&metrics).sum("rustok_errors_total", &[]);
    assert_eq!(total, 4.0 + 4.0 + 15.0 + 80.0, "but for those that went");
    (300..400).for_each(|number| fail(&mut recorder, hog, &format!("hog{number}")));
    assert!(errors("~other") > Some(80.0), "the same series as before");
}

#[test]
fn statements_and_pools_of_many_services_of_one_user_leave_room_for_others() {
    let settings = Settings { statements: 20, databases: 8, ..Settings::default() };
    let (mut recorder, metrics) = DatabaseRecorder::new(settings);
    for service in 0..100 {
        let key = TargetKey(1000 + service);
        recorder.register_target(key, &format!("hog{service}"), Behind::Stranger(1000));
        for number in 0..50u16 {
            let select = statement("SELECT", Some("t"), u64::from(service) * 1000 + u64::from(number));
            let server = SocketAddr::new(SERVER.ip(), number % 4);
            recorder.observe(key, &Operation { addresses: Some((APP, server)), ..operation(&select) }, None);
        }
    }
    recorder.register_target(A, "good", Behind::Trusted);
    let select = statement("SELECT", Some("orders"), 7_000_000);
    recorder.observe(A, &operation(&select), None);
    let pool = recorder.pool(A, Some(SERVER), None).unwrap();
    recorder.connection_opened(pool);
    let parsed = scrape(&metrics);
    let good = [("service_name", "good")];
    assert_eq!(parsed.sum("rustok_obsd_statement_calls_total", &[good[0], ("fingerprint", "00000000006acfc0")]), 1.0);
    let pools: Vec<_> = parsed.find("db_client_connection_count", &good).collect();
    assert!(pools.iter().all(|pool| pool.labels["db_client_connection_pool_name"] == "127.0.0.1:5432"), "{pools:?}");
    let held = parsed.find("rustok_obsd_statement_calls_total", &[]).count();
    // One of `~other` for each service; and the service `~other` is nobody's.
    assert!(held <= 49 + 16 * 20 * 3 / 4 + 20 + 1, "{held}");
    assert_eq!(parsed.sum("rustok_obsd_statement_calls_total", &[]), 5001.0, "totals stay exact");
}
