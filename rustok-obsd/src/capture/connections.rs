//! The connections that are followed.
//!
//! Reads: announcements, closes, and the tasks that read. Yields: a connection by its id, and by the task that last read
//! a request on it. Costs: about 400 bytes a connection; bounded, the longest idle ones go first.

use std::{net::SocketAddr, sync::Arc};

use rustc_hash::FxHashMap;
use rustok_obsd_ebpf::{OPEN_MID_STREAM, Role, SocketIo, SocketOpen};

use super::address;
use crate::{
    budget::{Budget, Meter, Store, shrink},
    database::sockets::Link,
    exchange::{HttpConnection, RoutesExact, Side, Verdict},
};

/// A followed connection.
pub struct Connection {
    /// Its id.
    pub conn: u64,
    /// Its first bytes were not seen: it is older than the daemon, or their records were lost.
    pub mid_stream: bool,
    /// Process that it was announced for.
    pub tgid: u32,
    /// The target's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Pairing of its requests and responses.
    pub http: HttpConnection,
    /// The recorder counts it as an open HTTP connection.
    pub counted: bool,
    /// The programs were told to copy no payload.
    pub muted: bool,
    sock: u64,
    /// Where the next record of each direction begins: sent, received.
    next: [u64; 2],
    /// Process and task that last read from it, 0 for none. A forked child may read what counts for its parent.
    reader: (u32, u64),
    /// Thread without a task that last read from it, 0 for none.
    thread: u32,
    last_ns: u64,
}

impl Connection {
    /// Bytes of this direction that were lost just before the record.
    pub fn lost_before(&mut self, io: &SocketIo, received: bool) -> u64 {
        let next = &mut self.next[usize::from(received)];
        let lost = io.offset.saturating_sub(*next);
        *next = io.offset.saturating_add(u64::try_from(io.result).unwrap_or(0));
        self.mid_stream |= lost > 0 && self.http.verdict() == Verdict::Undecided;
        self.last_ns = io.time_ns;
        lost
    }

    /// The kernel's address of its socket.
    #[must_use]
    pub const fn sock(&self) -> u64 {
        self.sock
    }

    /// Whether this announcement is of the same connection, whose beginning the programs do not know any more.
    #[must_use]
    pub fn is_resumed(&self, open: &SocketOpen) -> bool {
        open.flags & OPEN_MID_STREAM != 0 && self.sock == open.sock && address::of(open) == (self.local, self.remote)
    }

    /// The task has not read from it just before.
    #[must_use]
    pub const fn is_new_reader(&self, tgid: u32, task: u64) -> bool {
        task != 0 && (task != self.reader.1 || tgid != self.reader.0)
    }

    /// Process and task that last read from it, where there is one.
    #[must_use]
    pub fn reader(&self) -> Option<(u32, u64)> {
        Some(self.reader).filter(|(_, task)| *task != 0)
    }
}

/// All of them.
pub struct Connections {
    by_id: FxHashMap<u64, Connection>,
    by_sock: FxHashMap<u64, u64>,
    by_task: FxHashMap<(u32, u64), u64>,
    /// The connection that each thread read from last, for processes without tasks.
    by_thread: FxHashMap<(u32, u32), u64>,
    /// What threads without tasks show of each process.
    threads: FxHashMap<u32, Threads>,
    /// What each target has.
    budget: Budget,
}

/// Whether a process gives each request a thread of its own.
#[derive(Clone, Copy, Debug, Default)]
struct Threads {
    /// Answers that were sent by the thread that read the request, up to [`Threads::ENOUGH`].
    clean: u32,
    /// One thread served several requests at once, or several threads one.
    interleaved: bool,
}

impl Threads {
    /// So much evidence before any thread's work is taken for its request's.
    const ENOUGH: u32 = 64;
}

/// Bytes of a connection, with its places in the tables, and with what is known of one to a database.
const SIZE: usize = 2 * size_of::<(u64, Connection)>() + size_of::<Link>() + 96;

