//! Requests, tasks, gauges of connections, and processes that come and go.

use super::world::*;
use crate::database::requests::{Known, Requests};
use crate::database::sockets::Change;
use crate::database::tasks::Tasks;
use crate::database::tracker::Drivers;
use crate::database::{Ending, Ignorance, Origin, Parent, Spent};
use crate::trace::Decision;

const SQL: &str = "SELECT a FROM b WHERE c = $1";

/// Queries, failed, pool wait, database, busy, most repeated, partial.
type Sums = (u32, u32, u64, u64, u64, Option<u32>, bool);

fn sums(spent: &Spent<'_>) -> Sums {
    let Spent { queries, failed, pool_wait_ns, database_ns, busy_ns, most_repeated, partial, .. } = *spent;
    (queries, failed, pool_wait_ns, database_ns, busy_ns, most_repeated.map(|(_, count)| count), partial)
}

fn end(requests: &mut Requests, id: u64, end_ns: u64) -> Option<Sums> {
    requests.end(id, end_ns, |account| account.map(|(spent, _)| sums(spent)))
}

#[test]
fn a_request_adds_up_what_it_spent_and_counts_overlapping_time_once() {
    let mut world = World::new(ALL);
    (1..=3).for_each(|conn| world.open_tls(conn));
    let zero = world.now;
    world.mark(TASK, SQL);
    let first = world.call(TASK, SQL);
    world.send(1, TASK, TLS);
    let second = world.call(TASK, "SELECT 2");
    world.trip(2, TASK, TLS, TLS);
    world.done(TASK, "SELECT 2", second);
    world.receive(1, TASK, TLS);
    world.done(TASK, SQL, first);
    world.now += 100_000;
    let third = world.call(TASK, SQL);
    world.trip(1, TASK, TLS, TLS);
    world.notice(TASK, b"SERROR\0VERROR\0C23505\0");
    world.done(TASK, SQL, third);
    let times: Vec<_> = world.told.iter().map(|told| [1, 4].map(|at| (told.times[at] - zero) / 1000)).collect();
    assert_eq!(times, [[4, 6], [2, 8], [110, 112]]);
    let end_ns = world.tick();
    // The wait for the pool began at 1.
    let expected = (3, 1, 1000, 10_000, 9000, Some(2), false);
    assert_eq!(end(&mut world.tracker.requests, REQUEST, end_ns), Some(expected));
    assert_eq!(end(&mut world.tracker.requests, REQUEST, end_ns), None);
}

#[test]
fn what_is_under_way_when_the_request_ends_makes_its_sums_partial_and_is_linked() {
    let mut world = World::new(ALL);
    world.open_tls(1);
    let start = world.call(TASK, SQL);
    world.send(1, TASK, TLS);
    let end_ns = world.tick();
    let spent = end(&mut world.tracker.requests, REQUEST, end_ns).unwrap();
    assert_eq!(spent, (0, 0, 0, 0, end_ns - start, None, true));
    world.receive(1, TASK, TLS);
    world.done(TASK, SQL, start);
    assert_eq!(world.one().parent, Parent::Linked(REQUEST));
    assert!(world.tracker.requests.is_empty());
}

#[test]
fn requests_are_known_under_way_ended_and_forgotten() {
    let mut requests = Requests::default();
    assert!(requests.open(7, 1, 10, || Decision::Unsampled));
    assert!(requests.open(7, 1, 20, || panic!("it was decided")));
    assert_eq!(requests.known(1), Known::UnderWay(Decision::Unsampled));
    assert_eq!(end(&mut requests, 1, 30), Some((0, 0, 0, 0, 0, None, false)));
    assert_eq!(requests.known(1), Known::Ended(Decision::Unsampled));
    for id in 2..100_000 {
        requests.open(7, id, 40, || Decision::Undecided);
        requests.doubt(id);
        assert!(end(&mut requests, id, 50).unwrap().6);
    }
    assert_eq!(requests.known(1), Known::Forgotten);
    // Those whose end is never told are bounded, too.
    let most = (200_000..300_000).take_while(|id| requests.open(7, *id, *id, || Decision::Undecided)).count();
    assert_eq!(requests.len(), most);
    requests.reap(201_000);
    assert_eq!(requests.len(), most - 1000);
    assert!(
        matches!(requests.known(200_999), Known::Ended(_)) && matches!(requests.known(201_000), Known::UnderWay(_))
    );
}

