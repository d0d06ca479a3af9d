use super::{Counts, OVERFLOW, Patterns, Route, RouteNamer, Source, UNMATCHED};
use crate::exchange::{Exchange, Method, Outcome, Side};

fn exchange(path: &[u8], status: u16) -> Exchange<'_> {
    Exchange {
        side: Side::Server,
        task: 0,
        tid: 0,
        start_ns: 0,
        first_io_ns: 0,
        request_end_ns: 0,
        response_start_ns: 0,
        end_ns: 0,
        method: Method::Get,
        path,
        host: b"",
        version: 1,
        status,
        outcome: Outcome::Complete,
        request_bytes: 0,
        response_bytes: 0,
        request_body: 0,
        response_body: 0,
        traceparent: None,
        route: None,
        awaited: None,
        routes_exact: false,
        told: false,
        id: 1,
        spent: None,
        ids: crate::trace::Decision::Undecided,
        tenant: b"",
        headers: crate::exchange::Headers::default(),
    }
}

fn namer(patterns: &[&str], cap: usize) -> RouteNamer {
    RouteNamer::new(Patterns::new(patterns).expect("valid"), cap)
}

fn name(namer: &mut RouteNamer, path: &str) -> String {
    namer.name(&exchange(path.as_bytes(), 200)).template.to_string()
}

#[test]
fn axum_comes_first_and_its_silence_is_an_answer() {
    let mut namer = namer(&["/a/{id}"], 10);
    let route = Route { template: "/a/{slug}".into(), source: Source::Axum };
    let told = Exchange { route: Some(&route), routes_exact: true, ..exchange(b"/a/1", 200) };
    assert_eq!(namer.name(&told), route);
    let silent = Exchange { routes_exact: true, ..exchange(b"/a/1", 200) };
    assert_eq!(namer.name(&silent), Route { template: UNMATCHED.into(), source: Source::Unmatched });
    assert_eq!(namer.name(&exchange(b"/a/1", 404)).template.as_ref(), "/a/{id}");
    assert_eq!(namer.counts(), Counts { axum: 1, pattern: 1, unmatched_requests: 1, ..Counts::default() });
}

#[test]
fn patterns_match_by_axums_rules_in_either_spelling() {
    let all = ["/users/{id}", "/users/me", "/files/*", "/old/:id/sub", "/tail/{*path}", "/any/*/end", "/v{version}/x"];
    let mut namer = namer(&all, 100);
    for (path, template) in [
        ("/users/7", "/users/{id}"),
        ("/users/me", "/users/me"),
        ("/files/a/b/c", "/files/{*rest}"),
        ("/old/x/sub", "/old/{id}/sub"),
        ("/tail/a/b", "/tail/{*path}"),
        ("/any/x/end", "/any/{any2}/end"),
        ("/v2/x", "/v{version}/x"),
    ] {
        let route = namer.name(&exchange(path.as_bytes(), 200));
        assert_eq!((&*route.template, route.source), (template, Source::Pattern), "{path}");
    }
    assert_eq!(namer.name(&exchange(b"/users/\xff", 200)).source, Source::Learned, "patterns are UTF-8");
}

#[test]
fn bad_patterns_are_named_with_reason_and_remedy() {
    for (patterns, wrong, reason) in [
        (vec!["users/{id}"], "users/{id}", "has to begin with `/`"),
        (vec!["/a?b"], "/a?b", "leave out the query"),
        (vec!["/a b"], "/a b", "white space"),
        (vec!["/{}"], "/{}", "a parameter is `{name}`"),
        (vec!["/{a}{b}"], "/{a}{b}", "one parameter"),
        (vec!["/{*rest}/b"], "/{*rest}/b", "put them last"),
        (vec!["/a/{id}", "/a/:name"], "/a/:name", "matches the same paths as `/a/{id}`"),
    ] {
        let error = Patterns::new(&patterns).expect_err(wrong);
        assert_eq!(error.pattern, wrong);
        assert!(error.to_string().starts_with(&format!("route pattern `{wrong}`: ")), "{error}");
        assert!(error.reason.contains(reason), "{error}");
    }
}

#[test]
fn values_are_named_by_their_kind_and_unknown_words_are_parameters() {
    let mut namer = namer(&[], 1000);
    for (path, template) in [
        ("/", "/"),
        ("//", "/"),
        ("/api/content/nodes/42", "/api/content/nodes/{id}"),
        ("/api/content/nodes/43/", "/api/content/nodes/{id}"),
        ("/api//content/nodes/44", "/api/content/nodes/{id}"),
        ("/api/users/550e8400-e29b-41d4-a716-446655440000/roles", "/api/users/{uuid}/roles"),
        ("/en/shop", "/{locale}/shop"),
        ("/ru/shop", "/{locale}/shop"),
        ("/de-AT/shop", "/{locale}/shop"),
        ("/api/v1/en", "/api/v1/{param}"),
        ("/verify/a@b.example", "/verify/{email}"),
        ("/assets/app-3f2a9c1b.js", "/assets/{file}"),
        ("/assets/alice.json", "/assets/{file}"),
        ("/blog/why-we-rewrote-it", "/blog/{slug}"),
        ("/blog/new-order", "/blog/{param}"),
        ("/blog/%D1%82%D0%B5%D1%81%D1%82", "/blog/{param}"),
        ("/reports/2026-11-23", "/reports/{date}"),
        ("/api/graphql/schema.graphql", "/api/graphql/schema.graphql"),
        ("/robots.txt", "/robots.txt"),
        ("/auth/change-password", "/auth/change-password"),
        ("/users/alice", "/users/{param}"),
        ("/users/search", "/users/search"),
        ("/users/alice/orders/7", "/users/{param}/orders/{id}"),
        ("/alice", "/{param}"),
        ("/reset/qwhdkxmvnbpqrtzs", "/reset/{param}"),
        ("/Users/x/GraphQL", "/{param}/{param}/{param}"),
        ("/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o", &format!("{}/{{*rest}}", "/{param}".repeat(12))),
    ] {
        assert_eq!(name(&mut namer, path), template, "{path}");
        assert_eq!(name(&mut namer, path), template, "{path} again");
    }
    let long = format!("/{}", "x".repeat(16_000));
    assert_eq!(name(&mut namer, &long), "/{param}");
    assert_eq!(&*namer.name(&exchange(b"/\xf0\x28/x", 200)).template, "/{param}/{param}");
}

