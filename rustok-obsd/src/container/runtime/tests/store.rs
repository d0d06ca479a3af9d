//! What stays, what goes, and who is believed.

use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use super::id;
use crate::container::runtime::{
    facts::{Facts, RuntimeKind},
    store::{GRACE, MOST, Store, TRIES},
};

fn facts(kind: RuntimeKind, id: &str, name: &str) -> Facts {
    let (mut facts, _) = Facts::labelled(kind, id.to_owned(), []);
    facts.name = name.to_owned();
    facts
}

fn name(store: &Store, id: &str) -> Option<String> {
    store.get(id).map(|facts| facts.name.clone())
}

#[test]
fn what_ended_stays_for_the_grace_and_then_goes() {
    let (store, now) = (Store::default(), Instant::now());
    store.put(0, facts(RuntimeKind::Docker, &id('a'), "a"));
    store.put(0, facts(RuntimeKind::Docker, &id('b'), "b"));
    store.put(1, facts(RuntimeKind::Docker, &id('c'), "c"));
    let mut present = FxHashSet::default();
    present.insert(id('a').into_boxed_str());
    store.present(0, &present, now);
    store.sweep(now + GRACE);
    assert_eq!(store.len(), 3);
    store.sweep(now + GRACE + Duration::from_secs(1));
    assert_eq!((name(&store, &id('a')), name(&store, &id('b'))), (Some("a".into()), None));
    // Another runtime's list says nothing about it.
    assert_eq!(name(&store, &id('c')), Some("c".into()));
}

#[test]
fn a_restart_takes_the_end_back() {
    let (store, now) = (Store::default(), Instant::now());
    store.put(0, facts(RuntimeKind::Docker, &id('a'), "a"));
    store.gone(0, &id('a'), now);
    // Exactly the same facts, still.
    store.put(0, facts(RuntimeKind::Docker, &id('a'), "a"));
    store.sweep(now + 2 * GRACE);
    assert_eq!(store.len(), 1);
    store.gone(1, &id('a'), now);
    store.sweep(now + 2 * GRACE);
    assert_eq!(store.len(), 1, "another runtime's word");
}

#[test]
fn docker_is_believed_before_cri_whichever_comes_first() {
    let store = Store::default();
    store.put(0, facts(RuntimeKind::Cri, &id('a'), "cri"));
    store.put(1, facts(RuntimeKind::Docker, &id('a'), "docker"));
    assert_eq!(name(&store, &id('a')), Some("docker".into()));
    store.put(0, facts(RuntimeKind::Cri, &id('a'), "cri"));
    assert_eq!(name(&store, &id('a')), Some("docker".into()));
}

#[test]
fn the_version_changes_with_the_facts_alone() {
    let store = Store::default();
    let before = store.version();
    store.put(0, facts(RuntimeKind::Docker, &id('a'), "a"));
    let first = store.version();
    assert_ne!(first, before);
    store.put(0, facts(RuntimeKind::Docker, &id('a'), "a"));
    assert_eq!(store.version(), first);
    store.put(0, facts(RuntimeKind::Docker, &id('a'), "b"));
    assert_ne!(store.version(), first);
}

#[test]
fn a_wish_ends_after_its_tries_or_with_the_answer() {
    let (store, now) = (Store::default(), Instant::now());
    assert!(store.want(&id('a'), 2, now));
    assert!(!store.want(&id('a'), 2, now), "no news");
    for _ in 0..TRIES {
        assert!(store.is_open(&id('a'), |source| source == 0));
        let pending = store.pending(0);
        assert_eq!(pending, [id('a').into_boxed_str()]);
        store.tried(0, &pending);
    }
    assert!(!store.has_pending(0));
    assert!(!store.is_open(&id('a'), |source| source == 0));
    assert!(store.is_open(&id('a'), |_| true), "the other runtime has not looked");
    assert!(store.want(&id('a'), 2, now) && store.has_pending(0), "it is asked for once more");
    assert!(!store.want(&id('a'), 2, now), "that is open");
    store.put(1, facts(RuntimeKind::Docker, &id('a'), "a"));
    assert!(!store.has_pending(1));
    assert!(!store.want(&id('a'), 2, now), "known");
    store.want(&id('b'), 2, now);
    store.sweep(now + 2 * GRACE);
    assert!(!store.has_pending(0), "nobody wants it any more");
}

#[test]
fn a_pod_is_found_by_its_uid_until_its_sandbox_is_forgotten() {
    let store = Store::default();
    let labels = [("io.kubernetes.pod.uid".to_owned(), "u-1".to_owned())];
    let (mut sandbox, _) = Facts::labelled(RuntimeKind::Cri, id('a'), labels.clone());
    sandbox.is_sandbox = true;
    store.put(0, sandbox.clone());
    let (container, _) = Facts::labelled(RuntimeKind::Cri, id('b'), labels);
    store.put(0, container);
    assert_eq!(store.pod("u-1").unwrap().id, id('a'));
    // A new sandbox of the same pod; the old one's end must not take it away.
    sandbox.id = id('c');
    store.put(0, sandbox);
    store.forget(&id('a'));
    assert_eq!(store.pod("u-1").unwrap().id, id('c'));
    store.gone(0, &id('c'), Instant::now());
    store.sweep(Instant::now() + 2 * GRACE);
    assert!(store.pod("u-1").is_none());
}

#[test]
fn the_table_is_bounded_and_says_so() {
    let (store, now) = (Store::default(), Instant::now());
    for number in 0..MOST + 3 {
        store.put(0, facts(RuntimeKind::Docker, &format!("{number:064x}"), "x"));
    }
    assert_eq!((store.len(), store.overflow()), (MOST, 3));
    for number in 0..MOST + 3 {
        store.want(&format!("{:064x}", MOST + number), 1, now);
    }
    assert_eq!((store.pending(0).len(), store.overflow()), (MOST, 6));
}