#[test]
fn tasks_inherit_and_are_unknown_where_nobody_saw_their_spawn() {
    let mut tasks = Tasks::default();
    tasks.spawned(7, 7, 2, Origin::Request(5));
    let inherited = tasks.origin(7, 7, 2);
    tasks.spawned(7, 7, 3, inherited);
    tasks.spawned(8, 8, 3, Origin::Background);
    assert_eq!((tasks.origin(7, 7, 3), tasks.origin(8, 8, 3)), (Origin::Request(5), Origin::Background));
    assert_eq!(tasks.origin(7, 7, 4), Origin::Unknown(Ignorance::NoSpawn));
    for task in 100..200_000 {
        tasks.spawned(7, 7, task, Origin::Background);
        // What is asked for stays.
        assert_eq!(tasks.origin(7, 7, 3), Origin::Request(5));
    }
    assert_eq!(tasks.origin(7, 7, 2), Origin::Unknown(Ignorance::NoSpawn));
    tasks.forget(7, 7);
    assert_eq!(tasks.origin(7, 7, 3), Origin::Unknown(Ignorance::NoSpawn));
    assert_eq!(tasks.origin(8, 8, 3), Origin::Background, "what others spawn does not make it forgotten");
}

#[test]
fn reasons_for_an_unknown_parent_are_counted() {
    let mut world = World::new(ALL);
    world.open_tls(1);
    for why in [Ignorance::NoTask, Ignorance::NoSpawn, Ignorance::Lossy, Ignorance::Connection] {
        world.origin = Origin::Unknown(why);
        let start = world.call(TASK, SQL);
        world.trip(1, TASK, TLS, TLS);
        world.done(TASK, SQL, start);
        assert_eq!((world.one().parent, world.tracker.stats.unknown_parents[why as usize]), (Parent::Unknown, 1));
    }
}

#[test]
fn a_connection_is_used_while_an_operation_or_a_transaction_is_under_way() {
    let mut world = World::new(ALL);
    world.open_tls(1);
    assert_eq!(world.changes(), [(1, Change::Opened)]);
    let start = world.call(TASK, SQL);
    assert!(world.changes().is_empty());
    world.trip(1, TASK, TLS, TLS);
    assert_eq!(world.changes(), [(1, Change::Used)]);
    // No byte more is needed to see that it is idle.
    world.done(TASK, SQL, start);
    assert_eq!(world.changes(), [(1, Change::Idle)]);
    world.point(rustok_obsd_ebpf::Point::Begin, TASK);
    world.trip(1, TASK, TLS, TLS);
    assert_eq!(world.changes(), [(1, Change::Used)]);
    let start = world.call(TASK, "COMMIT");
    world.trip(1, TASK, TLS, TLS);
    world.done(TASK, "COMMIT", start);
    assert_eq!(world.changes(), [(1, Change::Idle)]);
    assert_eq!(world.close(1), Some(false));
    // Without the probe of ends the answer shows it.
    let mut world = World::new(Drivers { ends: false, ..ALL });
    world.open_tls(1);
    world.call(TASK, SQL);
    world.trip(1, TASK, TLS, TLS);
    assert_eq!(world.changes(), [(1, Change::Opened), (1, Change::Used), (1, Change::Idle)]);
    world.send(1, TASK, TLS);
    assert_eq!(world.close(1), Some(true), "it closes while it is used");
}

#[test]
fn a_process_that_ends_takes_all_of_its_own_with_it() {
    let mut world = World::new(ALL);
    world.tracker.add_process(8, ALL);
    world.open_tls(1);
    world.mark(TASK, SQL);
    world.call(TASK, "SELECT 2");
    world.send(1, TASK, TLS);
    // The same task number in a forked child is another task.
    world.tgid = 8;
    let start = world.call(TASK, SQL);
    world.open_tls(2);
    world.trip(2, TASK, TLS, TLS);
    world.forget(7);
    let told = world.one();
    assert_eq!((told.tgid, told.ending, world.tracker.stats.unmatched_calls), (7, Ending::Incomplete, 1));
    assert_eq!(world.tracker.drivers(7), Drivers::default());
    world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.tgid, told.port, told.ending, told.times[0]), (8, Some(5002), Ending::Complete, 0));
    world.close(1);
    assert!(world.told.is_empty());
}
