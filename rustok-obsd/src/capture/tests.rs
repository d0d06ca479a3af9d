//! Whose work the pipeline takes an operation for, and the gauges of connections; fed with the ring's entries.

mod routes;
mod scene;

use rustok_obsd_ebpf::{Capture, Kind, ProcessEvent, Role, SocketIo};

use super::ring::Verdicts;
use crate::{
    contract::own::LossReason,
    contract::recorder::{Behind, TargetKey},
    database::tracker::Drivers,
    exposition::{Format, to_text},
};
use scene::*;

#[test]
fn a_connections_task_works_for_the_request_under_way_there() {
    let mut scene = tokio();
    scene.receive(1, 71, REQUEST);
    scene.receive(2, 72, REQUEST);
    assert_eq!(scene.query(71), "request");
    assert_eq!(scene.query(72), "request");
    scene.send(1, 71, RESPONSE);
    // What it does between two requests is left over from the one before.
    assert_eq!(scene.query(71), "linked");
    assert_eq!(scene.query(72), "request");
    scene.receive(1, 71, &REQUEST[..20]);
    assert_eq!(scene.query(71), "linked");
    scene.receive(1, 71, &REQUEST[20..]);
    assert_eq!(scene.query(71), "request");
}

#[test]
fn a_spawned_task_works_for_the_request_of_its_spawn_as_long_as_that_lasts() {
    let mut scene = tokio();
    scene.receive(1, 71, REQUEST);
    scene.spawn(71, 80);
    scene.spawn(80, 81);
    assert_eq!((scene.query(80), scene.query(81)), ("request".into(), "request".into()));
    scene.send(1, 71, RESPONSE);
    // The next request of the connection is not theirs.
    scene.receive(1, 71, REQUEST);
    assert_eq!((scene.query(81), scene.query(71)), ("linked".into(), "request".into()));
    assert_eq!(scene.query(99), "unknown parent_unknown_no_spawn");
}

#[test]
fn outside_of_tasks_the_main_thread_works_for_nobody_and_others_are_unknown() {
    let mut scene = tokio();
    assert_eq!(scene.query(0), "background");
    scene.spawn(0, 60);
    assert_eq!(scene.query(60), "background");
    scene.tid = PID + 1;
    assert_eq!(scene.query(0), "unknown parent_unknown_no_task");
    scene.spawn(0, 61);
    assert_eq!(scene.query(61), "unknown parent_unknown_no_task");
}

