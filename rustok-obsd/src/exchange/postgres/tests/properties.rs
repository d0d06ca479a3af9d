//! However the bytes fall into records, the events are the same; whatever the bytes, each operation ends once.

use super::bytes::*;
use super::{Bench, Seen};
use proptest::prelude::*;

/// A conversation: what is sent, what is answered.
fn conversation() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let one = prop_oneof![
        Just((SYNC.to_vec(), ready(b'I'))),
        "[a-zA-Z ']{0,40}"
            .prop_map(|sql| (query(&sql), [row_description(), row(), complete_tag("SELECT 1"), ready(b'I')].concat())),
        "[a-z]{1,9}".prop_map(|name| (prepare(&name, "SELECT x"), prepared())),
        ("[a-z]{0,3}", 0..600usize, 0..9usize)
            .prop_map(|(name, length, rows)| (execute(&name, &vec![b'v'; length]), executed("SELECT 1", rows))),
        Just((query("oops"), [error("42601"), ready(b'I')].concat())),
        Just((execute("gone", b""), [error("26000"), ready(b'I')].concat())),
        Just((prepare("bad", "SELEC"), [error("42601"), ready(b'I')].concat())),
    ];
    prop::collection::vec(one, 1..8)
}

/// Without the times.
fn what(seen: Vec<Seen>) -> Vec<Seen> {
    seen.into_iter()
        .map(|seen| match seen {
            Seen::Begin(op, _, task, sql) => Seen::Begin(op, 0, task, sql),
            Seen::First(op, _) => Seen::First(op, 0),
            Seen::End(op, _, rows, code, ending) => Seen::End(op, 0, rows, code, ending),
            Seen::Ready(_, status) => Seen::Ready(0, status),
            other => other,
        })
        .collect()
}

fn feed(bench: &mut Bench, received: bool, bytes: &[u8], cuts: &[usize]) {
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while let Some(cut) = cuts.next().filter(|_| !rest.is_empty()) {
        let (record, after) = rest.split_at(rest.len().min(*cut));
        bench.io(received, record, record.len(), b"", 0);
        rest = after;
    }
}

/// Each operation begins once and then ends once, in order.
fn check(seen: &[Seen]) {
    let mut open = Vec::new();
    let mut last = 0;
    for event in seen {
        match event {
            Seen::Begin(op, time_ns, ..) => {
                assert!(*op > last, "{seen:?}");
                last = *op;
                open.push((*op, *time_ns));
            }
            Seen::First(op, time_ns) => assert!(open.iter().any(|(known, begin)| known == op && begin <= time_ns)),
            Seen::End(op, time_ns, ..) => {
                let at = open.iter().position(|(known, begin)| known == op && begin <= time_ns);
                open.remove(at.expect("begun"));
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "{seen:?}");
}

proptest! {
    #[test]
    fn records_do_not_matter(talk in conversation(), cuts in prop::collection::vec(1..40usize, 1..6)) {
        let mut whole = Bench::started();
        let mut split = Bench::started();
        for (asked, answered) in &talk {
            whole.send(asked);
            whole.receive(answered);
            feed(&mut split, false, asked, &cuts);
            feed(&mut split, true, answered, &cuts);
        }
        whole.close();
        split.close();
        prop_assert_eq!(whole.shared.stats, split.shared.stats);
        let whole = whole.take();
        check(&whole);
        prop_assert_eq!(what(whole), what(split.take()));
    }

    #[test]
    fn pipelined_it_is_the_same_but_for_order(talk in conversation()) {
        let mut bench = Bench::started();
        bench.send(&talk.iter().flat_map(|(asked, _)| asked.clone()).collect::<Vec<_>>());
        bench.receive(&talk.iter().flat_map(|(_, answered)| answered.clone()).collect::<Vec<_>>());
        bench.close();
        check(&bench.take());
        prop_assert_eq!(bench.shared.stats.mismatches, 0);
        prop_assert_eq!(bench.shared.stats.broken_operations, 0);
    }

    #[test]
    fn whatever_is_lost_each_operation_ends_once(
        talk in conversation(),
        mid_stream in any::<bool>(),
        holes in prop::collection::vec((any::<bool>(), 1..400usize, 0..60usize, 0..3u64), 1..8),
    ) {
        let mut bench = if mid_stream { Bench::new(true) } else { Bench::started() };
        let mut holes = holes.iter().cycle();
        for (asked, answered) in talk.iter().chain(&talk) {
            for (received, bytes) in [(false, asked), (true, answered)] {
                let (skip, length, captured, lost) = holes.next().expect("cycle");
                if *skip {
                    continue;
                }
                for record in bytes.chunks(*length) {
                    let captured = record.len().min(*captured);
                    let tail = if captured < record.len() && record.len() >= 8 { &record[record.len() - 8..] } else { b"" };
                    bench.io(received, &record[..captured], record.len(), tail, *lost / 2);
                }
            }
        }
        bench.close();
        check(&bench.take());
        prop_assert_eq!(bench.shared.stats.operations, bench.shared.stats.ended);
    }

    #[test]
    fn any_bytes_are_survived(
        mid_stream in any::<bool>(),
        records in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60), 0..50usize, 0..3u64), 0..20),
    ) {
        let mut bench = Bench::new(mid_stream);
        for (received, bytes, missing, lost) in &records {
            bench.io(*received, bytes, bytes.len() + missing, b"S\0\0\0\x05Z\0\0", *lost);
        }
        bench.close();
        check(&bench.take());
    }
}
