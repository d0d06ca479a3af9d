//! What is learned, when, and what never is.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn template(learner: &mut Learner, path: &str, answered: bool, now: u64) -> String {
    learner.find(path.as_bytes(), answered, now).or_else(|| learner.take_up(now)).unwrap().template.to_string()
}

fn answer(learner: &mut Learner, path: &str) -> String {
    template(learner, path, true, 1)
}

#[test]
fn a_word_with_many_values_beside_it_becomes_a_part_of_the_route_once() {
    for (path, before, after) in [
        ("/api/frobs/{}", "/api/{param}/{id}", "/api/frobs/{id}"),
        ("/frobs/{}/items", "/{param}/{id}/items", "/frobs/{id}/items"),
        ("/{}/frob", "/{id}/{param}", "/{id}/frob"),
        ("/users/{}/frob", "/users/{id}/{param}", "/users/{id}/frob"),
    ] {
        let mut learner = Learner::default();
        let mut names = Vec::new();
        for id in 0..300 {
            names.push(answer(&mut learner, &path.replace("{}", &id.to_string())));
        }
        names.dedup();
        assert_eq!(names, [before, after]);
        assert_eq!(learner.counts.words, 1);
    }
}

#[test]
fn what_is_asked_for_often_with_few_values_beside_it_is_not_learned() {
    let mut learner = Learner::default();
    for round in 0..2000 {
        for (path, name) in [
            (format!("/alice/{}", round % 5), "/{param}/{id}"),
            ("/alice".into(), "/{param}"),
            ("/alice/orders".into(), "/{param}/orders"),
            ("/users/alice".into(), "/users/{param}"),
            (format!("/users/alice/{round}"), "/users/{param}/{id}"),
            (format!("/users/{}/frob", round % 5), "/users/{id}/{param}"),
            (format!("/u/alice-{round}"), "/{param}/{id}"),
        ] {
            assert_eq!(answer(&mut learner, &path), name, "{path}");
        }
    }
    assert_eq!(learner.counts.words, 0);
}

#[test]
fn what_was_not_answered_teaches_nothing_and_is_named_by_what_was_learned() {
    let mut learner = Learner::default();
    for id in 0..1000 {
        assert_eq!(template(&mut learner, &format!("/frobs/{id}"), false, 1), "/{param}/{id}");
    }
    assert!(learner.places.is_empty());
    (0..200).for_each(|id| _ = answer(&mut learner, &format!("/frobs/{id}")));
    assert_eq!(template(&mut learner, "/frobs/7", false, 1), "/frobs/{id}");
}

#[test]
fn words_are_learned_from_left_to_right_and_two_at_most() {
    let mut learner = Learner::default();
    let mut names = Vec::new();
    for id in 0..1000 {
        names.push(answer(&mut learner, &format!("/frobs/{id}/blurb/{id}/blorp")));
    }
    names.dedup();
    let wanted =
        ["/{param}/{id}/{param}/{id}/{param}", "/frobs/{id}/{param}/{id}/{param}", "/frobs/{id}/blurb/{id}/{param}"];
    assert_eq!(names, wanted);
}

#[test]
fn a_place_of_many_words_is_one_of_values_and_stays_it() {
    let mut learner = Learner::default();
    for id in 0..200 {
        answer(&mut learner, &format!("/rooms/{id}/frob"));
    }
    assert_eq!(answer(&mut learner, "/rooms/1/frob"), "/rooms/{id}/frob");
    for name in 0..40u8 {
        let name = format!("na{}me", char::from(b'a' + name % 26)).repeat(1 + usize::from(name / 26));
        answer(&mut learner, &format!("/rooms/1/{name}"));
    }
    for id in 0..1000 {
        assert_eq!(answer(&mut learner, &format!("/rooms/{id}/frob")), "/rooms/{id}/{param}");
    }
    assert_eq!((learner.counts.words, learner.counts.opened_places), (1, 1));
}

#[test]
fn words_and_templates_that_are_not_seen_for_a_day_are_forgotten() {
    let mut learner = Learner::default();
    (0..200).for_each(|id| _ = answer(&mut learner, &format!("/frobs/{id}")));
    assert_eq!(answer(&mut learner, "/frobs/1"), "/frobs/{id}");
    assert_eq!(template(&mut learner, "/carts/1", true, AGE + 2), "/carts/{id}");
    assert_eq!((learner.len(), learner.places.len(), learner.counts.aged_words), (1, 0, 1));
    assert_eq!(template(&mut learner, "/frobs/1", true, AGE + 3), "/{param}/{id}");
}