#[test]
fn an_answer_that_refuses_makes_no_route() {
    let mut namer = namer(&[], 1000);
    for status in [404, 405, 400, 401, 403, 422, 429, 499, 0, 501] {
        assert_eq!(&*namer.name(&exchange(b"/admin", status)).template, UNMATCHED);
    }
    assert_eq!(name(&mut namer, "/orders/7"), "/orders/{id}");
    for status in [404, 401, 500] {
        assert_eq!(&*namer.name(&exchange(b"/orders/8", status)).template, "/orders/{id}", "a known one is named");
    }
    assert_eq!(&*namer.name(&exchange(b"/carts", 500)).template, "/carts", "a route that fails is one");
    for path in [&b""[..], b"*"] {
        assert_eq!(&*namer.name(&exchange(path, 200)).template, UNMATCHED);
    }
    assert_eq!(namer.counts().unmatched_requests, 12);
}

#[test]
fn an_answer_that_refuses_or_fails_teaches_no_word() {
    for (status, template) in [
        (200, "/frobs/{id}"),
        (304, "/frobs/{id}"),
        (401, "/{param}/{id}"),
        (403, "/{param}/{id}"),
        (404, "/{param}/{id}"),
        (302, "/{param}/{id}"),
        (500, "/{param}/{id}"),
    ] {
        let mut namer = namer(&[], 1000);
        assert_eq!(name(&mut namer, "/frobs/1"), "/{param}/{id}");
        for id in 0..500 {
            namer.name(&exchange(format!("/frobs/{id}").as_bytes(), status));
        }
        assert_eq!(&*namer.name(&exchange(b"/frobs/1", status)).template, template, "{status}");
    }
}

#[test]
fn the_cap_holds_for_every_source_and_routes_in_use_stay() {
    let mut namer = namer(&["/p/{id}"], 3);
    let axum: Vec<_> = (0..3).map(|i| Route { template: format!("/x{i}").into(), source: Source::Axum }).collect();
    assert_eq!(name(&mut namer, "/first"), "/{param}");
    assert_eq!(name(&mut namer, "/p/1"), "/p/{id}");
    let told = |i: usize| Exchange { route: Some(&axum[i]), ..exchange(b"/", 200) };
    assert_eq!(&*namer.name(&told(0)).template, "/x0");
    for _ in 0..2 {
        assert_eq!(name(&mut namer, "/orders"), OVERFLOW);
    }
    assert_eq!(name(&mut namer, "/first"), "/{param}");
    // An exact one takes the place of a learned one.
    assert_eq!(&*namer.name(&told(1)).template, "/x1");
    assert_eq!(&*namer.name(&told(2)).template, OVERFLOW);
    assert_eq!(name(&mut namer, "/first"), OVERFLOW);
    assert_eq!(name(&mut namer, "/p/2"), "/p/{id}");
    let counts = namer.counts();
    assert_eq!((counts.axum, counts.pattern, counts.learned, counts.overflow_requests), (2, 1, 0, 4));
    assert_eq!((counts.learner.reclaimed_routes, counts.learner.refused_routes), (1, 3));
}

#[test]
fn what_a_scanner_filled_the_cap_with_makes_room() {
    let mut namer = namer(&[], 100);
    let at = |namer: &mut RouteNamer, path: &str, seconds: u64| {
        let exchange = Exchange { end_ns: seconds * 1_000_000_000, ..exchange(path.as_bytes(), 200) };
        namer.name(&exchange).template.to_string()
    };
    let words = ["orders", "carts", "users", "items", "posts", "pages", "roles", "teams", "tags", "files"];
    let mut all = words.iter().flat_map(|a| words.iter().map(move |b| format!("/{a}/{b}")));
    assert_eq!(at(&mut namer, "/api/orders", 1), "/api/orders");
    let scanned: Vec<_> = all.by_ref().take(99).collect();
    scanned.iter().for_each(|path| assert_eq!(at(&mut namer, path, 2), **path));
    assert_eq!(at(&mut namer, "/api/carts", 30), OVERFLOW);
    for seconds in 31..90 {
        assert_eq!(at(&mut namer, "/api/orders", seconds), "/api/orders", "what is in use stays");
    }
    assert_eq!(at(&mut namer, "/api/carts", 90), "/api/carts");
    assert_eq!(at(&mut namer, "/api/orders", 91), "/api/orders");
    assert_eq!(namer.counts().learned, 100);
}
