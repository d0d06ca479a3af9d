//! From calls and sockets to operations: which call, which bytes and which answer are one.
//!
//! Reads: calls of the database libraries ([`Tracker::on_call`]) and, in `sockets.rs`, the traffic of connections. Yields:
//! one [`Operation`] for each statement. Costs: a few look-ups by integers an event, no allocation once warm.
//!
//! One rule says which source gives what:
//! * Where sqlx' functions are observed, each of its calls is one operation, exactly; text, task, begin and, by the drop of
//!   its logger, the end come from there. What the task then sends belongs to its newest call that has sent nothing.
//! * The connection's bytes give the times of sending, of the first and of the last byte of the answer. In clear text they
//!   also give rows and errors, else the driver's functions do.
//! * Bytes in clear text that no call explains are operations by themselves.
//! * Encrypted bytes that no call explains are round trips of unknown content where nothing of the driver is observed;
//!   elsewhere they are none, for the driver's own traffic (pings, start-up) is not called a query.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use rustok_obsd_ebpf::{CALL_WORDS, CallHit, IO_UNREADABLE, Point};

use super::account::{self, AccountLayout};
use super::aging::Aging;
use super::open::{Kind, OpId, Open, OpenOperations, task_key};
use super::requests::{Known, Requests};
use super::sockets::Link;
use super::tasks::{Origin, Tasks};
use super::{Ending, Operation, Parent, Sight, System};
use super::notice::error_code;
use crate::statement::{Knowledge, Statement, StatementCache};

/// Tasks whose calls of the mapper are remembered at least.
const MARKED: usize = 4096;
/// Calls of the mapper that one task may have waiting.
const MARKS: usize = 8;

/// Takes each operation that ended.
pub type Sink<'a> = dyn FnMut(u32, &Operation<'_>) + 'a;

/// What is known of a process that matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drivers {
    /// sqlx' calls are observed.
    pub calls: bool,
    /// The ends of sqlx' statements are observed.
    pub ends: bool,
    /// The place of Tokio's task id is known.
    pub tasks: bool,
    /// Tokio is linked in, so that a thread tells nothing.
    pub runtime: bool,
    /// The database that sqlx was built for, where it is one.
    pub system: System,
    /// A driver is linked in whose connections are tasks of their own.
    pub shared_connections: bool,
}

/// Counts of what could not be explained; each goes up only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls of the mapper that the driver never saw.
    pub unmatched_calls: u64,
    /// Calls of the driver for which no connection's bytes were seen.
    pub unbound: u64,
    /// Arguments that hold no statement.
    pub layout_doubts: u64,
    /// Statements that were longer than the bound.
    pub truncated_statements: u64,
    /// Ends of statements whose begin was not seen.
    pub unmatched_ends: u64,
    /// Statements that were prepared before the daemon watched.
    pub unknown_statements: u64,
    /// Encrypted round trips without a call.
    pub opaque_round_trips: u64,
    /// Operations that were too many to follow.
    pub overflow: u64,
    /// Operations without a parent, by [`super::Ignorance`].
    pub unknown_parents: [u64; super::Ignorance::COUNT],
    /// Messages that are no queries.
    pub others: Others,
}

/// Messages that are no queries, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// A connection starts, or asks for encryption.
    pub startup: u64,
    /// Authentication.
    pub authentication: u64,
    /// Sync alone.
    pub ping: u64,
    /// A request to cancel.
    pub cancel: u64,
    /// A notification, or a notice.
    pub notification: u64,
}

/// A call of the mapper that waits for the driver.
#[derive(Clone, Copy, Debug)]
struct Mark {
    time_ns: u64,
    /// Of a transaction: there is no statement to know it by.
    begin: bool,
    words: [u64; CALL_WORDS],
}

#[derive(Debug, Default)]
struct Marks {
    list: [Option<Mark>; MARKS],
}

/// See the module's head.
#[derive(Debug)]
pub struct Tracker {
    /// Whose work each task is.
    pub tasks: Tasks,
    /// What each request spent.
    pub requests: Requests,
    /// Counts.
    pub stats: Stats,
    pub(super) open: OpenOperations,
    pub(super) links: FxHashMap<u64, Link>,
    pub(super) statements: StatementCache,
    pub(super) drivers: FxHashMap<u32, Drivers>,
    /// Processes of which an operation was bound to a connection.
    pub(super) binds: FxHashMap<u32, bool>,
    marks: Aging<(u32, u64), Marks>,
    notices: FxHashMap<(u32, u64), [u8; 5]>,
    accounts: FxHashMap<u32, AccountLayout>,
    begin: Arc<Statement>,
    commit: Arc<Statement>,
    rollback: Arc<Statement>,
    unknown: Arc<Statement>,
    pub(super) opaque: Arc<Statement>,
}

