use super::{OtherKind, PostgresConnection, Shared, WireEvent, WireSql};
use crate::budget::Meter;
use crate::database::Ending;
use crate::exchange::Io;
use crate::protocol::postgres::TransactionStatus;

mod bytes;
mod missing;
mod properties;

use bytes::*;

/// An event, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Number, time, task, text.
    Begin(u64, u64, u64, String),
    First(u64, u64),
    /// Number, time, rows, SQLSTATE, ending.
    End(u64, u64, Option<u64>, String, Ending),
    Ready(u64, TransactionStatus),
    Startup(String),
    Encrypted,
    StandardStrings(Option<bool>),
    Other(OtherKind),
}

impl From<WireEvent<'_>> for Seen {
    fn from(event: WireEvent<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match event {
            WireEvent::Begin { op, time_ns, task, tid: _, sql } => {
                let sql = match sql {
                    WireSql::Text { sql, truncated: false } => text(sql),
                    WireSql::Text { sql, truncated: true } => text(sql) + "...",
                    WireSql::Named => "(named)".to_owned(),
                    WireSql::Function => "(function)".to_owned(),
                };
                Self::Begin(op, time_ns, task, sql)
            }
            WireEvent::First { op, time_ns } => Self::First(op, time_ns),
            WireEvent::End { op, time_ns, rows, sqlstate, ending } => {
                Self::End(op, time_ns, rows, sqlstate.map(|code| text(&code)).unwrap_or_default(), ending)
            }
            WireEvent::Ready { time_ns, status } => Self::Ready(time_ns, status),
            WireEvent::Startup { database } => Self::Startup(text(database)),
            WireEvent::Encrypted => Self::Encrypted,
            WireEvent::StandardStrings(on) => Self::StandardStrings(on),
            WireEvent::Other(kind) => Self::Other(kind),
        }
    }
}

/// A connection and what it told.
struct Bench {
    connection: PostgresConnection,
    shared: Shared,
    seen: Vec<Seen>,
    now: u64,
    task: u64,
}

impl Bench {
    fn new(mid_stream: bool) -> Self {
        let shared = Shared::new(1000);
        Self { connection: PostgresConnection::new(mid_stream, &shared), shared, seen: Vec::new(), now: 0, task: 7 }
    }

    /// A connection that is past its start.
    fn started() -> Self {
        let mut bench = Self::new(false);
        bench.send(&startup());
        bench.receive(&[ready_at_start(), ready(b'I')].concat());
        bench.seen.clear();
        bench.now = 0;
        bench
    }

    fn io(&mut self, received: bool, data: &[u8], len: usize, tail: &[u8], lost: u64) {
        self.now += 1;
        let io = Io { time_ns: self.now, ready_ns: 0, task: self.task, tid: 1, len, data, tail, lost };
        let seen = &mut self.seen;
        let mut sink = |event: WireEvent<'_>| seen.push(event.into());
        if received {
            self.connection.on_receive(&io, &mut self.shared, &mut sink);
        } else {
            self.connection.on_send(&io, &mut self.shared, &mut sink);
        }
    }

    fn send(&mut self, data: &[u8]) {
        self.io(false, data, data.len(), b"", 0);
    }

    fn receive(&mut self, data: &[u8]) {
        self.io(true, data, data.len(), b"", 0);
    }

    /// Only the first `captured` bytes were copied, and the last 8.
    fn cut(&mut self, received: bool, data: &[u8], captured: usize) {
        self.io(received, &data[..captured], data.len(), &data[data.len() - 8..], 0);
    }

    fn close(&mut self) {
        self.now += 1;
        let seen = &mut self.seen;
        self.connection.on_close(self.now, &mut self.shared, &mut |event| seen.push(event.into()));
    }

    fn take(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }
}

fn begin(op: u64, time_ns: u64, sql: &str) -> Seen {
    Seen::Begin(op, time_ns, 7, sql.to_owned())
}

fn complete(op: u64, time_ns: u64, rows: u64) -> Seen {
    Seen::End(op, time_ns, Some(rows), String::new(), Ending::Complete)
}

fn failed(op: u64, time_ns: u64, code: &str) -> Seen {
    Seen::End(op, time_ns, None, code.to_owned(), Ending::Failed)
}

const IDLE: TransactionStatus = TransactionStatus::Idle;