impl Connections {
    /// None yet, and soon about so many at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            by_id: FxHashMap::default(),
            by_sock: FxHashMap::default(),
            by_task: FxHashMap::default(),
            by_thread: FxHashMap::default(),
            threads: FxHashMap::default(),
            budget: Budget::with_limit(Store::Connections, most.saturating_mul(SIZE)),
        }
    }

    /// Figures of the budget.
    #[must_use]
    pub fn meter(&self) -> Arc<Meter> {
        self.budget.meter()
    }

    /// What the owner has counts for this user, who is not trusted.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        self.budget.join(owner, user);
    }

    /// The target that has most.
    #[must_use]
    pub fn busiest(&self) -> Option<u32> {
        self.budget.greatest()
    }

    /// Counts one that gave way.
    pub fn count_eviction(&self) {
        self.budget.evicted(1);
    }

    /// Gives the room of a wave back.
    pub fn shrink(&mut self) {
        shrink(&mut self.by_id);
        shrink(&mut self.by_sock);
        shrink(&mut self.by_task);
        shrink(&mut self.by_thread);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Begins to follow. Yields a connection that this one replaces: the kernel's memory of its socket serves again, so
    /// that it is gone although no close was seen.
    pub fn open(&mut self, open: &SocketOpen, routes_exact: RoutesExact) -> Option<Connection> {
        let (local, remote) = address::of(open);
        let side = match open.role {
            role if role == Role::Server as u8 => Some(Side::Server),
            role if role == Role::Client as u8 => Some(Side::Client),
            _ => None,
        };
        let connection = Connection {
            conn: open.conn,
            mid_stream: open.flags & OPEN_MID_STREAM != 0,
            tgid: open.tgid,
            local,
            remote,
            http: HttpConnection::new(side, open.flags & OPEN_MID_STREAM != 0, routes_exact),
            counted: false,
            muted: false,
            sock: open.sock,
            next: [0; 2],
            reader: (open.tgid, 0),
            thread: 0,
            last_ns: open.time_ns,
        };
        let gone = self.by_sock.insert(open.sock, open.conn).filter(|old| *old != open.conn);
        self.budget.resize(open.tgid, self.budget.held(open.tgid) + SIZE);
        let replaced = self.by_id.insert(open.conn, connection);
        if let Some(replaced) = &replaced {
            self.budget.release(replaced.tgid, SIZE);
        }
        let gone = gone.and_then(|old| self.by_id.remove(&old));
        if let Some(gone) = &gone {
            self.budget.release(gone.tgid, SIZE);
        }
        gone.or(replaced).inspect(|gone| self.forget_task(gone))
    }

    /// A connection by its id.
    pub fn get(&mut self, conn: u64) -> Option<&mut Connection> {
        self.by_id.get_mut(&conn)
    }

    /// A task read from the connection; the next route that it matches belongs there.
    pub fn read_by(&mut self, conn: u64, tgid: u32, task: u64) {
        let Some(connection) = self.by_id.get_mut(&conn) else { return };
        if !connection.is_new_reader(tgid, task) {
            return;
        }
        let before = std::mem::replace(&mut connection.reader, (tgid, task));
        if self.by_task.get(&before) == Some(&conn) {
            self.by_task.remove(&before);
        }
        self.by_task.insert((tgid, task), conn);
    }

    /// The server connection that a task serves.
    pub fn of_task(&mut self, tgid: u32, task: u64) -> Option<&mut Connection> {
        let conn = *self.by_task.get(&(tgid, task))?;
        self.by_id.get_mut(&conn)
    }

    /// A thread without a task read from the connection; what it does next is for that, if each thread serves one request
    /// at a time and each request has one thread.
    pub fn read_on(&mut self, conn: u64, tid: u32) {
        let Some(connection) = self.by_id.get_mut(&conn) else { return };
        let tgid = connection.tgid;
        let mut interleaved = connection.http.current().is_some_and(|request| request.tid != tid);
        let last = std::mem::replace(&mut connection.thread, tid);
        if last != tid && self.by_thread.get(&(tgid, last)) == Some(&conn) {
            self.by_thread.remove(&(tgid, last));
        }
        let before = self.by_thread.insert((tgid, tid), conn).filter(|before| *before != conn);
        interleaved |=
            before.and_then(|conn| self.by_id.get(&conn)).is_some_and(|other| other.http.current().is_some());
        if interleaved {
            self.interleave(tgid);
        }
    }

    /// A thread without a task sent on the connection while the request of the other thread was under way there.
    pub fn answered_on(&mut self, tgid: u32, asked: u32, tid: u32) {
        let threads = self.threads.entry(tgid).or_default();
        threads.interleaved |= asked != tid;
        threads.clean = threads.clean.saturating_add(1);
    }

    /// The process does not give each request a thread of its own.
    pub fn interleave(&mut self, tgid: u32) {
        self.threads.entry(tgid).or_default().interleaved = true;
    }

    /// The server connection that a thread serves, where its process has shown that it gives each request a thread.
    pub fn of_thread(&mut self, tgid: u32, tid: u32) -> Option<&mut Connection> {
        if self.threads.get(&tgid).is_none_or(|threads| threads.interleaved || threads.clean < Threads::ENOUGH) {
            return None;
        }
        let conn = *self.by_thread.get(&(tgid, tid))?;
        self.by_id.get_mut(&conn)
    }

    /// The process ended.
    pub fn forget_process(&mut self, tgid: u32) {
        self.by_thread.retain(|key, _| key.0 != tgid);
        self.threads.remove(&tgid);
    }

    /// Ends following.
    pub fn close(&mut self, conn: u64) -> Option<Connection> {
        let connection = self.by_id.remove(&conn)?;
        self.budget.release(connection.tgid, SIZE);
        if self.by_sock.get(&connection.sock) == Some(&conn) {
            self.by_sock.remove(&connection.sock);
        }
        self.forget_task(&connection);
        Some(connection)
    }

    fn forget_task(&mut self, connection: &Connection) {
        // The task or thread may serve another connection by now, whose entry stays.
        if self.by_task.get(&connection.reader).is_some_and(|conn| !self.by_id.contains_key(conn)) {
            self.by_task.remove(&connection.reader);
        }
        let key = (connection.tgid, connection.thread);
        if connection.thread != 0 && self.by_thread.get(&key).is_some_and(|conn| !self.by_id.contains_key(conn)) {
            self.by_thread.remove(&key);
        }
    }

    /// The connections of a process.
    pub fn of_process(&self, tgid: u32) -> Vec<u64> {
        self.by_id.iter().filter(|(_, connection)| connection.tgid == tgid).map(|(conn, _)| *conn).collect()
    }

    /// Each connection of a process.
    pub fn each_of_process(&mut self, tgid: u32) -> impl Iterator<Item = &mut Connection> {
        self.by_id.values_mut().filter(move |connection| connection.tgid == tgid)
    }

    /// The connections of a target that were idle longest, at most so many.
    #[must_use]
    pub fn oldest(&self, tgid: u32, most: usize) -> Vec<u64> {
        let of = self.by_id.iter().filter(|(_, connection)| connection.tgid == tgid);
        let mut ages: Vec<(u64, u64)> = of.map(|(conn, connection)| (connection.last_ns, *conn)).collect();
        let most = most.min(ages.len());
        if most > 0 && most < ages.len() {
            ages.select_nth_unstable(most - 1);
        }
        ages.truncate(most);
        ages.into_iter().map(|(_, conn)| conn).collect()
    }
}