#[test]
fn a_task_that_serves_what_cannot_be_read_is_unknown_though_its_spawn_was_seen() {
    let mut scene = tokio();
    scene.accept(3);
    scene.spawn(0, 73);
    scene.receive(3, 73, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(scene.query(73), "unknown parent_unknown_connection");
    scene.spawn(73, 74);
    assert_eq!(scene.query(74), "unknown parent_unknown_connection");
}

#[test]
fn a_task_whose_connection_closed_still_works_for_its_last_request() {
    let mut scene = tokio();
    scene.spawn(0, 71);
    scene.receive(1, 71, REQUEST);
    scene.close(1);
    assert_eq!(scene.query(71), "linked");
    // No request was read.
    scene.spawn(0, 72);
    scene.receive(2, 72, &REQUEST[..5]);
    scene.close(2);
    assert_eq!(scene.query(72), "unknown parent_unknown_connection");
}

#[test]
fn after_a_loss_requests_from_before_are_doubtful() {
    let mut scene = tokio();
    scene.receive(1, 71, REQUEST);
    scene.whole_request(2, 72);
    scene.pipeline.doubtful = 2;
    assert_eq!(scene.query(71), "unknown parent_unknown_lossy");
    assert_eq!(scene.query(72), "unknown parent_unknown_lossy", "its next request may have been lost");
    scene.receive(2, 72, REQUEST);
    assert_eq!(scene.query(72), "request");
}

#[test]
fn a_forked_child_has_tasks_of_its_own_and_counts_for_its_parent() {
    let mut scene = tokio();
    scene.receive(1, 71, REQUEST);
    let event =
        ProcessEvent { kind: Kind::Fork as u8, pad: [0; 3], pid: 501, parent: PID, pad2: 0, time_ns: scene.now };
    scene.pipeline.take(event.as_bytes());
    (scene.tgid, scene.tid) = (501, 501);
    // The same number is another task.
    assert_eq!(scene.query(71), "unknown parent_unknown_no_spawn");
    scene.accept(5);
    scene.receive(5, 71, REQUEST);
    scene.send(5, 71, RESPONSE);
    assert_eq!(scene.query(71), "linked");
    (scene.tgid, scene.tid) = (PID, PID);
    assert_eq!(scene.query(71), "request");
    assert_eq!(scene.gauges(), ["1", "0"]);
}

/// The first bytes of each direction were among records that were lost.
fn miss_beginning(scene: &mut Scene, conn: u64) {
    scene.offsets.insert((conn, false), 300);
    scene.offsets.insert((conn, true), 900);
}

#[test]
fn a_databases_connection_whose_beginning_was_lost_is_found_by_the_calls_that_send_on_it() {
    let ping = b"S\0\0\0\x04";
    let query = [&b"Q\0\0\0\x14"[..], SQL.as_bytes(), b"\0"].concat();
    let answer = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
    for (first, question, answer) in [(TLS, TLS, TLS), (&ping[..], &query[..], &answer[..])] {
        let mut scene = tokio();
        // Opened while the daemon watched; no port says what it is.
        let conn = LINK + 1;
        scene.open(conn, Role::Client, 40_001, false);
        miss_beginning(&mut scene, conn);
        // The pool asks whether it lives: no call.
        scene.send(conn, 71, first);
        scene.receive(conn, 71, answer);
        scene.receive(1, 71, REQUEST);
        let start = scene.call(71);
        scene.send(conn, 71, question);
        scene.receive(conn, 71, answer);
        assert_eq!(scene.parents(|scene| scene.done(71, start)), "request");
        let text = to_text(scene.own.as_ref(), Format::Text);
        assert!(text.contains("rustok_obsd_database_problems_total{problem=\"unbound\"} 0"), "{text}");
        assert_eq!(scene.gauges(), ["1", "0"]);
    }
}

#[test]
fn a_servers_connection_whose_beginning_was_lost_is_read_from_its_next_request_on() {
    let mut scene = tokio();
    scene.accept(3);
    miss_beginning(&mut scene, 3);
    // The rest of a body.
    scene.receive(3, 73, b"\x01\x02\x03 and so on, which is no beginning of anything");
    scene.send(3, 73, RESPONSE);
    scene.receive(3, 73, REQUEST);
    assert_eq!(scene.query(73), "request");
}

#[test]
fn records_wait_until_what_they_say_was_published() {
    let mut scene = Scene::new(TOKIO);
    scene.accept(1);
    assert_eq!(scene.own.waiting(3), 3);
    scene.receive(1, 71, REQUEST);
    scene.pipeline.take(b"none of a known kind");
    assert_eq!(scene.own.waiting(3), 3);
    scene.pipeline.obey();
    assert_eq!((scene.own.waiting(3), scene.own.waiting(5)), (0, 2));
}

#[test]
fn a_loss_is_felt_until_it_lies_behind_and_its_time_is_over() {
    let mut scene = tokio();
    let recovering = |scene: &Scene| scene.own.is_recovering();
    assert!(!recovering(&scene));
    // Told by the programs before the capture thread looks.
    scene.own.lost.raise_to(LossReason::RingFull, 5);
    assert!(recovering(&scene));
    scene.pipeline.look_for_losses_of(5, 0);
    assert!(recovering(&scene) && scene.pipeline.doubtful == u64::MAX);
    // However long the ring is never empty.
    scene.pipeline.lossy_until = Some(std::time::Instant::now());
    scene.pipeline.look_for_losses_of(5, 0);
    assert!(recovering(&scene) && scene.pipeline.databases.lossy);
    scene.pipeline.caught_up();
    scene.pipeline.look_for_losses_of(5, 0);
    assert!(recovering(&scene) && scene.pipeline.databases.lossy && scene.pipeline.doubtful < u64::MAX);
    scene.pipeline.lossy_until = Some(std::time::Instant::now());
    scene.pipeline.look_for_losses_of(5, 0);
    assert!(!recovering(&scene) && !scene.pipeline.databases.lossy);
    // Another one.
    scene.own.lost.raise_to(LossReason::RingFull, 6);
    assert!(recovering(&scene));
}

fn bare() -> Scene {
    let mut scene = Scene::new(BARE);
    scene.open(LINK, Role::Client, 5432, false);
    let startup = [&30u32.to_be_bytes()[..], &[0, 3, 0, 0], b"user\0b\0database\0shop\0\0"].concat();
    scene.send(LINK, 0, &startup);
    scene.receive(LINK, 0, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    for conn in 1..=4 {
        scene.accept(conn);
    }
    scene
}

#[test]
fn threads_are_evidence_where_each_request_has_one() {
    let mut scene = bare();
    for n in 0..200 {
        scene.tid = 600 + n % 4;
        let conn = 1 + u64::from(n % 4);
        scene.receive(conn, 0, REQUEST);
        let tid = scene.tid;
        let expected = if n < 64 { "unknown parent_unknown_no_task" } else { "request" };
        assert_eq!(scene.wire_query(0, tid), expected, "request {n}");
        scene.send(conn, 0, RESPONSE);
    }
    // Between requests a thread may do anything.
    assert_eq!(scene.wire_query(0, 603), "unknown parent_unknown_no_task");
    scene.tid = 700;
    assert_eq!(scene.wire_query(0, 700), "unknown parent_unknown_no_task");
}

#[test]
fn threads_are_none_once_work_was_seen_to_move_or_to_interleave() {
    for how in 0..4 {
        let mut scene = bare();
        scene.tid = 600;
        (0..100).for_each(|_| scene.whole_request(1, 0));
        scene.receive(1, 0, REQUEST);
        assert_eq!(scene.wire_query(0, 600), "request");
        match how {
            // The same thread takes another request.
            0 => scene.receive(2, 0, REQUEST),
            // Another thread answers, or reads on.
            1 | 2 => {
                scene.tid = 601;
                if how == 1 {
                    scene.send(1, 0, RESPONSE);
                } else {
                    scene.receive(1, 0, REQUEST);
                }
                scene.tid = 600;
            }
            // Another thread reads the database's answer.
            _ => _ = scene.wire_query(0, 601),
        }
        scene.whole_request(1, 0);
        scene.receive(1, 0, REQUEST);
        assert_eq!(scene.wire_query(0, 600), "unknown parent_unknown_no_task", "case {how}");
    }
}

#[test]
fn with_a_runtime_whose_tasks_are_not_known_threads_say_nothing() {
    let mut scene = Scene::new(Drivers { tasks: false, ..TOKIO });
    scene.link(LINK);
    scene.accept(1);
    (0..100).for_each(|_| scene.whole_request(1, 0));
    scene.receive(1, 0, REQUEST);
    assert_eq!(scene.query(0), "unknown parent_unknown_no_task");
}

#[test]
fn a_driver_whose_connections_are_tasks_sends_for_anybody() {
    let mut scene = Scene::new(Drivers { calls: false, ends: false, shared_connections: true, ..TOKIO });
    scene.open(LINK, Role::Client, 5432, false);
    scene.accept(1);
    scene.receive(1, 71, REQUEST);
    scene.spawn(71, 80);
    scene.send(LINK, 80, b"\0\0\0\x10\0\x03\0\0user\0b\0\0");
    assert_eq!(scene.wire_query(80, 1), "unknown parent_unknown_shared_connection");
    assert_eq!(scene.wire_query(71, 1), "request");
}

#[test]
fn gauges_follow_connections_to_their_end() {
    let mut scene = tokio();
    assert_eq!(scene.gauges(), ["none", "none"]);
    let start = scene.call(71);
    scene.send(LINK, 71, TLS);
    assert_eq!(scene.gauges(), ["0", "1"]);
    scene.receive(LINK, 71, TLS);
    scene.done(71, start);
    assert_eq!(scene.gauges(), ["1", "0"]);
    scene.call(71);
    scene.send(LINK, 71, TLS);
    scene.close(LINK);
    assert_eq!(scene.gauges(), ["0", "0"]);
    scene.link(LINK + 1);
    scene.send(LINK + 1, 72, TLS);
    assert_eq!(scene.gauges(), ["1", "0"]);
    // The process replaces its program.
    scene.add(TOKIO);
    assert_eq!(scene.gauges(), ["0", "0"]);
    assert!(scene.pipeline.outputs.pools.is_empty() && scene.pipeline.databases.under_way() == 0);
}

#[test]
fn a_failed_connection_makes_its_statement_incomplete_and_an_interrupted_call_does_not() {
    for (result, received, ending) in [
        (0, true, "incomplete"),
        (-libc::ECONNRESET, true, "incomplete"),
        (-libc::EINTR, true, "complete"),
        (0, false, "complete"),
        (i32::MIN, true, "complete"),
    ] {
        let mut scene = tokio();
        let start = scene.call(71);
        scene.send(LINK, 71, TLS);
        scene.receive(LINK, 71, TLS);
        let kind = if received { Kind::Receive } else { Kind::Send } as u8;
        let (tgid, tid, time_ns) = (PID, PID, scene.tick());
        let offset = TLS.len() as u64;
        let io = SocketIo {
            kind,
            flags: 0,
            captured: 0,
            result,
            tgid,
            tid,
            conn: LINK,
            time_ns,
            ready_ns: 0,
            offset,
            task: 71,
            tail: [0; 8],
        };
        scene.pipeline.take(io.as_bytes());
        scene.done(71, start);
        let text = to_text(scene.metrics.as_ref(), Format::Text);
        let wanted = format!(
            "rustok_obsd_database_operations_total{{service_name=\"shop\",sight=\"sqlx\",ending=\"{ending}\"}} 1"
        );
        assert!(text.contains(&wanted), "{result} {received}: {text}");
    }
}

#[test]
fn pools_are_named_by_their_database_where_it_is_told() {
    let mut scene = bare();
    assert!(to_text(scene.metrics.as_ref(), Format::Text).contains("pool_name=\"127.127.127.127:5432/shop\""));
    scene.close(LINK);
    assert_eq!(scene.gauges(), ["0", "0"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, ..Default::default() })]

    /// Anything of the right length is a record to the pipeline.
    #[test]
    fn garbage_never_panics(
        entries in proptest::collection::vec(
            (1..12u8, proptest::prelude::any::<[u8; 160]>(), 0..4u64, 0..3u64, proptest::prelude::any::<u8>()), 0..80,
        ),
    ) {
        let mut scene = tokio();
        for (kind, mut bytes, conn, task, how) in entries {
            bytes[0] = kind;
            let conn = if conn == 0 { LINK } else { conn };
            match kind {
                2 | 3 => {
                    // Process, connection, task, and what was captured.
                    bytes[2..4].copy_from_slice(&(u16::from(how) % 90).to_le_bytes());
                    bytes[8..12].copy_from_slice(&PID.to_le_bytes());
                    bytes[16..24].copy_from_slice(&conn.to_le_bytes());
                    bytes[48..56].copy_from_slice(&task.to_le_bytes());
                }
                10 => {
                    bytes[1] = how % 12;
                    bytes[4..8].copy_from_slice(&(u32::from(how) % 9).to_le_bytes());
                    bytes[8..12].copy_from_slice(&PID.to_le_bytes());
                    bytes[24..32].copy_from_slice(&task.to_le_bytes());
                }
                4 => bytes[8..16].copy_from_slice(&conn.to_le_bytes()),
                1 => {
                    bytes[4..8].copy_from_slice(&PID.to_le_bytes());
                    bytes[8..16].copy_from_slice(&conn.to_le_bytes());
                }
                _ => bytes[4..8].copy_from_slice(&PID.to_le_bytes()),
            }
            scene.pipeline.take(&bytes);
        }
        scene.pipeline.obey();
        scene.pipeline.finish();
        assert_eq!(scene.pipeline.databases.under_way(), 0);
    }
}

#[test]
fn while_the_end_of_an_answer_is_not_known_what_comes_behind_the_next_request_is_nobodys() {
    let mut scene = tokio();
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\na piece.";
    scene.receive(1, 71, REQUEST);
    // The rest, the last chunk perhaps among it, was not captured.
    scene.send_cut(1, 71, head, 40);
    assert_eq!(scene.query(71), "request", "its handler may still stream");
    scene.receive(1, 71, REQUEST);
    assert_eq!(scene.query(71), "unknown parent_unknown_connection");
    scene.send(1, 71, RESPONSE);
    scene.receive(1, 71, REQUEST);
    assert_eq!(scene.query(71), "request", "the answer began where one may begin");
}

/// What a family of the daemon's own metrics says of a label's value.
fn own(scene: &Scene, series: &str) -> f64 {
    let text = to_text(scene.own.as_ref(), Format::Text);
    let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("no {series}: {text}"));
    line.trim().parse().unwrap()
}