#[test]
fn a_connection_starts_and_is_asked_as_sqlx_does() {
    let mut bench = Bench::new(false);
    bench.send(b"\0\0\0\x08\x04\xd2\x16\x2f");
    bench.receive(b"N");
    bench.send(&startup());
    bench.receive(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
    bench.send(&message(b'p', b"SCRAM-SHA-256\0\0\0\0\x05n,,n="));
    bench.receive(&[ready_at_start(), ready(b'I')].concat());
    assert_eq!(
        bench.take(),
        [
            Seen::Other(OtherKind::EncryptionRequest),
            Seen::Other(OtherKind::Startup),
            Seen::Startup("shop".into()),
            Seen::Other(OtherKind::Authentication),
            Seen::Ready(6, IDLE),
        ]
    );
    // Prepared and executed in two round trips: one operation. Then by its name alone.
    bench.send(&prepare("sqlx_s_1", "SELECT 1"));
    bench.receive(&prepared());
    bench.send(&execute("sqlx_s_1", b"\0\0\0\x01"));
    bench.receive(&executed("SELECT 3", 3));
    bench.send(&execute("sqlx_s_1", b"secret"));
    bench.receive(&executed("SELECT 1", 1));
    // The pool's ping.
    bench.send(SYNC);
    bench.receive(&ready(b'I'));
    assert_eq!(
        bench.take(),
        [
            Seen::Ready(8, IDLE),
            begin(1, 7, "SELECT 1"),
            Seen::First(1, 10),
            complete(1, 10, 3),
            Seen::Ready(10, IDLE),
            begin(2, 11, "SELECT 1"),
            Seen::First(2, 12),
            complete(2, 12, 1),
            Seen::Ready(12, IDLE),
            Seen::Other(OtherKind::Ping),
            Seen::Ready(14, IDLE),
        ]
    );
    bench.send(&message(b'X', b""));
    bench.close();
    assert_eq!(bench.take(), [Seen::Other(OtherKind::Terminate)]);
    assert_eq!(bench.shared.stats, super::Stats { operations: 2, ended: 2, ..Default::default() });
}

#[test]
fn encryption_ends_what_can_be_read() {
    for (request, answer) in [(b"\0\0\0\x08\x04\xd2\x16\x2f", b"S"), (b"\0\0\0\x08\x04\xd2\x16\x30", b"G")] {
        let mut bench = Bench::new(false);
        bench.send(request);
        bench.receive(answer);
        assert!(bench.connection.is_opaque());
        bench.send(b"\x16\x03\x01\x00\x05\x01\0\0\x01\0");
        assert_eq!(bench.take(), [Seen::Other(OtherKind::EncryptionRequest), Seen::Encrypted]);
    }
    // TLS at once, or something else.
    let mut bench = Bench::new(false);
    bench.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(bench.connection.is_opaque());
    // An old server does not know the request.
    let mut bench = Bench::new(false);
    bench.send(b"\0\0\0\x08\x04\xd2\x16\x2f");
    bench.receive(&error("0A000"));
    assert_eq!(bench.shared.stats.unmatched_answers, 1);
    // Cancel.
    let mut bench = Bench::new(false);
    bench.send(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02");
    assert_eq!(bench.take(), [Seen::Other(OtherKind::Cancel)]);
}

#[test]
fn simple_queries_are_one_operation_each() {
    let mut bench = Bench::started();
    bench.send(&query("BEGIN"));
    bench.receive(&[complete_tag("BEGIN"), ready(b'T')].concat());
    bench.send(&query("INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)"));
    bench.receive(&[complete_tag("INSERT 0 1"), complete_tag("INSERT 0 2")].concat());
    bench.receive(&ready(b'T'));
    bench.send(&query("SELECT oops"));
    bench.receive(&[error("42703"), ready(b'E')].concat());
    bench.send(&query(""));
    bench.receive(&[message(b'I', b""), ready(b'E')].concat());
    bench.send(&message(b'F', &[0; 10]));
    bench.receive(&[message(b'V', &[0; 4]), ready(b'I')].concat());
    assert_eq!(
        bench.take(),
        [
            begin(1, 1, "BEGIN"),
            Seen::First(1, 2),
            Seen::End(1, 2, None, String::new(), Ending::Complete),
            Seen::Ready(2, TransactionStatus::InTransaction),
            begin(2, 3, "INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)"),
            Seen::First(2, 4),
            complete(2, 5, 3),
            Seen::Ready(5, TransactionStatus::InTransaction),
            begin(3, 6, "SELECT oops"),
            Seen::First(3, 7),
            failed(3, 7, "42703"),
            Seen::Ready(7, TransactionStatus::Failed),
            begin(4, 8, ""),
            Seen::First(4, 9),
            Seen::End(4, 9, None, String::new(), Ending::Complete),
            Seen::Ready(9, TransactionStatus::Failed),
            begin(5, 10, "(function)"),
            Seen::First(5, 11),
            Seen::End(5, 11, None, String::new(), Ending::Complete),
            Seen::Ready(11, IDLE),
        ]
    );
}

#[test]
fn a_pipeline_is_told_apart() {
    // libpq: everything about a statement in one go, several of them before one Sync, and a second Sync.
    let mut bench = Bench::started();
    let one = |sql: &str| [parse("", sql), bind("", "", b"x"), describe(b'P', ""), run("")].concat();
    bench.send(&[one("A"), one("B"), SYNC.to_vec(), one("C"), SYNC.to_vec()].concat());
    let answer = |tag: &str| [done(b'1'), done(b'2'), row_description(), row(), complete_tag(tag)].concat();
    bench.receive(&answer("SELECT 1"));
    bench.receive(&answer("SELECT 2"));
    bench.receive(&ready(b'I'));
    bench.receive(&[answer("SELECT 3"), ready(b'I')].concat());
    assert_eq!(
        bench.take(),
        [
            begin(1, 1, "A"),
            begin(2, 1, "B"),
            begin(3, 1, "C"),
            Seen::First(1, 2),
            complete(1, 2, 1),
            Seen::First(2, 3),
            complete(2, 4, 2),
            Seen::Ready(4, IDLE),
            Seen::First(3, 5),
            complete(3, 5, 3),
            Seen::Ready(5, IDLE),
        ]
    );
}

#[test]
fn an_error_skips_up_to_the_next_sync() {
    let mut bench = Bench::started();
    let one = |sql: &str| [parse("", sql), bind("", "", b"x"), run("")].concat();
    bench.send(&[one("A"), one("B"), one("C"), SYNC.to_vec(), one("D"), SYNC.to_vec()].concat());
    bench.receive(&[done(b'1'), done(b'2'), complete_tag("UPDATE 1"), done(b'1'), error("23505")].concat());
    bench.receive(&[ready(b'I'), done(b'1'), done(b'2'), complete_tag("UPDATE 1"), ready(b'I')].concat());
    let end = |op, ending, code: &str| Seen::End(op, 2, None, code.to_owned(), ending);
    assert_eq!(
        bench.take()[4..],
        [
            Seen::First(1, 2),
            complete(1, 2, 1),
            Seen::First(2, 2),
            end(2, Ending::Failed, "23505"),
            end(3, Ending::Incomplete, ""),
            Seen::Ready(3, IDLE),
            Seen::First(4, 3),
            complete(4, 3, 1),
            Seen::Ready(3, IDLE),
        ]
    );
    // An error at the commit that Sync makes is the statement's.
    bench.now = 0;
    bench.send(&[one("E"), SYNC.to_vec()].concat());
    bench.receive(&[done(b'1'), done(b'2'), complete_tag("DELETE 1"), error("23503"), ready(b'I')].concat());
    assert_eq!(bench.take()[2], Seen::End(5, 2, Some(1), "23503".into(), Ending::Failed));
    // After Flush the error may come before Sync is sent.
    bench.send(&[one("F"), message(b'H', b"")].concat());
    bench.receive(&[done(b'1'), error("22P02")].concat());
    bench.send(&one("G"));
    bench.send(SYNC);
    bench.receive(&ready(b'I'));
    bench.send(&query("H"));
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    let ends: Vec<_> = bench.take().into_iter().filter(|seen| matches!(seen, Seen::End(..))).collect();
    assert_eq!(
        ends,
        [
            Seen::End(6, 4, None, "22P02".into(), Ending::Failed),
            Seen::End(7, 5, None, String::new(), Ending::Incomplete),
            complete(8, 9, 1),
        ]
    );
    assert_eq!(bench.shared.stats.mismatches + bench.shared.stats.unmatched_answers, 0);
}

#[test]
fn preparing_is_part_of_executing_or_none() {
    let mut bench = Bench::started();
    // Parse fails: one failed operation.
    bench.send(&prepare("s1", "SELEC"));
    bench.receive(&[error("42601"), ready(b'I')].concat());
    assert_eq!(bench.take(), [begin(1, 1, "SELEC"), Seen::First(1, 2), failed(1, 2, "42601"), Seen::Ready(2, IDLE)]);
    // Prepared and never executed next: none.
    bench.send(&prepare("s2", "SELECT 2"));
    bench.receive(&prepared());
    bench.send(&query("SELECT 3"));
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    // Executed later: an operation that begins with Bind.
    bench.send(&execute("s2", b""));
    bench.receive(&executed("SELECT 1", 1));
    assert_eq!(
        bench.take(),
        [
            Seen::Ready(4, IDLE),
            Seen::Other(OtherKind::PreparedOnly),
            begin(3, 5, "SELECT 3"),
            Seen::First(3, 6),
            complete(3, 6, 1),
            Seen::Ready(6, IDLE),
            begin(4, 7, "SELECT 2"),
            Seen::First(4, 8),
            complete(4, 8, 1),
            Seen::Ready(8, IDLE),
        ]
    );
    // sqlx's cache closes an old statement between the two round trips.
    bench.send(&prepare("s3", "SELECT 4"));
    bench.receive(&prepared());
    bench.send(&[message(b'C', b"Ss2\0"), SYNC.to_vec()].concat());
    bench.receive(&[done(b'3'), ready(b'I')].concat());
    bench.send(&execute("s3", b""));
    bench.receive(&executed("SELECT 1", 1));
    assert_eq!(bench.take()[1..4], [Seen::Other(OtherKind::Close), Seen::Ready(12, IDLE), begin(5, 9, "SELECT 4")]);
    // Prepared at start-up, executed long after; the closed one is unknown.
    bench.send(&prepare("s4", "SELECT 5"));
    bench.receive(&prepared());
    bench.now += 1_000_000_000;
    bench.send(&execute("s4", b""));
    bench.receive(&executed("SELECT 1", 1));
    bench.send(&execute("s2", b""));
    bench.receive(&executed("SELECT 1", 1));
    let begins: Vec<_> = bench.take().into_iter().filter(|seen| matches!(seen, Seen::Begin(..))).collect();
    assert_eq!(begins, [begin(7, 1_000_000_017, "SELECT 5"), begin(8, 1_000_000_019, "(named)")]);
    assert_eq!(bench.shared.stats.unknown_statements, 1);
}

#[test]
fn portals_suspend_and_names_are_forgotten() {
    let mut bench = Bench::started();
    bench.send(&[parse("s", "FETCHED"), bind("p", "s", b""), run("p"), message(b'H', b"")].concat());
    bench.receive(&[done(b'1'), done(b'2'), row(), row(), done(b's')].concat());
    bench.send(&[run("p"), SYNC.to_vec()].concat());
    bench.receive(&[row(), complete_tag("SELECT 1"), ready(b'I')].concat());
    let ends = [complete(1, 2, 2), complete(2, 4, 1)];
    assert_eq!(bench.take().into_iter().filter(|seen| matches!(seen, Seen::End(..))).collect::<Vec<_>>(), ends);
    bench.send(&query("DISCARD ALL"));
    bench.receive(&[complete_tag("DISCARD ALL"), ready(b'I')].concat());
    bench.send(&execute("s", b""));
    bench.receive(&executed("SELECT 1", 1));
    assert!(bench.take().contains(&begin(4, 7, "(named)")));
    // Bounded: the names used least lately go.
    let names = super::names::Statements::NAMES;
    for number in 0..names + 10 {
        bench.send(&prepare(&format!("s{number}"), "SELECT 1"));
        bench.receive(&prepared());
        bench.send(&execute("s0", b""));
        bench.receive(&executed("SELECT 1", 1));
    }
    assert_eq!(bench.connection.statements.held(), (names, names * 8));
    assert_eq!(bench.shared.stats.forgotten_names, 10);
    bench.take();
    bench.send(&[execute("s0", b""), execute("s1", b"")].concat());
    let begins: Vec<_> = bench.take().into_iter().filter(|seen| matches!(seen, Seen::Begin(..))).collect();
    assert!(matches!(&begins[..], [Seen::Begin(_, _, _, first), Seen::Begin(_, _, _, second)]
        if first == "SELECT 1" && second == "(named)"));
}

#[test]
fn copy_belongs_to_its_statement() {
    let mut bench = Bench::started();
    bench.send(&query("COPY t FROM STDIN"));
    bench.receive(&message(b'G', &[0, 0, 0]));
    bench.send(&[message(b'd', b"1\n"), message(b'd', b"2\n"), message(b'c', b"")].concat());
    bench.receive(&[complete_tag("COPY 2"), ready(b'I')].concat());
    bench.send(&query("COPY t TO STDOUT"));
    bench.receive(&[message(b'H', &[0, 0, 0]), message(b'd', b"1\n"), message(b'c', b"")].concat());
    bench.receive(&[complete_tag("COPY 1"), ready(b'I')].concat());
    // libpq, extended: the Sync sent with Execute is ignored.
    bench.send(&[parse("", "COPY u FROM STDIN"), bind("", "", b""), run(""), SYNC.to_vec()].concat());
    bench.receive(&[done(b'1'), done(b'2'), message(b'G', &[0, 0, 0])].concat());
    bench.send(&[message(b'd', b"1\n"), message(b'c', b""), SYNC.to_vec()].concat());
    bench.receive(&[complete_tag("COPY 1"), ready(b'I')].concat());
    bench.send(&query("COPY t FROM STDIN"));
    bench.receive(&message(b'G', &[0, 0, 0]));
    bench.send(&message(b'f', b"no\0"));
    bench.receive(&[error("57014"), ready(b'I')].concat());
    let ends: Vec<_> = bench.take().into_iter().filter(|seen| matches!(seen, Seen::End(..))).collect();
    assert_eq!(ends, [complete(1, 4, 2), complete(2, 7, 1), complete(3, 11, 1), failed(4, 15, "57014")]);
    assert_eq!(bench.shared.stats.mismatches + bench.shared.stats.unmatched_answers, 0);
}

#[test]
fn a_dropped_query_is_cancelled() {
    let mut bench = Bench::started();
    bench.send(&query("SELECT pg_sleep(1)"));
    // The pool takes the connection back: its task pings and reads everything.
    bench.task = 8;
    bench.send(SYNC);
    bench.receive(&[row_description(), row(), complete_tag("SELECT 1"), ready(b'I'), ready(b'I')].concat());
    // While it was being prepared.
    bench.task = 7;
    bench.send(&prepare("s", "SELECT 2"));
    bench.task = 8;
    bench.receive(&prepared());
    bench.send(SYNC);
    bench.receive(&ready(b'I'));
    // Rows were read before it was dropped: it is complete. An unknown task proves nothing.
    bench.task = 7;
    bench.send(&query("SELECT 3"));
    bench.receive(&[row_description(), row()].concat());
    bench.task = 8;
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    bench.send(&query("SELECT 4"));
    bench.task = 0;
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    let ends: Vec<_> = bench.take().into_iter().filter(|seen| matches!(seen, Seen::End(..))).collect();
    assert_eq!(
        ends,
        [
            Seen::End(1, 3, Some(1), String::new(), Ending::Cancelled),
            Seen::End(2, 5, None, String::new(), Ending::Cancelled),
            complete(3, 10, 1),
            complete(4, 12, 1),
        ]
    );
}

#[test]
fn what_comes_at_any_time_disturbs_nothing() {
    let mut bench = Bench::started();
    bench.receive(&message(b'A', b"\0\0\0\x01chan\0payload\0"));
    bench.send(&query("SELECT 1"));
    bench.receive(&message(b'N', b"SWARNING\0VWARNING\0C01000\0Msecret\0\0"));
    bench.receive(&message(b'S', b"TimeZone\0UTC\0"));
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    bench.receive(&fatal("57P01"));
    bench.close();
    assert_eq!(
        bench.take(),
        [
            Seen::Other(OtherKind::Notification),
            begin(1, 2, "SELECT 1"),
            Seen::Other(OtherKind::Notice),
            Seen::First(1, 5),
            complete(1, 5, 1),
            Seen::Ready(5, IDLE),
            Seen::Other(OtherKind::Error),
        ]
    );
}

#[test]
fn names_of_one_target_leave_room_for_those_of_another() {
    let mut shared = Shared::new(16_000);
    let mut texts = Vec::new();
    let mut io = |connection: &mut PostgresConnection, shared: &mut Shared, received: bool, data: &[u8]| {
        let io = Io { time_ns: 1, ready_ns: 0, task: 1, tid: 1, len: data.len(), data, tail: &[], lost: 0 };
        let mut sink = |event: WireEvent<'_>| {
            if let WireEvent::Begin { sql, .. } = event {
                texts.push(matches!(sql, WireSql::Text { .. }));
            }
        };
        if received {
            connection.on_receive(&io, shared, &mut sink);
        } else {
            connection.on_send(&io, shared, &mut sink);
        }
        std::mem::take(&mut texts)
    };
    shared.set_owner(1);
    let mut hogs: Vec<_> = (0..40).map(|_| PostgresConnection::new(true, &shared)).collect();
    for (at, hog) in hogs.iter_mut().enumerate() {
        for number in 0..100 {
            let sql = format!("SELECT a{at}_{number} {}", "x".repeat(8000));
            io(hog, &mut shared, false, &prepare(&format!("s{number}"), &sql));
            io(hog, &mut shared, true, &prepared());
        }
    }
    let meters: Vec<_> = shared.meters().collect();
    let sum = |of: fn(&Meter) -> u64| meters.iter().map(|meter| of(meter)).sum::<u64>();
    assert!(sum(Meter::used) <= 4 << 20 && sum(Meter::refused) > 1000, "{meters:?}");
    // A name that found no room stands for nothing: not for another statement.
    let last = hogs.last_mut().expect("forty");
    assert_eq!(io(last, &mut shared, false, &execute("s99", b"")), [false]);
    shared.set_owner(2);
    let mut good = PostgresConnection::new(true, &shared);
    io(&mut good, &mut shared, false, &prepare("s", "SELECT 1"));
    io(&mut good, &mut shared, true, &prepared());
    assert_eq!(io(&mut good, &mut shared, false, &execute("s", b"")), [true]);
    shared.set_owner(1);
    hogs.iter_mut().for_each(|hog| hog.on_close(2, &mut shared, &mut |_| {}));
    shared.set_owner(2);
    good.on_close(2, &mut shared, &mut |_| {});
    shared.sweep();
    assert_eq!(sum(Meter::used), 0);
}

fn reported(value: &str) -> Vec<u8> {
    message(b'S', &[b"standard_conforming_strings\0", value.as_bytes(), b"\0"].concat())
}

#[test]
fn what_a_backslash_means_is_known_from_the_start_until_it_may_have_changed() {
    let start = |first: &[u8]| {
        let mut bench = Bench::new(false);
        bench.send(&startup());
        bench.receive(&[&ready_at_start(), first, &ready(b'I')].concat());
        bench
    };
    let told = |bench: &mut Bench| -> Vec<_> {
        let strings = |seen| if let Seen::StandardStrings(on) = seen { Some(on) } else { None };
        bench.take().into_iter().filter_map(strings).collect()
    };
    for (value, on) in [("on", true), ("off", false)] {
        let mut bench = start(&reported(value));
        assert_eq!(told(&mut bench), [Some(on)]);
        // The same again is no news; another one holds for what was sent before it was seen, or not: nobody knows.
        for (next, news) in [(value, &[][..]), (if on { "off" } else { "on" }, &[None]), (value, &[])] {
            bench.send(&query("SELECT f()"));
            bench.receive(&[reported(next), complete_tag("SELECT 1"), ready(b'I')].concat());
            assert_eq!(told(&mut bench), news, "{value} {next}");
        }
    }
    // Nothing was reported at the start, so that a later report is a change.
    let mut bench = start(b"");
    bench.receive(&reported("on"));
    assert_eq!(told(&mut bench), []);
    let mut bench = Bench::new(true);
    bench.receive(&[reported("on"), ready(b'I')].concat());
    assert_eq!(told(&mut bench), []);
    // What the target asks for holds at once, whether or not it waits for the answer.
    let set = "SET standard_conforming_strings TO off";
    for ask in [query(set), query(&set.to_lowercase()), prepare("s", set)] {
        let mut bench = start(&reported("on"));
        bench.send(&ask);
        assert_eq!(told(&mut bench), [Some(true), None]);
    }
    // A report may be among answers that were lost.
    let mut bench = start(&reported("on"));
    bench.io(true, b"", 0, b"", 100);
    assert_eq!(told(&mut bench), [Some(true), None]);
    // It came in pieces.
    let mut bench = Bench::new(false);
    bench.send(&startup());
    for byte in [ready_at_start(), reported("off"), ready(b'I')].concat() {
        bench.receive(&[byte]);
    }
    assert_eq!(told(&mut bench), [Some(false)]);
}
