//! Real threads on a board of their own; time is what the test says.

use super::*;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

const BOUND: Duration = Duration::from_secs(10);
const ROUND: Duration = Duration::from_secs(2);

/// A board whose faults the test reads.
fn board() -> (Heartbeats, Receiver<Fault>) {
    let (beats, (tell, faults)) = (Heartbeats::default(), sync_channel(16));
    beats.on_fault(move |fault| {
        let _ = tell.send(fault.clone());
    });
    (beats, faults)
}

/// A thread that does as it is told, and says when it did.
struct Actor {
    orders: SyncSender<Order>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

enum Order {
    Round,
    /// Waits without a bound for the next order.
    Wait,
    Panic,
    Return,
    Finish,
}

impl Actor {
    fn start(beats: &Heartbeats, late: Late) -> Self {
        let ((orders, given), (say, done)) = (sync_channel::<Order>(0), sync_channel(0));
        let beats = beats.clone();
        let body = move || {
            let beat = beats.register_as("actor", BOUND, late);
            say.send(()).unwrap();
            let mut next = None;
            while let Ok(order) = next.take().map_or_else(|| given.recv(), Ok) {
                match order {
                    Order::Round => beat.alive(),
                    Order::Wait => {
                        let _idle = beat.idle();
                        say.send(()).unwrap();
                        next = Some(given.recv().unwrap());
                        continue;
                    }
                    Order::Panic => panic!("on purpose"),
                    Order::Return => return,
                    Order::Finish => return beat.done(),
                }
                say.send(()).unwrap();
            }
        };
        let thread = thread::Builder::new().name("actor".into()).spawn(body).unwrap();
        done.recv().unwrap();
        Self { orders, done, thread }
    }

    fn does(&self, order: Order) {
        self.orders.send(order).unwrap();
        self.done.recv().unwrap();
    }

    fn ends_by(self, order: Order) -> bool {
        self.orders.send(order).unwrap();
        self.thread.join().is_ok()
    }
}

#[test]
fn a_thread_that_hangs_makes_the_daemon_unready_and_is_named_past_its_bound() {
    let (beats, faults) = board();
    let actor = Actor::start(&beats, Late::Ends);
    assert_eq!(beats.look(ROUND), None);
    for _ in 0..20 {
        actor.does(Order::Round);
        assert_eq!(beats.look(ROUND), None);
    }
    // It goes on: nothing but the next rounds says that it does not.
    assert!((0..2).all(|_| beats.look(ROUND).is_none()) && beats.ready().is_ok());
    assert_eq!(beats.look(ROUND), None);
    assert_eq!(beats.ready(), Err("thread actor has been silent for 6 s, its bound is 10 s".into()));
    let report = Report { name: "actor", state: "late", silent_seconds: 6, bound_seconds: 10 };
    assert_eq!(beats.report(), [report]);
    assert!((0..2).all(|_| beats.look(ROUND).is_none()));
    let fault = beats.look(ROUND).expect("12 s");
    assert_eq!(fault, Fault::Hung { name: "actor", silent: Duration::from_secs(12), bound: BOUND });
    let text = fault.to_string();
    for part in ["thread actor", "12 s", "10 s", "systemd starts it again"] {
        assert!(text.contains(part), "{text}");
    }
    // It was slow, and no more.
    actor.does(Order::Round);
    assert_eq!((beats.look(ROUND), beats.ready()), (None, Ok(())));
    assert!(faults.try_recv().is_err());
    assert!(actor.ends_by(Order::Finish) && beats.names().is_empty());
}

#[test]
fn a_thread_that_waits_for_work_may_wait_for_ever_and_is_watched_again_when_it_works() {
    let (beats, _faults) = board();
    let actor = Actor::start(&beats, Late::Ends);
    actor.does(Order::Wait);
    assert!((0..1000).all(|_| beats.look(ROUND).is_none()) && beats.ready().is_ok());
    assert_eq!(beats.report()[0].state, "waiting");
    actor.does(Order::Round);
    assert!((0..6).all(|_| beats.look(ROUND).is_none()));
    assert!(beats.look(ROUND).is_some());
    // A wait that ends and begins between two looks is a sign of life as well.
    actor.does(Order::Wait);
    actor.does(Order::Wait);
    assert_eq!(beats.look(ROUND), None);
    actor.ends_by(Order::Finish);
}

#[test]
fn a_thread_that_panics_or_returns_unasked_is_named_at_once() {
    let (beats, faults) = board();
    assert!(!Actor::start(&beats, Late::Ends).ends_by(Order::Panic));
    let fault = faults.try_recv().expect("before the thread is gone");
    assert_eq!(fault, Fault::Panicked { name: "actor" });
    assert!(fault.to_string().contains("thread actor panicked"), "{fault}");
    assert!(Actor::start(&beats, Late::Ends).ends_by(Order::Return));
    assert_eq!(faults.try_recv(), Ok(Fault::Ended { name: "actor" }));
    // Asked to end, or one that the daemon can do without.
    assert!(!Actor::start(&beats, Late::Shown).ends_by(Order::Panic));
    assert!(Actor::start(&beats, Late::Unready).ends_by(Order::Return));
    beats.stopping();
    assert!(Actor::start(&beats, Late::Ends).ends_by(Order::Return));
    assert!(faults.try_recv().is_err() && beats.names().is_empty());
    // A panic counts at the end, too.
    assert!(!Actor::start(&beats, Late::Ends).ends_by(Order::Panic));
    assert_eq!(faults.try_recv(), Ok(Fault::Panicked { name: "actor" }));
}

#[test]
fn what_may_block_by_design_is_shown_and_what_a_restart_does_not_cure_makes_unready_only() {
    let (beats, _faults) = board();
    let collector = Actor::start(&beats, Late::Shown);
    assert!((0..100).all(|_| beats.look(ROUND).is_none()) && beats.ready().is_ok());
    assert_eq!(beats.report()[0].state, "late");
    let scrape = Actor::start(&beats, Late::Unready);
    assert!((0..100).all(|_| beats.look(ROUND).is_none()));
    assert!(beats.ready().is_err());
    beats.stopping();
    let vital = Actor::start(&beats, Late::Ends);
    assert!((0..100).all(|_| beats.look(ROUND).is_none()), "who ends is not judged");
    for actor in [collector, scrape, vital] {
        assert!(actor.ends_by(Order::Finish));
    }
}

#[test]
fn a_runtime_beats_while_it_polls_and_is_silent_while_a_task_blocks_it() {
    let (beats, _faults) = board();
    let ((go, gone), (say, blocked)) = (sync_channel::<()>(0), sync_channel(0));
    let mine = beats.clone();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let beat = mine.register("runtime", Duration::from_millis(80));
        runtime.block_on(beat.beside(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            say.send(()).unwrap();
            // What blocks the runtime.
            let _ = gone.recv();
            while !mine.is_stopping() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }));
        beat.done();
    });
    blocked.recv().unwrap();
    beats.look(ROUND);
    assert!(beats.look(ROUND).is_some(), "blocked");
    drop(go);
    while beats.look(ROUND).is_some() {
        thread::yield_now();
    }
    beats.stopping();
    thread.join().unwrap();
}