fn requests(scene: &Scene) -> Vec<String> {
    let text = to_text(scene.http.as_ref(), Format::Text);
    text.lines().filter(|line| line.starts_with("rustok_http_requests_total{")).map(str::to_owned).collect()
}

#[test]
fn a_connection_that_the_kernel_forgot_is_lost_and_neither_closed_nor_paired_with_what_comes() {
    let mut scene = tokio();
    scene.receive(1, 71, REQUEST);
    assert_eq!(scene.active(), 1);
    // Its state was evicted: the answer is the first that the programs see of it.
    scene.open_at(50, 1, Role::Unknown, 40_000, true);
    scene.send(50, 71, RESPONSE);
    let lost = "rustok_http_requests_total{method=\"GET\",path=\"~unmatched\",status=\"000\"} 1";
    assert_eq!((requests(&scene), scene.active()), (vec![lost.to_owned()], 0), "no answer, and not the client's fault");
    assert_eq!(own(&scene, "rustok_obsd_exchange_problems_total{problem=\"evicted\"}"), 1.0);
    scene.whole_request(50, 71);
    let [answered, still] = requests(&scene).try_into().unwrap();
    assert!(
        answered.ends_with("status=\"200\"} 1") && still == lost
            || still.ends_with("status=\"200\"} 1") && answered == lost
    );
    // Another connection in the same memory says that the one before is closed.
    scene.open_at(51, 2, Role::Server, 40_000, false);
    scene.open_at(52, 1, Role::Unknown, 40_001, true);
    assert_eq!(own(&scene, "rustok_obsd_exchange_problems_total{problem=\"evicted\"}"), 1.0);
}

