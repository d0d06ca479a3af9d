//! Exchanges whose route is being read: they wait, nothing else does, and none is lost.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustok_obsd_ebpf::{Kind, RouteHit};

use super::super::parked::MOST_OF_TARGET;
use super::*;
use crate::contract::routing::Parked;
use crate::target::memory::{Memory, MemoryError, ProcessMemory};
use crate::target::reader::Access;
use crate::{
    budget::Store,
    capture::pipeline::Command,
    contract::recorder::TargetKey,
    exchange::RoutesExact,
    exposition::{Format, to_text},
    target::{ProcessKey, Reader},
};

/// Another target, whose memory answers.
const GOOD: u32 = 600;

/// The memory of either target is this process'; that of [`PID`] comes when the channel closes, or is told to fail.
struct Gate(Mutex<Receiver<()>>);

struct Gated<'a>(&'a Gate, u32);

impl Access for Gate {
    fn memory(&self, pid: u32, _until: Instant) -> Box<dyn Memory + '_> {
        Box::new(Gated(self, pid))
    }
}

impl Memory for Gated<'_> {
    fn read_many(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<(), MemoryError> {
        if self.1 == PID && self.0.0.lock().unwrap().recv().is_ok() {
            return Err(MemoryError::TimedOut { pid: PID });
        }
        ProcessMemory::new(std::process::id()).read_many(ranges, buf)
    }
}

type Router = HashMap<u32, Arc<str>>;

struct Routes {
    scene: Scene,
    router: Box<Router>,
    gate: Option<SyncSender<()>>,
}

/// Two targets; each of the connections 1 and 2 is served by a task of the first and the second.
fn routes() -> Routes {
    let (gate, gated) = sync_channel(16);
    let mut scene = Scene::reading(TOKIO, Reader::new(Gate(Mutex::new(gated))));
    scene.add_as(GOOD, TargetKey(2), TOKIO);
    for tgid in [PID, GOOD] {
        scene.commands.send(Command::RoutesExact { tgid, exact: RoutesExact::ALWAYS }).unwrap();
    }
    scene.pipeline.obey();
    scene.link(LINK);
    scene.accept(1);
    (scene.tgid, scene.tid) = (GOOD, GOOD);
    scene.accept(2);
    (scene.tgid, scene.tid) = (PID, PID);
    let paths = ["/outer/{*__private__axum_nest_tail_param}", "/inner/{name}", "/plain/{token}"];
    let router = Box::new((1..).zip(paths.map(Arc::from)).collect());
    Routes { scene, router, gate: Some(gate) }
}

impl Routes {
    fn hit(&mut self, task: u64, route: u32) {
        let hit = RouteHit {
            kind: Kind::Route as u8,
            pad: [0; 3],
            route,
            tgid: self.scene.tgid,
            tid: self.scene.tid,
            time_ns: self.scene.tick(),
            task,
            map: std::ptr::from_ref(&*self.router) as u64,
        };
        self.scene.pipeline.take(hit.as_bytes());
    }

    /// A whole request of the good target.
    fn good(&mut self) {
        (self.scene.tgid, self.scene.tid) = (GOOD, GOOD);
        self.request(2, 72, &[3]);
        (self.scene.tgid, self.scene.tid) = (PID, PID);
    }

    fn request(&mut self, conn: u64, task: u64, routes: &[u32]) {
        self.scene.receive(conn, task, REQUEST);
        routes.iter().for_each(|route| self.hit(task, *route));
        self.scene.send(conn, task, RESPONSE);
    }