impl Default for Tracker {
    fn default() -> Self {
        let mut statements = StatementCache::default();
        let [begin, commit, rollback] = ["BEGIN", "COMMIT", "ROLLBACK"].map(|sql| statements.get(sql.as_bytes(), false));
        Self {
            tasks: Tasks::default(),
            requests: Requests::default(),
            stats: Stats::default(),
            open: OpenOperations::default(),
            links: FxHashMap::default(),
            statements,
            drivers: FxHashMap::default(),
            binds: FxHashMap::default(),
            marks: Aging::new(MARKED),
            notices: FxHashMap::default(),
            accounts: FxHashMap::default(),
            begin,
            commit,
            rollback,
            unknown: Arc::new(Statement::unknown()),
            opaque: Arc::new(Statement::opaque()),
        }
    }
}

impl Tracker {
    /// A process is observed.
    pub fn add_process(&mut self, tgid: u32, drivers: Drivers) {
        self.drivers.insert(tgid, drivers);
    }

    /// What is known of a process.
    #[must_use]
    pub fn drivers(&self, tgid: u32) -> Drivers {
        self.drivers.get(&tgid).copied().unwrap_or_default()
    }

    /// A process ended.
    pub fn remove_process(&mut self, tgid: u32, time_ns: u64, sink: &mut Sink<'_>) {
        for id in self.open.of_process(tgid) {
            self.finish(id, time_ns, Ending::Incomplete, sink);
        }
        self.tasks.forget(tgid);
        self.marks.retain(|key, _| key.0 != tgid);
        self.notices.retain(|key, _| key.0 != tgid);
        self.accounts.remove(&tgid);
        self.drivers.remove(&tgid);
        self.binds.remove(&tgid);
    }

    /// Operations under way.
    #[must_use]
    pub const fn under_way(&self) -> usize {
        self.open.len()
    }

