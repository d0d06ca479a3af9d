//! From calls and sockets to operations: which call, which bytes and which answer are one.
//!
//! Reads: calls of the database libraries ([`Tracker::on_call`]) and, in `sockets.rs`, the traffic of connections. Yields:
//! one [`Operation`] for each statement. Costs: a few look-ups by integers an event, no allocation once warm.
//!
//! One rule says which source gives what:
//! * Where sqlx' functions are observed, each of its calls is one operation, exactly; text, task, begin and, by the drop of
//!   its logger, the end come from there. What the task then sends belongs to its newest call that has sent nothing, unless
//!   a newer one holds the connection; in clear text, to its call with the same text.
//! * The connection's bytes give the times of sending, of the first and of the last byte of the answer. In clear text they
//!   also give rows and errors, else the driver's functions do.
//! * Bytes in clear text that no call explains are operations by themselves.
//! * Encrypted bytes that no call explains are round trips of unknown content where nothing of the driver is observed;
//!   elsewhere they are none, for the driver's own traffic (pings, start-up) is not called a query.
//! * An operation whose end was not seen is told as Incomplete when its connection serves another task, or after
//!   ten minutes of silence where it holds none; one that holds a connection ends with it at the latest.

use std::hash::Hasher as _;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};
use rustok_obsd_ebpf::{CallHit, IO_UNREADABLE, Point};

use super::account::{self, AccountLayout};
use super::aging::Aging;
use super::marks::{Mark, Marks};
use super::notice::error_code;
use super::open::{Kind, OpId, Open, OpenOperations, task_key};
use super::requests::{Known, Requests};
use super::sockets::{Change, Link};
use super::tasks::{Origin, Tasks};
use super::texts::Texts;
use super::transactions::is_begun;
use super::{Ending, Operation, Parent, Sight, System};
use crate::budget::Meter;
use crate::statement::{Dialect, Knowledge, Statement, StatementCache};

/// Tasks whose last error is remembered at least.
const NOTICED: usize = 1024;
/// A call of the mapper that waited longer for a connection was given up: pools wait 30 s unless told otherwise.
const LONGEST_WAIT_NS: u64 = 600_000_000_000;
/// An operation that holds no connection and of which nothing was heard for so long has lost its end.
const LONGEST_SILENCE_NS: u64 = 600_000_000_000;
/// The same where so many are under way that ends must have been lost.
const CROWDED: usize = 16 * 1024;
const CROWDED_SILENCE_NS: u64 = 60_000_000_000;
/// A request of which nothing was heard for so long has ended unseen.
const LONGEST_REQUEST_NS: u64 = 3_600_000_000_000;

/// Takes each operation that ended.
pub type Sink<'a> = dyn FnMut(u32, &Operation<'_>) + 'a;

/// What is known of a process that matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drivers {
    /// Calls that begin operations are observed, with their texts.
    pub calls: bool,
    /// The same, once it is known where their texts are.
    pub sought: bool,
    /// The ends of sqlx' statements are observed.
    pub ends: bool,
    /// The place of Tokio's task id is known.
    pub tasks: bool,
    /// Tokio is linked in, so that a thread tells nothing.
    pub runtime: bool,
    /// The database that sqlx was built for, where it is one.
    pub system: System,
    /// By which readings the texts of its calls are read: those of all databases that it has a driver for.
    pub dialect: Dialect,
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
    /// Operations whose end was not seen.
    pub lost_ends: u64,
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