#[cfg(test)]
mod tests {
    use rustok_obsd_ebpf::Kind;

    use super::*;

    fn open(conn: u64, sock: u64) -> SocketOpen {
        SocketOpen {
            kind: Kind::Open as u8,
            role: Role::Server as u8,
            family: 2,
            flags: 0,
            tgid: 7,
            conn,
            time_ns: conn,
            sock,
            local_addr: [0; 16],
            remote_addr: [0; 16],
            local_port: 80,
            remote_port: 81,
            netns: 0,
        }
    }

    #[test]
    fn a_socket_whose_memory_serves_again_replaces_the_connection_before() {
        let mut connections = Connections::new(100);
        assert!(connections.open(&open(1, 100), RoutesExact::NEVER).is_none());
        connections.read_by(1, 7, 55);
        assert!(
            connections.open(&open(2, 100), RoutesExact::NEVER).is_some(),
            "the first one is handed out to be ended"
        );
        assert_eq!(connections.len(), 1);
        assert!(connections.of_task(7, 55).is_none(), "its task points nowhere");
        assert!(connections.close(2).is_some() && connections.is_empty());
    }

    #[test]
    fn a_task_that_moves_to_another_connection_keeps_its_entry_when_the_first_closes() {
        let mut connections = Connections::new(100);
        connections.open(&open(1, 100), RoutesExact::NEVER);
        connections.open(&open(2, 200), RoutesExact::NEVER);
        connections.read_by(1, 7, 55);
        connections.read_by(2, 7, 55);
        connections.close(1);
        assert!(connections.of_task(7, 55).is_some());
        connections.close(2);
        assert!(connections.of_task(7, 55).is_none());
    }

    #[test]
    fn the_longest_idle_connections_are_the_ones_to_go() {
        let mut connections = Connections::new(100);
        for conn in 1..=10 {
            connections.open(&open(conn, conn * 100), RoutesExact::NEVER);
        }
        let mut oldest = connections.oldest(7, 3);
        oldest.sort_unstable();
        assert_eq!(oldest, [1, 2, 3]);
        assert_eq!(connections.oldest(7, 100).len(), 10);
        assert_eq!((connections.busiest(), connections.meter().used()), (Some(7), 10 * SIZE as u64));
        (1..=10).for_each(|conn| drop(connections.close(conn)));
        assert_eq!((connections.busiest(), connections.meter().used()), (None, 0));
    }
}
