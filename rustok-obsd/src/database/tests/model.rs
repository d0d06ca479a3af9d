//! Any interleaving of tasks over a few connections, against a model that knows the truth; and garbage.

use proptest::collection::vec;
use proptest::prelude::*;
use rustok_obsd_ebpf::{CALL_WORDS, CallHit};

use super::world::*;
use crate::database::{Ending, Origin, Parent};
use crate::trace::Decision;

const TASKS: usize = 4;
/// Futures that a task runs side by side.
const LANES: usize = 2;
const CONNECTIONS: usize = 5;
const POOL_TASK: u64 = 900;

/// What a statement is at.
#[derive(Clone, Debug)]
enum Stage {
    Called,
    /// Its preparation was sent, and answered.
    Preparing,
    Prepared,
    Executing,
    Answered,
}

#[derive(Clone, Debug)]
struct Run {
    sql: String,
    conn: usize,
    stage: Stage,
    expected: Told,
}

struct Model {
    world: World,
    clear: bool,
    /// By task and lane.
    runs: Vec<Option<Run>>,
    /// The connection is in the pool.
    free: [bool; CONNECTIONS],
    /// Statements so far: each has a text of its own.
    count: usize,
    expected: Vec<Told>,
}

impl Model {
    fn new(clear: bool) -> Self {
        let mut world = World::new(ALL);
        for conn in 1..=CONNECTIONS as u64 {
            if clear {
                world.open_clear(conn, false);
                world.trip(conn, POOL_TASK, &startup(), &started());
            } else {
                world.open_tls(conn);
            }
        }
        for task in 0..TASKS as u64 {
            world.tracker.requests.open(TGID, 100 + task, 1, || Decision::Unsampled);
        }
        let runs = vec![None; TASKS * LANES];
        Self { world, clear, runs, free: [true; CONNECTIONS], count: 0, expected: Vec::new() }
    }

    fn bytes(&self, run: &Run, prepares: bool) -> [Vec<u8>; 2] {
        if !self.clear {
            [TLS.to_vec(), TLS.to_vec()]
        } else if prepares {
            prepare(&run.sql, &run.sql, b'I')
        } else {
            execute(&run.sql, "SELECT 3", b'I')
        }
    }

    /// One step of a lane: `choice` takes the way where there is one.
    fn step(&mut self, lane: usize, choice: u8) {
        let task = TASK + (lane / LANES) as u64;
        self.world.origin = Origin::Request(100 + (lane / LANES) as u64);
        self.world.tid = u32::from(choice % 3) + 1;
        let Some(mut run) = self.runs[lane].take() else { return self.begin(lane, task, choice) };
        let conn = run.conn as u64 + 1;
        match run.stage {
            Stage::Called => {
                let prepares = choice & 1 == 0;
                let [question, _] = self.bytes(&run, prepares || !self.clear);
                // A statement in clear text that is executed was prepared.
                run.stage = if prepares || self.clear { Stage::Preparing } else { Stage::Executing };
                let question = if self.clear { self.bytes(&run, true)[0].clone() } else { question };
                run.expected.times[2] = self.world.send(conn, task, &question);
            }
            Stage::Preparing if choice.is_multiple_of(7) => return self.cancel(run, task, conn, true),
            Stage::Preparing => {
                let [_, answer] = self.bytes(&run, true);
                self.world.receive(conn, task, &answer);
                run.stage = Stage::Prepared;
            }
            Stage::Prepared => {
                let [question, _] = self.bytes(&run, false);
                self.world.send(conn, task, &question);
                run.stage = Stage::Executing;
            }
            Stage::Executing if choice.is_multiple_of(7) => return self.cancel(run, task, conn, false),
            Stage::Executing => {
                let [_, answer] = self.bytes(&run, false);
                let cut = if choice & 1 == 0 { answer.len() } else { answer.len() / 2 };
                run.expected.times[3] = self.world.receive(conn, task, &answer[..cut]);
                run.expected.times[4] = run.expected.times[3];
                if cut < answer.len() {
                    run.expected.times[4] = self.world.receive(conn, task, &answer[cut..]);
                }
                run.stage = Stage::Answered;
            }
            Stage::Answered => {
                if choice.is_multiple_of(5) {
                    run.expected.sqlstate = Some("23505".to_owned());
                    run.expected.ending = Ending::Failed;
                    self.world.notice(task, b"SERROR\0VERROR\0C23505\0");
                }
                self.world.done(task, &run.sql, run.expected.times[1]);
                self.expected.push(run.expected);
                self.release(run.conn);
                return;
            }
        }
        self.runs[lane] = Some(run);
    }