/// A process that is observed.
#[derive(Debug, Default)]
struct Process {
    drivers: Drivers,
    /// The target that it was forked by, 0 where it is one itself.
    owner: u32,
    /// An operation of it was bound to a connection, so that one which is not has sent nothing.
    binds: bool,
    accounts: AccountLayout,
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
    pub(super) statements: Texts,
    /// Records were lost lately: what was not seen may have happened.
    pub lossy: bool,
    /// What changed for the gauges of connections, by connection; for the caller to drain.
    pub changes: Vec<(u64, Change)>,
    processes: FxHashMap<u32, Process>,
    pub(super) marks: Marks,
    /// The last error that each task read and that no operation took yet.
    notices: Aging<(u32, u64), [u8; 5]>,
    pub(super) begin: Arc<Statement>,
    commit: Arc<Statement>,
    pub(super) rollback: Arc<Statement>,
    pub(super) savepoint: Arc<Statement>,
    unknown: Arc<Statement>,
    pub(super) opaque: Arc<Statement>,
}

impl Default for Tracker {
    fn default() -> Self {
        let mut statements = StatementCache::default();
        let [begin, commit, rollback, savepoint] = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT _sqlx_savepoint"]
            .map(|sql| statements.get(sql.as_bytes(), false, Dialect::ANY));
        Self {
            tasks: Tasks::default(),
            requests: Requests::default(),
            stats: Stats::default(),
            open: OpenOperations::default(),
            links: FxHashMap::default(),
            statements: Texts::default(),
            lossy: false,
            changes: Vec::new(),
            processes: FxHashMap::default(),
            marks: Marks::default(),
            notices: Aging::new(NOTICED),
            begin,
            commit,
            rollback,
            savepoint,
            unknown: Arc::new(Statement::unknown()),
            opaque: Arc::new(Statement::opaque()),
        }
    }
}

impl Tracker {
    /// A process is observed, or what is observed of it changed.
    pub fn add_process(&mut self, tgid: u32, drivers: Drivers) {
        let process = self.processes.entry(tgid).or_default();
        process.drivers = drivers;
    }

    /// A process is observed because a target forked it: what is kept of it counts for that.
    pub fn add_child(&mut self, tgid: u32, owner: u32) {
        let drivers = self.drivers(owner);
        let process = self.processes.entry(tgid).or_default();
        (process.drivers, process.owner) = (drivers, owner);
    }

    /// Whose budget a process draws on.
    #[must_use]
    pub fn owner(&self, tgid: u32) -> u32 {
        self.processes.get(&tgid).map_or(tgid, |process| if process.owner == 0 { tgid } else { process.owner })
    }