#[test]
fn places_are_bounded_and_idle_ones_make_room() {
    let mut learner = Learner::default();
    let ripe = |learner: &mut Learner, first: &str, now: u64| {
        (0..200).map(|id| template(learner, &format!("/{first}/{id}/frob"), true, now)).last().unwrap()
    };
    let words = ["orders", "carts", "users", "items", "posts", "pages", "roles", "teams", "tags", "files"];
    let all: Vec<_> = words.iter().flat_map(|a| words.iter().map(move |b| format!("{a}/{b}"))).collect();
    for first in &all[..PLACES] {
        assert_eq!(ripe(&mut learner, first, 1), format!("/{first}/{{id}}/frob"));
    }
    assert_eq!(ripe(&mut learner, &all[PLACES], 2), format!("/{}/{{id}}/{{param}}", all[PLACES]));
    assert!(learner.counts.refused_places >= 200);
    let later = IDLE_PLACE + 3;
    assert_eq!(ripe(&mut learner, &all[PLACES], later), format!("/{}/{{id}}/frob", all[PLACES]));
    assert_eq!(learner.places.len(), PLACES);
}

#[test]
fn all_bytes_are_given_back() {
    let budget = super::super::Budget::default();
    let mut learner = Learner::sharing(Share::of(budget.clone()));
    for id in 0..10_000_u64 {
        let path = format!("/orders/{id}/frob/{}", "x/".repeat((id % 11) as usize));
        template(&mut learner, &path, true, id * SECOND);
    }
    learner.age(u64::MAX);
    assert_eq!((learner.len(), learner.places.len()), (0, 0));
    let fresh = format!("{:?}", Share::default());
    assert_eq!(format!("{:?}", learner.share), fresh, "nothing is held");
}

/// Where users put what is theirs. `{s}` is the secret, `{i}` a number.
const PLACES_OF_SECRETS: [&str; 22] = [
    "/{s}",
    "/{s}/",
    "/{s}/settings",
    "/{s}/orders/{i}",
    "/users/{s}",
    "/users/{s}/orders",
    "/users/{s}/orders/{i}",
    "/users/{s}/{i}",
    "/api/v1/users/{s}",
    "/api/v1/accounts/{s}/members/{s}",
    "/u/{s}/posts/{i}",
    "/profile/{s}/edit",
    "/verify/{s}",
    "/reset-password/{s}",
    "/auth/reset/{s}/confirm",
    "/invite/{s}/accept",
    "/blog/{s}",
    "/blog/2026/11/{s}",
    "/en/pages/{s}",
    "/teams/{i}/members/{s}",
    "/files/{s}/raw",
    "/commerce/{s}/{i}",
];

fn secrets() -> impl Strategy<Value = Vec<String>> {
    let token = "[a-zA-Z0-9_-]{16,40}";
    let low = "[a-z]{16,40}";
    let name = "[a-z]{2,4}(an|is|er|as|mes|ice|ob|ena)[a-z]{0,2}[0-9]{0,2}";
    let slug = "[a-z]{3,9}(-[a-z]{3,9}){1,3}";
    let one = prop_oneof![token, low, name, slug];
    proptest::collection::vec(one, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// However often they are asked for, and by however few: what users typed is in no route.
    #[test]
    fn nothing_that_users_type_is_in_a_route(
        secrets in secrets(),
        places in proptest::collection::vec(0..PLACES_OF_SECRETS.len(), 1..6),
        rounds in 20_usize..110,
    ) {
        let known = |secret: &String| is_word(secret.as_bytes(), Parent::Namespace);
        let secrets: Vec<_> = secrets.into_iter().filter(|secret| !known(secret)).collect();
        let mut learner = Learner::default();
        let mut names = BTreeSet::new();
        for round in 0..rounds {
            for place in &places {
                for secret in &secrets {
                    let number = round * 7919 + secret.len();
                    let path = PLACES_OF_SECRETS[*place].replace("{s}", secret).replace("{i}", &number.to_string());
                    names.insert(answer(&mut learner, &path));
                    // The API beside it.
                    names.insert(answer(&mut learner, &format!("/api/widgetries/{number}/frobnicate")));
                }
            }
        }
        for name in &names {
            for segment in name.split('/') {
                prop_assert!(!secrets.iter().any(|secret| secret == segment), "{segment} in {name}");
            }
        }
        if rounds >= 60 && rounds * places.len() * secrets.len() > 1000 {
            prop_assert!(names.contains("/api/widgetries/{id}/frobnicate"), "{names:?}");
        }
    }

    /// Any bytes are a path.
    #[test]
    fn any_path_has_a_short_template(path in proptest::collection::vec(any::<u8>(), 0..400), answered: bool) {
        let mut learner = Learner::default();
        for now in 0..3 {
            let route = learner.find(&path, answered, now).or_else(|| learner.take_up(now)).unwrap();
            prop_assert!(route.template.starts_with('/') && route.template.len() <= 13 * 32, "{}", route.template);
        }
    }
}