    fn begin(&mut self, lane: usize, task: u64, choice: u8) {
        let Some(conn) = self.free.iter().position(|free| *free) else { return };
        self.free[conn] = false;
        self.count += 1;
        let sql = format!("SELECT a FROM t{}", self.count);
        let call_ns = if choice & 2 == 0 { self.world.mark(task, &sql) } else { 0 };
        if choice & 4 == 0 {
            // The pool asks whether it lives.
            let [question, answer] =
                if self.clear { [SYNC.to_vec(), ready(b'I')] } else { [TLS.to_vec(), TLS.to_vec()] };
            self.world.trip(conn as u64 + 1, task, &question, &answer);
        }
        let start_ns = self.world.call(task, &sql);
        let expected = Told {
            tgid: TGID,
            text: sql.clone(),
            sight: crate::database::Sight::Sqlx,
            parent: Parent::Request(100 + (lane / LANES) as u64),
            ending: Ending::Complete,
            times: [call_ns, start_ns, 0, 0, 0],
            rows: None,
            sqlstate: None,
            port: Some(5001 + conn as u16),
            namespace: self.clear.then(|| "shop".to_owned()),
        };
        self.runs[lane] = Some(Run { sql, conn, stage: Stage::Called, expected });
        // It is sent before its future yields.
        self.step(lane, choice);
    }

    fn cancel(&mut self, mut run: Run, task: u64, conn: u64, preparing: bool) {
        run.expected.times[4] = self.world.done(task, &run.sql, run.expected.times[1]);
        run.expected.ending = Ending::Cancelled;
        let [_, answer] = self.bytes(&run, preparing);
        // What the preparation's answer was is what it knows.
        self.expected.push(run.expected);
        self.world.origin = Origin::Background;
        self.world.send(conn, POOL_TASK, if self.clear { SYNC } else { TLS });
        self.world.receive(conn, POOL_TASK, &answer);
        self.world.receive(conn, POOL_TASK, if self.clear { b"Z\0\0\0\x05I" } else { TLS });
        self.free[run.conn] = true;
    }

    fn release(&mut self, conn: usize) {
        self.world.origin = Origin::Background;
        let [question, answer] = if self.clear { [SYNC.to_vec(), ready(b'I')] } else { [TLS.to_vec(), TLS.to_vec()] };
        self.world.trip(conn as u64 + 1, POOL_TASK, &question, &answer);
        self.free[conn] = true;
    }