/// Sockets that the programs were asked to forget.
#[derive(Clone, Default)]
struct Forgotten(std::sync::Arc<std::sync::Mutex<Vec<u64>>>);

impl Verdicts for Forgotten {
    fn copy(&mut self, _: u64, _: Capture) {}

    fn forget(&mut self, sock: u64, conn: u64) {
        assert_eq!(sock, conn + SOCKS);
        self.0.lock().unwrap().push(conn);
    }
}

const SOCKS: u64 = 1 << 40;

#[test]
fn sockets_of_who_has_most_give_way_in_the_programs_map_as_well_and_a_users_targets_count_together() {
    let mut scene = tokio();
    let forgotten = Forgotten::default();
    scene.pipeline.verdicts = Some(Box::new(forgotten.clone()));
    // A tenth of the room is in use by a target of a trusted user.
    let own = 10_000..10_000 + MOST_CONNECTIONS as u64 / 10;
    own.clone().for_each(|conn| scene.open_at(conn, conn + SOCKS, Role::Server, 40_000, false));
    // Each target of a stranger has fewer.
    scene.behind = Behind::Stranger(1000);
    for hog in 0..30 {
        scene.add_as(600 + hog, TargetKey(10 + hog), TOKIO);
        scene.tgid = 600 + hog;
        let first = 100_000 + u64::from(hog) * 1000;
        (first..first + 800).for_each(|conn| scene.open_at(conn, conn + SOCKS, Role::Server, 40_000, false));
    }
    let forgotten = forgotten.0.lock().unwrap();
    assert!(forgotten.len() >= 30 * 800 - MOST_CONNECTIONS, "{}", forgotten.len());
    let lost = forgotten.iter().filter(|conn| own.contains(conn)).count();
    assert_eq!(lost, 0, "of the trusted user's connections");
}