    /// Requests counted by their route.
    fn count(&self, path: &str) -> u64 {
        let text = to_text(self.scene.http.as_ref(), Format::Text);
        let name = format!("rustok_http_requests_total{{method=\"GET\",path=\"{path}\",status=\"200\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    }

    /// Goes on until so many exchanges wait.
    fn until_parked(&mut self, wanted: usize) {
        while self.scene.pipeline.parked() != wanted {
            self.scene.pipeline.obey();
            std::thread::yield_now();
        }
    }

    fn result(&self, result: Parked) -> u64 {
        self.scene.own.routing.parked.get(result)
    }
}

#[test]
fn while_the_memory_of_one_target_hangs_those_of_others_are_counted_and_its_own_wait() {
    let mut routes = routes();
    routes.request(1, 71, &[3]);
    routes.request(1, 71, &[1, 2]);
    assert_eq!(routes.scene.pipeline.parked(), 2);
    for _ in 0..100 {
        routes.good();
    }
    routes.until_parked(2);
    assert_eq!(routes.count("/plain/{token}"), 100, "of the good one alone");
    routes.gate = None;
    routes.until_parked(0);
    assert_eq!((routes.count("/plain/{token}"), routes.count("/outer/inner/{name}")), (101, 1));
    assert_eq!((routes.result(Parked::Named), routes.result(Parked::Late)), (102, 0));
}

/// The record of the route came from programs that did not know the task yet, and waited in the ring while the command
/// overtook it.
#[test]
fn a_request_that_began_before_routes_were_exact_is_not_one_that_matched_none() {
    let mut routes = routes();
    let tgid = PID;
    let exact = RoutesExact::since(routes.scene.now + 1_000_000);
    routes.scene.commands.send(Command::RoutesExact { tgid, exact }).unwrap();
    routes.scene.pipeline.obey();
    routes.request(1, 0, &[3]);
    assert_eq!(routes.count("~unmatched"), 0);
    routes.scene.now += 1_000_000;
    routes.request(1, 71, &[]);
    assert_eq!(routes.count("~unmatched"), 1);
}

#[test]
fn a_request_that_outlasts_the_read_is_named_at_once() {
    let mut routes = routes();
    routes.gate = None;
    routes.scene.receive(1, 71, REQUEST);
    routes.hit(71, 1);
    let process = ProcessKey { pid: PID, start_time: 0 };
    let map = std::ptr::from_ref(&*routes.router) as u64;
    while routes.scene.pipeline.routes.awaits(process, map) {
        routes.scene.pipeline.obey();
    }
    // The inner router's path is known, and has to come behind the outer one's.
    routes.hit(71, 2);
    routes.scene.send(1, 71, RESPONSE);
    routes.scene.pipeline.obey();
    assert_eq!((routes.count("/outer/inner/{name}"), routes.scene.pipeline.parked()), (1, 0));
}

#[test]
fn what_hangs_for_too_long_is_named_without_it_and_counted() {
    let mut routes = routes();
    routes.request(1, 71, &[3]);
    routes.until_parked(0);
    assert_eq!((routes.count("/{param}"), routes.count("/plain/{token}")), (1, 0));
    assert_eq!(routes.result(Parked::Late) + routes.result(Parked::Unreadable), 1);
    // Not again at once: the next one is named as it ends.
    routes.request(1, 71, &[3]);
    assert_eq!((routes.count("/{param}"), routes.scene.pipeline.parked()), (2, 0));
}

#[test]
fn what_was_asked_for_and_fails_is_named_without_it() {
    let mut routes = routes();
    routes.request(1, 71, &[3]);
    routes.gate.as_ref().unwrap().send(()).unwrap();
    routes.until_parked(0);
    assert_eq!((routes.count("/{param}"), routes.result(Parked::Unreadable)), (1, 1));
}

#[test]
fn a_target_that_goes_and_the_daemons_end_leave_none_waiting() {
    for finish in [false, true] {
        let mut routes = routes();
        routes.request(1, 71, &[3]);
        routes.request(1, 71, &[3]);
        if finish {
            routes.scene.pipeline.finish();
        } else {
            // The process replaces its program.
            routes.scene.add(TOKIO);
        }
        assert_eq!((routes.scene.pipeline.parked(), routes.count("/{param}")), (0, 2));
        assert_eq!(routes.result(Parked::Ended), 2);
    }
}

#[test]
fn beyond_the_bound_nothing_waits_and_nothing_is_lost() {
    let mut routes = routes();
    for _ in 0..MOST_OF_TARGET + 10 {
        routes.request(1, 71, &[3]);
    }
    assert_eq!((routes.scene.pipeline.parked(), routes.count("/{param}")), (MOST_OF_TARGET, 10));
    routes.good();
    routes.until_parked(MOST_OF_TARGET);
    assert_eq!(routes.count("/plain/{token}"), 1, "the other target has room");
    routes.gate = None;
    routes.until_parked(0);
    assert_eq!(routes.count("/plain/{token}"), 1 + MOST_OF_TARGET as u64);
    routes.scene.pipeline.publish_routing();
    assert_eq!(routes.result(Parked::NoRoom), 10);
}

#[test]
fn long_requests_that_wait_are_bounded_in_bytes_and_leave_room_for_another_target() {
    let mut routes = routes();
    let long = format!("GET /plain/{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(7000));
    let store = |routes: &Routes| routes.scene.own.stores.read(Store::Parked);
    let mut sent = 0;
    while store(&routes).refused < 5 {
        routes.scene.receive(1, 71, long.as_bytes());
        routes.hit(71, 3);
        routes.scene.send(1, 71, RESPONSE);
        sent += 1;
        assert!(sent < MOST_OF_TARGET, "{:?}", store(&routes));
    }
    let held = store(&routes);
    assert_eq!(routes.scene.pipeline.parked(), sent - 5);
    assert!((held.limit / 2 - 16_000..=held.limit / 2).contains(&held.used), "{held:?}");
    routes.good();
    routes.until_parked(sent - 5);
    assert_eq!(routes.count("/plain/{token}"), 1, "the other target has room");
    routes.gate = None;
    routes.until_parked(0);
    assert_eq!((store(&routes).used, routes.count("/plain/{token}")), (0, 1 + sent as u64 - 5));
    routes.scene.pipeline.publish_routing();
    assert_eq!(routes.result(Parked::NoRoom), 5);
}

#[test]
fn a_request_that_waits_has_ended_for_its_queries() {
    let mut routes = routes();
    routes.scene.receive(1, 71, REQUEST);
    routes.hit(71, 3);
    assert_eq!(routes.scene.query(71), "request");
    routes.scene.send(1, 71, RESPONSE);
    assert_eq!(routes.scene.pipeline.parked(), 1);
    assert_eq!(routes.scene.query(71), "linked");
    routes.gate = None;
    routes.until_parked(0);
    let text = to_text(routes.scene.metrics.as_ref(), Format::Text);
    let queries = text
        .lines()
        .find(|line| line.starts_with("rustok_obsd_http_request_queries_sum") && line.contains("/plain/{token}"));
    assert!(queries.is_some_and(|line| line.ends_with(" 1")), "{queries:?} {text}");
}
