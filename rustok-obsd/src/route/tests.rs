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
fn values_are_learned_as_their_kind() {
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
        ("/api/v1/en", "/api/v1/en"),
        ("/verify/a@b.example", "/verify/{email}"),
        ("/assets/app-3f2a9c1b.js", "/assets/{file}"),
        ("/blog/why-we-rewrote-it", "/blog/{slug}"),
        ("/blog/%D1%82%D0%B5%D1%81%D1%82", "/blog/{param}"),
        ("/reports/2026-11-23", "/reports/{date}"),
        ("/api/graphql/schema.graphql", "/api/graphql/schema.graphql"),
        ("/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o", "/a/b/c/d/e/f/g/h/i/j/k/l/{*rest}"),
    ] {
        assert_eq!(name(&mut namer, path), template, "{path}");
        assert_eq!(name(&mut namer, path), template, "{path} again");
    }
    let long = format!("/{}", "x".repeat(16_000));
    assert_eq!(name(&mut namer, &long), "/{param}");
    assert_eq!(&*namer.name(&exchange(b"/\xf0\x28/x", 200)).template, "/{param}/x");
}

#[test]
fn many_words_in_one_place_become_a_parameter_for_good() {
    let mut namer = namer(&[], 1000);
    let word = |index: usize| ["a", "b", "c", "d", "e"][index % 5].repeat(1 + index / 5);
    for index in 0..64 {
        assert_eq!(name(&mut namer, &format!("/posts/{}", word(index))), format!("/posts/{}", word(index)));
    }
    assert_eq!(name(&mut namer, "/posts/one-more"), "/posts/{param}");
    assert_eq!(name(&mut namer, &format!("/posts/{}", word(0))), "/posts/{param}");
    assert_eq!(name(&mut namer, "/posts/one-more/comments"), "/posts/{param}/comments");
    assert_eq!(name(&mut namer, "/posts/7"), "/posts/{id}", "kinds stay apart");
    assert_eq!(name(&mut namer, "/pages"), "/pages", "other places are not touched");
    assert_eq!(namer.counts().learned, 64 + 4);
}

#[test]
fn paths_that_were_not_found_teach_nothing() {
    let mut namer = namer(&[], 1000);
    for status in [404, 405, 400, 0] {
        assert_eq!(&*namer.name(&exchange(b"/wp-admin", status)).template, UNMATCHED);
    }
    assert_eq!(name(&mut namer, "/orders/7"), "/orders/{id}");
    assert_eq!(&*namer.name(&exchange(b"/orders/8", 404)).template, "/orders/{id}", "a known one is named");
    for path in [&b""[..], b"*"] {
        assert_eq!(&*namer.name(&exchange(path, 200)).template, UNMATCHED);
    }
    assert_eq!(namer.counts().unmatched_requests, 6);
}

#[test]
fn the_cap_holds_for_every_source_and_known_routes_stay() {
    let mut namer = namer(&["/p/{id}"], 3);
    let axum: Vec<_> = (0..3).map(|i| Route { template: format!("/x{i}").into(), source: Source::Axum }).collect();
    assert_eq!(name(&mut namer, "/first"), "/first");
    assert_eq!(name(&mut namer, "/p/1"), "/p/{id}");
    assert_eq!(&*namer.name(&Exchange { route: Some(&axum[0]), ..exchange(b"/", 200) }).template, "/x0");
    for _ in 0..2 {
        assert_eq!(&*namer.name(&Exchange { route: Some(&axum[1]), ..exchange(b"/", 200) }).template, OVERFLOW);
        assert_eq!(name(&mut namer, "/second"), OVERFLOW);
    }
    assert_eq!(name(&mut namer, "/first"), "/first");
    assert_eq!(name(&mut namer, "/p/2"), "/p/{id}");
    assert_eq!(namer.counts(), Counts { axum: 1, pattern: 1, learned: 1, overflow_requests: 4, unmatched_requests: 0 });
}