    /// What a target has counts for this user, who is not trusted.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        self.statements.join(owner, user);
        self.open.join(owner, user);
        self.marks.join(owner, user);
        self.tasks.join(owner, user);
        self.requests.join(owner, user);
    }

    /// Figures of what is kept of targets.
    pub fn meters(&self) -> impl Iterator<Item = Arc<Meter>> {
        let Self { statements, open, marks, tasks, requests, .. } = self;
        [statements.meter(), open.meter(), marks.meter(), tasks.meter(), requests.meter()].into_iter()
    }

    /// What is known of a process.
    #[must_use]
    pub fn drivers(&self, tgid: u32) -> Drivers {
        self.processes.get(&tgid).map(|process| process.drivers).unwrap_or_default()
    }

    /// A process ended.
    pub fn remove_process(&mut self, tgid: u32, time_ns: u64, sink: &mut Sink<'_>) {
        for id in self.open.all(|_, open| open.key.0 == tgid) {
            self.finish(id, time_ns, Ending::Incomplete, sink);
        }
        self.tasks.forget(self.owner(tgid), tgid);
        self.stats.unmatched_calls += self.marks.forget(tgid);
        self.notices.retain(|key, _| key.0 != tgid);
        self.requests.forget(tgid);
        self.statements.forget(tgid);
        self.processes.remove(&tgid);
    }

    /// Ends what has lost its end and forgets calls that led nowhere. An operation that holds a connection stays: it ends
    /// when that serves another one, or closes.
    pub fn reap(&mut self, now_ns: u64, sink: &mut Sink<'_>) {
        self.stats.unmatched_calls += self.marks.reap(now_ns.saturating_sub(LONGEST_WAIT_NS));
        self.requests.reap(now_ns.saturating_sub(LONGEST_REQUEST_NS));
        let silence = if self.open.len() > CROWDED { CROWDED_SILENCE_NS } else { LONGEST_SILENCE_NS };
        let before_ns = now_ns.saturating_sub(silence);
        let links = &self.links;
        let silent = self.open.all(|id, open| {
            let heard = open.start_ns.max(open.send_ns).max(open.last_ns);
            heard < before_ns && links.get(&open.conn).is_none_or(|link| !link.holds(id))
        });
        for id in silent {
            self.lose(id, now_ns, sink);
        }
        self.statements.sweep();
        self.open.shrink();
        self.tasks.shrink();
    }

    /// Ends an operation whose end was not seen.
    pub(super) fn lose(&mut self, id: OpId, time_ns: u64, sink: &mut Sink<'_>) {
        let Some(open) = self.open.get(id) else { return };
        let end_ns = if open.answered { open.last_ns } else { time_ns };
        self.stats.lost_ends += 1;
        self.finish(id, end_ns, Ending::Incomplete, sink);
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
                let call_ns = self.called(key, hit, text);
                let kind = if self.drivers(hit.tgid).ends { Kind::Logged } else { Kind::OpenEnded };
                self.on_statement(hit, text, call_ns, kind, Sight::Sqlx, origin, sink);
            }
            p if p == Point::Statement as u8 => {
                let call_ns = self.marks.take(key, |mark| !mark.begin && mark.names(hit.text, hit.text_len));
                self.on_statement(hit, text, call_ns, Kind::OpenEnded, Sight::Sqlx, origin, sink);
            }
            p if p == Point::QueryEnd as u8 => self.on_end(hit, key, sink),
            p if p == Point::Notice as u8 => {
                if let Some(code) = error_code(text) {
                    self.notices.insert(key, code);
                }
            }
            p if p == Point::Begin as u8 => self.on_begin(hit, key, origin, sink),
            p if p == Point::Commit as u8 => {
                self.begin_call(key, hit.time_ns, sink);
                // It can fail, and its error is told behind its bytes.
                self.start(Open::new(
                    asker(hit),
                    hit.time_ns,
                    Arc::clone(&self.commit),
                    Kind::OpenEnded,
                    Sight::Sqlx,
                    origin,
                ));
            }
            p if p == Point::Rollback as u8 => {
                self.begin_call(key, hit.time_ns, sink);
                self.on_rollback(hit, key, origin, sink);
            }
            p if p == Point::Orm as u8 || p == Point::OrmBegin as u8 => {
                // Other words of the statement may look like those of a text.
                let hash = is_statement(text).then(|| hash(text));
                let mark = Mark { time_ns: hit.time_ns, begin: p == Point::OrmBegin as u8, hash, words: hit.words };
                self.stats.unmatched_calls += self.marks.put(self.owner(hit.tgid), key, mark);
            }
            _ => self.stats.layout_doubts += 1,
        }
    }

    /// When the mapper was called with this statement, 0 where that is not known.
    fn called(&mut self, key: (u32, u64), hit: &CallHit, text: &[u8]) -> u64 {
        let exact = self.marks.take(key, |mark| !mark.begin && mark.names(hit.text, hit.text_len));
        if exact != 0 || self.marks.is_empty() || identity(hit) == (hit.text, hit.text_len) {
            return exact;
        }
        // sea-orm 2 has sqlx copy the text. Where it did not come with the call, none of several calls with a text of this
        // length is known to be it.
        let copied = hash(text);
        match self.marks.take(key, |mark| mark.hash == Some(copied)) {
            0 => self
                .marks
                .take_only(key, |mark| !mark.begin && mark.hash.is_none() && mark.words.contains(&hit.text_len)),
            time_ns => time_ns,
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
        let statement = if hit.flags & IO_UNREADABLE != 0 || !is_statement(text) {
            self.stats.layout_doubts += 1;
            Arc::clone(&self.unknown)
        } else {
            let (owner, dialect) = (self.owner(hit.tgid), self.drivers(hit.tgid).dialect);
            self.statements.get(owner, text, hit.text_len > text.len() as u64, dialect)
        };
        self.stats.truncated_statements += u64::from(statement.knowledge == Knowledge::Truncated);
        // sqlx' driver of MySQL runs the BEGIN that was made for it as a statement like any other (sqlx-mysql,
        // transaction.rs); PostgreSQL's does not, and a BEGIN of its own has nothing to do with a later statement.
        if self.drivers(hit.tgid).system != System::Postgresql
            && let Some(id) = self.open.find(key, |open| is_begun(open) && open.statement == statement)
            && let Some(open) = self.open.get(id)
        {
            (open.kind, open.text) = (kind, identity(hit));
            return;
        }
        self.begin_call(key, hit.time_ns, sink);
        let mut open = Open::new(asker(hit), hit.time_ns, statement, kind, sight, origin);
        open.call_ns = call_ns;
        open.text = identity(hit);
        self.start(open);
    }

    /// A call begins: the task's earlier ones of which nobody tells the end and that were answered are over, and an error
    /// that none of them took is none of this one. In clear text the protocol tells the ends. A BEGIN of which no bytes
    /// were seen is over, too, or it would be taken for the asker of whatever its task sends next.
    pub(super) fn begin_call(&mut self, key: (u32, u64), time_ns: u64, sink: &mut Sink<'_>) {
        if !self.notices.is_empty() {
            self.notices.remove(key);
        }
        loop {
            let links = &self.links;
            let over = self.open.find(key, |open| {
                is_unseen(open) || is_settled(open) && links.get(&open.conn).is_none_or(Link::is_encrypted)
            });
            let Some(id) = over else { return };
            self.end_settled(id, time_ns, sink);
        }
    }

    /// Ends what is over although nobody says so.
    fn end_settled(&mut self, id: OpId, time_ns: u64, sink: &mut Sink<'_>) {
        let Some(open) = self.open.get(id) else { return };
        let (seen, end_ns, tgid) = (!is_unseen(open), open.last_ns, open.key.0);
        if seen {
            self.finish(id, end_ns, Ending::Complete, sink);
        } else if self.processes.get(&tgid).is_some_and(|process| process.binds) {
            self.lose(id, time_ns, sink);
        } else {
            // Nothing of the process' connections is seen at all.
            self.finish(id, time_ns, Ending::Complete, sink);
        }
    }

    /// sqlx is done with a statement: it read the answer whole, or its future was dropped.
    fn on_end(&mut self, hit: &CallHit, key: (u32, u64), sink: &mut Sink<'_>) {
        let code = if self.notices.is_empty() { None } else { self.notices.remove(key) };
        let rank = |open: &Open| {
            (open.kind == Kind::Logged && account::tells(&hit.words, open.text))
                .then(|| account::distance(&hit.words, open.start_ns))?
        };
        let mut found = self.open.find_least(key, rank);
        if found.is_none() {
            // Where tasks are not known, or were not when it began, it may end on another thread than it began on.
            found = self.open.least_without_task(|open| if open.key.0 == hit.tgid { rank(open) } else { None });
        }
        let Some(id) = found else {
            self.stats.unmatched_ends += 1;
            return;
        };
        let process = self.processes.entry(hit.tgid).or_default();
        let Some(open) = self.open.get(id) else { return };
        open.sqlstate = open.sqlstate.or(code);
        let rows = process.accounts.rows(&hit.words, open.text, open.start_ns);
        open.rows = open.rows.or(rows);
        let watched = open.conn != 0 || open.send_ns != 0 || process.binds;
        let ending = if open.sqlstate.is_some() {
            Ending::Failed
        } else if open.broken || (!open.answered && watched && self.lossy) {
            Ending::Incomplete
        } else if !open.answered && watched {
            Ending::Cancelled
        } else {
            Ending::Complete
        };
        let end_ns = if open.answered && !open.broken { open.last_ns } else { hit.time_ns };
        self.finish(id, end_ns, ending, sink);
    }

    pub(super) fn start(&mut self, open: Open) -> Option<OpId> {
        let (origin, begin) = (open.origin, if open.call_ns == 0 { open.start_ns } else { open.call_ns });
        let id = self.open.insert(self.owner(open.key.0), open);
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

    /// Ends those of a task of which nobody tells the end, for its request ends.
    pub fn settle(&mut self, key: (u32, u64), time_ns: u64, sink: &mut Sink<'_>) {
        while let Some(id) = self.open.find(key, |open| is_settled(open) || is_unseen(open)) {
            self.end_settled(id, time_ns, sink);
        }
    }

    /// An operation of the process was bound to a connection.
    pub(super) fn has_bound(&mut self, tgid: u32) {
        if let Some(process) = self.processes.get_mut(&tgid) {
            process.binds = true;
        }
    }

    /// Tells an operation, once.
    pub(super) fn finish(&mut self, id: OpId, end_ns: u64, ending: Ending, sink: &mut Sink<'_>) {
        let Some(open) = self.open.remove(id) else { return };
        let mut system = self.drivers(open.key.0).system;
        let link = if open.conn == 0 { None } else { self.links.get_mut(&open.conn) };
        let (mut addresses, mut namespace) = (None, None);
        if let Some(link) = link {
            if link.speaks_postgres {
                system = System::Postgresql;
            }
            link.release(id, &open, ending);
            addresses = Some(link.addresses());
            namespace = link.namespace.clone();
        } else if let Some(peer) = &open.peer {
            if peer.speaks_postgres {
                system = System::Postgresql;
            }
            addresses = Some(peer.addresses);
            namespace.clone_from(&peer.namespace);
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
        }
        sink(open.key.0, &operation);
        if open.conn != 0 {
            self.note_change(open.conn);
        }
    }

    /// The connection on which this task has a transaction, where it is one.
    pub(super) fn link_in_transaction(&self, key: (u32, u64)) -> Option<u64> {
        let mut links = self.links.iter().filter(|(_, link)| link.transaction == Some(key) && link.deferred.is_none());
        let (conn, _) = links.next()?;
        links.next().is_none().then_some(*conn)
    }

    /// A statement whose text was sent before the daemon watched.
    pub(super) fn unknown(&mut self) -> Arc<Statement> {
        Arc::clone(&self.unknown)
    }
}

fn hash(text: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(text);
    hasher.finish()
}

/// The words by which the driver's account of a statement is known: those of its text where it came by pointer.
pub(super) const fn identity(hit: &CallHit) -> (u64, u64) {
    if hit.words[0] == 0 && hit.words[1] == 0 { (hit.text, hit.text_len) } else { (hit.words[0], hit.words[1]) }
}

/// Process, task and thread of a call.
pub(super) const fn asker(hit: &CallHit) -> (u32, u64, u32) {
    (hit.tgid, hit.task, hit.tid)
}

/// Answered, and nobody will tell its end.
fn is_settled(open: &Open) -> bool {
    open.kind == Kind::OpenEnded && open.answered
}

/// A BEGIN whose bytes nobody saw: sqlx sends them at once.
fn is_unseen(open: &Open) -> bool {
    open.kind == Kind::Short && open.is_unsent()
}

/// Whether a text begins like SQL: anything else is another argument, or memory that serves another purpose by now.
fn is_statement(text: &[u8]) -> bool {
    let start = text.iter().find(|byte| !byte.is_ascii_whitespace());
    start.is_some_and(|byte| byte.is_ascii_alphabetic() || b"(/-;".contains(byte))
        && !text[..text.len().min(64)].contains(&0)
}