    fn finish(mut self) {
        for lane in 0..TASKS * LANES {
            while self.runs[lane].is_some() {
                self.step(lane, 1);
            }
        }
        let key = |told: &Told| told.times[1];
        let mut told = std::mem::take(&mut self.world.told);
        told.sort_by_key(key);
        self.expected.sort_by_key(key);
        assert_eq!(told.len(), self.expected.len());
        for (mut told, mut expected) in told.into_iter().zip(self.expected) {
            // Rows are the wire's or the account's; a cancelled one may have been answered in part.
            told.rows = None;
            if expected.ending == Ending::Cancelled {
                (told.times[3], expected.times[3]) = (0, 0);
            }
            assert_eq!(told, expected);
        }
        assert_eq!(self.world.tracker.under_way(), 0);
        let stats = self.world.tracker.stats;
        assert_eq!((stats.lost_ends, stats.unmatched_ends, stats.unbound, stats.unmatched_calls), (0, 0, 0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn each_statement_is_told_once_with_its_request_connection_and_times(
        clear in any::<bool>(),
        steps in vec((0..TASKS * LANES, any::<u8>()), 0..300),
    ) {
        let mut model = Model::new(clear);
        for (lane, choice) in steps {
            model.step(lane, choice);
        }
        model.finish();
    }

    /// With records lost at random each call is still told at most once, with its own request or none.
    #[test]
    fn whatever_is_lost_no_request_is_wrong_and_nothing_stays(
        clear in any::<bool>(),
        steps in vec((0..4u64, 0..3u64, 0..8u8), 0..300),
    ) {
        let mut world = World::new(ALL);
        for conn in 1..=3 {
            if clear { world.open_clear(conn, true) } else { world.open_tls(conn) }
        }
        for task in 0..4 {
            world.tracker.requests.open(TGID, 100 + task, 1, || Decision::Unsampled);
        }
        let mut calls = 0;
        for (task, conn, what) in steps {
            world.origin = Origin::Request(100 + task);
            let sql = format!("SELECT a FROM t{task}");
            let [question, answer] = if clear { execute("s", "SELECT 1", b'I') } else { [TLS.to_vec(), TLS.to_vec()] };
            match what {
                0 | 1 => { world.call(TASK + task, &sql); calls += 1; }
                2 | 3 => { world.send(conn + 1, TASK + task, &question); }
                4 | 5 => { world.receive(conn + 1, TASK + task, &answer); }
                6 => { let start = world.now - 1000; world.done(TASK + task, &sql, start); }
                _ => {
                    world.close(conn + 1);
                    if clear { world.open_clear(conn + 1, true) } else { world.open_tls(conn + 1) }
                }
            }
        }
        (1..=3).for_each(|conn| _ = world.close(conn));
        world.reap(3_000_000_000_000);
        prop_assert_eq!(world.tracker.under_way(), 0);
        let called: Vec<_> = world.told.iter().filter(|told| told.sight == crate::database::Sight::Sqlx).collect();
        prop_assert_eq!(called.len(), calls);
        for told in called {
            let task: u64 = told.text.trim_start_matches("SELECT a FROM t").parse().unwrap();
            prop_assert_eq!(told.parent, Parent::Request(100 + task));
        }
    }

    #[test]
    fn garbage_never_panics(
        steps in vec((any::<[u8; 16]>(), vec(any::<u8>(), 0..40), any::<[u64; CALL_WORDS]>(), 0..12u8, 0..4u64), 0..100),
    ) {
        let mut world = World::new(ALL);
        for (head, bytes, words, what, conn) in steps {
            let time_ns = u64::from_le_bytes(head[..8].try_into().unwrap());
            world.now = time_ns >> (conn * 16) >> 1;
            match what {
                0 => world.open_tls(conn),
                1 => world.open_clear(conn, head[0] & 1 == 0),
                2 => _ = world.close(conn),
                3 => world.broken(conn),
                4 | 5 => _ = world.send(conn, u64::from(head[1] & 3), &bytes),
                6 | 7 => _ = world.receive(conn, u64::from(head[1] & 3), &bytes),
                8 => world.reap(time_ns >> 1),
                _ => {
                    let hit = CallHit {
                        kind: 10,
                        point: head[2] % 13,
                        flags: head[3],
                        pad: 0,
                        captured: bytes.len() as u32,
                        tgid: TGID,
                        tid: u32::from(head[4] & 1),
                        time_ns,
                        task: u64::from(head[5] & 3),
                        place: 0,
                        text: words[u64::from(head[6]) as usize % CALL_WORDS],
                        text_len: words[usize::from(head[7]) % CALL_WORDS],
                        words,
                    };
                    world.on(&hit, &bytes);
                }
            }
        }
        world.tracker.requests.end(REQUEST, u64::MAX, |_| ());
        world.forget(TGID);
        prop_assert_eq!(world.tracker.under_way(), 0);
    }
}