    /// A function of a database library was called. `origin` tells whose work the caller is.
    pub fn on_call(&mut self, hit: &CallHit, text: &[u8], origin: Origin, sink: &mut Sink<'_>) {
        let key = task_key(hit.tgid, hit.task, hit.tid);
        match hit.point {
            p if p == Point::Query as u8 => {
                let call_ns = self.take_mark(key, |mark| !mark.begin && mark.names(hit.text, hit.text_len));
                let kind = if self.drivers(hit.tgid).ends { Kind::Logged } else { Kind::OpenEnded };
                self.on_statement(hit, text, call_ns, kind, Sight::Sqlx, origin, sink);
            }
            p if p == Point::Statement as u8 => {
                let call_ns = self.take_mark(key, |mark| !mark.begin && mark.names(hit.text, hit.text_len));
                self.on_statement(hit, text, call_ns, Kind::OpenEnded, Sight::Sqlx, origin, sink);
            }
            p if p == Point::QueryEnd as u8 => self.on_end(hit, key, sink),
            p if p == Point::Notice as u8 => {
                if let Some(code) = error_code(text) {
                    self.notices.insert(key, code);
                }
            }
            p if p == Point::Begin as u8 || p == Point::Commit as u8 => {
                self.notices.remove(&key);
                let begins = p == Point::Begin as u8;
                let call_ns = if begins { self.take_mark(key, |mark| mark.begin) } else { 0 };
                let statement = Arc::clone(if begins { &self.begin } else { &self.commit });
                let mut open = new_open(hit, key, statement, Kind::Short, Sight::Sqlx, origin);
                open.call_ns = call_ns;
                self.start(open);
            }
            p if p == Point::Rollback as u8 => {
                let statement = Arc::clone(&self.rollback);
                let open = new_open(hit, key, statement, Kind::Short, Sight::Sqlx, origin);
                let link = self.link_in_transaction(hit.tgid, hit.task);
                if let Some(id) = self.start(open) {
                    match link.and_then(|conn| Some((conn, self.links.get_mut(&conn)?))) {
                        Some((conn, link)) => {
                            link.deferred = Some(id);
                            if let Some(open) = self.open.get(id) {
                                open.conn = conn;
                            }
                        }
                        None => self.finish(id, hit.time_ns, Ending::Incomplete, sink),
                    }
                }
            }
            p if p == Point::Orm as u8 || p == Point::OrmBegin as u8 => {
                let mark = Mark { time_ns: hit.time_ns, begin: p == Point::OrmBegin as u8, words: hit.words };
                self.put_mark(key, mark);
            }
            _ => self.stats.layout_doubts += 1,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, its facts")]
    fn on_statement(
        &mut self,
        hit: &CallHit,
        text: &[u8],
        call_ns: u64,
        kind: Kind,
        sight: Sight,
        origin: Origin,
        sink: &mut Sink<'_>,
    ) {
        let key = task_key(hit.tgid, hit.task, hit.tid);
        self.notices.remove(&key);
        let statement = if hit.flags & IO_UNREADABLE != 0 || !is_statement(text) {
            self.stats.layout_doubts += 1;
            Arc::clone(&self.unknown)
        } else {
            self.statements.get(text, hit.text_len > text.len() as u64)
        };
        self.stats.truncated_statements += u64::from(statement.knowledge == Knowledge::Truncated);
        // Without the probe of ends, the task's earlier ones that were answered are over now.
        if kind == Kind::OpenEnded {
            self.settle(key, hit.time_ns, sink);
        }
        let mut open = new_open(hit, key, statement, kind, sight, origin);
        open.call_ns = call_ns;
        open.text = (hit.text, hit.text_len);
        self.start(open);
    }

    /// sqlx is done with a statement: it read the answer whole, or its future was dropped.
    fn on_end(&mut self, hit: &CallHit, key: (u32, u64), sink: &mut Sink<'_>) {
        let code = if self.notices.is_empty() { None } else { self.notices.remove(&key) };
        let find = |key| {
            self.open.find_least(key, |open| {
                (open.kind == Kind::Logged && account::tells(&hit.words, open.text))
                    .then(|| account::distance(&hit.words, open.start_ns))?
            })
        };
        // It may have begun before the place of the task's id was found.
        let Some(id) = find(key).or_else(|| find(task_key(hit.tgid, 0, hit.tid))) else {
            self.stats.unmatched_ends += 1;
            return;
        };
        let binds = self.binds.contains_key(&hit.tgid);
        let Some(open) = self.open.get(id) else { return };
        open.sqlstate = open.sqlstate.or(code);
        let rows = self.accounts.entry(hit.tgid).or_default().rows(&hit.words, open.text, open.start_ns);
        open.rows = open.rows.or(rows);
        let ending = match (open.sqlstate, open.answered) {
            (Some(_), _) => Ending::Failed,
            (None, false) if open.conn != 0 || binds => Ending::Cancelled,
            _ => Ending::Complete,
        };
        let end_ns = if open.answered { open.last_ns } else { hit.time_ns };
        self.finish(id, end_ns, ending, sink);
    }

    fn start(&mut self, open: Open) -> Option<OpId> {
        let (origin, begin) = (open.origin, if open.call_ns == 0 { open.start_ns } else { open.call_ns });
        let id = self.open.insert(open);
        if id.is_none() {
            self.stats.overflow += 1;
        } else if let Origin::Request(request) = origin {
            self.requests.began(request, begin);
        }
        id
    }

    /// An operation that the wire alone tells.
    pub(super) fn start_unseen(&mut self, open: Open) -> Option<OpId> {
        self.start(open)
    }

    /// Ends those of a task that were answered and of which nobody tells the end.
    pub fn settle(&mut self, key: (u32, u64), time_ns: u64, sink: &mut Sink<'_>) {
        while let Some(id) = self.open.find(key, |open| open.kind == Kind::OpenEnded && open.answered) {
            let end_ns = self.open.get(id).map_or(time_ns, |open| open.last_ns);
            self.finish(id, end_ns, Ending::Complete, sink);
        }
    }

    /// Tells an operation, once.
    pub(super) fn finish(&mut self, id: OpId, end_ns: u64, ending: Ending, sink: &mut Sink<'_>) {
        let Some(open) = self.open.remove(id) else { return };
        let link = if open.conn == 0 { None } else { self.links.get_mut(&open.conn) };
        let (mut addresses, mut namespace) = (None, None);
        let mut system = self.drivers.get(&open.key.0).map_or(System::Postgresql, |drivers| drivers.system);
        if let Some(link) = link {
            if link.speaks_postgres {
                system = System::Postgresql;
            }
            link.release(id, &open, ending);
            addresses = Some((link.local, link.remote));
            namespace = link.namespace.clone();
        } else if open.kind == Kind::Logged {
            self.stats.unbound += 1;
        }
        let (parent, parent_span) = match open.origin {
            Origin::Background => (Parent::Background, None),
            Origin::Unknown(why) => {
                self.stats.unknown_parents[why as usize] += 1;
                (Parent::Unknown, None)
            }
            Origin::Request(request) => match self.requests.known(request) {
                Known::UnderWay(decision) => (Parent::Request(request), decision.ids()),
                Known::Ended(decision) => (Parent::Linked(request), decision.ids()),
                Known::Forgotten => (Parent::Linked(request), None),
            },
        };
        let operation = Operation {
            statement: &open.statement,
            sight: open.sight,
            system,
            task: open.task,
            tid: open.tid,
            parent,
            parent_span,
            call_ns: open.call_ns,
            start_ns: open.start_ns,
            send_ns: open.send_ns,
            first_ns: open.first_ns,
            end_ns: end_ns.max(open.start_ns),
            rows: open.rows,
            ending,
            sqlstate: open.sqlstate,
            addresses,
            namespace: namespace.as_ref(),
        };
        if let Parent::Request(request) = parent {
            self.requests.ended(request, &operation);
            // Until now: the answer may have been read long ago, but the handler had it only now.
            self.requests.closed(request, end_ns);
        }
        sink(open.key.0, &operation);
    }

    fn put_mark(&mut self, key: (u32, u64), mark: Mark) {
        if self.marks.get_mut(key).is_none() {
            self.marks.insert(key, Marks::default());
        }
        let Some(marks) = self.marks.get_mut(key) else { return };
        // The oldest goes first: its future was dropped before it had a connection.
        if marks.list[MARKS - 1].is_some() {
            self.stats.unmatched_calls += 1;
        }
        marks.list.rotate_right(1);
        marks.list[0] = Some(mark);
    }

    /// When the newest call of the task that `is` it was made, 0 for none. A mark that was taken is gone; one that was
    /// passed over stays, for calls that run side by side.
    fn take_mark(&mut self, key: (u32, u64), is: impl Fn(&Mark) -> bool) -> u64 {
        let Some(marks) = self.marks.get_mut(key) else { return 0 };
        let found = marks.list.iter().position(|mark| mark.as_ref().is_some_and(&is));
        let Some(index) = found else { return 0 };
        let taken = marks.list[index].take();
        marks.list[index..].rotate_left(1);
        taken.map_or(0, |mark| mark.time_ns)
    }

    /// The connection on which this task has a transaction, where it is one.
    fn link_in_transaction(&self, tgid: u32, task: u64) -> Option<u64> {
        let mut links = self.links.iter().filter(|(_, link)| {
            link.tgid == tgid && task != 0 && link.transaction_task == task
        });
        let (conn, _) = links.next()?;
        links.next().is_none().then_some(*conn)
    }

    /// A statement whose text was sent before the daemon watched.
    pub(super) fn unknown(&mut self) -> Arc<Statement> {
        Arc::clone(&self.unknown)
    }
}

impl Mark {
    /// It was called with this text: its address and length are among the arguments. They stay the same on the way to
    /// the driver, however often the string that owns them is moved.
    fn names(&self, text: u64, len: u64) -> bool {
        self.words.contains(&text) && self.words.contains(&len)
    }
}

/// Whether a text begins like SQL: anything else is another argument, or memory that serves another purpose by now.
fn is_statement(text: &[u8]) -> bool {
    let start = text.iter().find(|byte| !byte.is_ascii_whitespace());
    start.is_some_and(|byte| byte.is_ascii_alphabetic() || b"(/-;".contains(byte))
        && !text[..text.len().min(64)].contains(&0)
}

fn new_open(
    hit: &CallHit,
    key: (u32, u64),
    statement: Arc<Statement>,
    kind: Kind,
    sight: Sight,
    origin: Origin,
) -> Open {
    Open {
        key,
        task: hit.task,
        tid: hit.tid,
        kind,
        statement,
        sight,
        text: (0, 0),
        call_ns: 0,
        start_ns: hit.time_ns,
        send_ns: 0,
        first_ns: 0,
        last_ns: 0,
        answered: false,
        rows: None,
        sqlstate: None,
        conn: 0,
        wire: None,
        origin,
    }
}
