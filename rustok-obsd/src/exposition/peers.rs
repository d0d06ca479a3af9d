//! Who is connected, and who makes room when there is none.
//!
//! Reads: each connection's peer and what it is doing. Yields: a place for it, or none. Costs: one look through at most
//! [`Limits::connections`](super::server::Limits) entries per connection, a lock that nobody holds for longer.
//!
//! A peer is a user of this host (the kernel says whose a loopback connection is), else an address. Nobody can shut
//! others out: when all places are taken, a connection of who holds more than a fair share goes first; among those, one
//! that has not sent a request head yet before one that is idle, that before one that is answered, each time the oldest.
//! Some places are for peers on this host alone, so that no remote peer keeps a local Prometheus out.

use crate::contract::server::{ConnectionEnd, ServerMetrics};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Who a connection is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// A user of this host.
    User(u32),
    /// Somebody on this host: the kernel did not say who.
    Local,
    /// An address; of IPv6 the network (/64), which is one host's to choose from.
    Remote(IpAddr),
}

impl Peer {
    /// From both ends of a connection, as we see them; `owner` is asked for connections of this host alone.
    pub(super) fn of(peer: SocketAddr, local: SocketAddr, owner: impl FnOnce() -> Option<u32>) -> Self {
        let (from, to) = (peer.ip().to_canonical(), local.ip().to_canonical());
        // What comes from an address of ours was sent here: the kernel drops such packets of others as martians.
        if from.is_loopback() || from == to {
            return owner().map_or(Self::Local, Self::User);
        }
        Self::Remote(match from {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }

    pub(super) const fn is_local(self) -> bool {
        matches!(self, Self::User(_) | Self::Local)
    }
}

/// What a connection is doing, the first to make room first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// A request is answered, and the answer not sent whole.
    Answering,
    /// Between two requests.
    Idle,
    /// It has not sent a whole request head.
    Headless,
}

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// In all.
    pub(super) all: usize,
    /// Of these for peers on this host alone.
    pub(super) local: usize,
    /// Answers of one peer that are rendered or not read yet.
    pub(super) answers: usize,
}

/// Who holds no more than so many holds no more than a fair share.
const FAIR: usize = 4;

/// The open connections.
#[derive(Debug)]
pub(super) struct Connections {
    places: Places,
    metrics: Arc<ServerMetrics>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    /// Orders what happens; also the next id.
    now: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    peer: Peer,
    stage: Stage,
    /// When the stage began.
    since: u64,
    requests: u32,
    evicted: Arc<Notify>,
    answers: Arc<Semaphore>,
}

/// An open connection; its place is free when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    pub(super) peer: Peer,
    /// As many permits as answers of this peer may be under way.
    pub(super) answers: Arc<Semaphore>,
    evicted: Arc<Notify>,
    connections: Arc<Connections>,
}

/// A request of a connection that is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Connections {
    pub(super) fn new(places: Places, metrics: Arc<ServerMetrics>) -> Arc<Self> {
        Arc::new(Self { places, metrics, table: Mutex::default() })
    }

    /// A place for a peer; whose connection has to make room for it is told so. `None`: there is no place, and that is
    /// counted.
    pub(super) fn admit(self: &Arc<Self>, peer: Peer) -> Option<Arc<Connection>> {
        let mut table = self.lock();
        match table.room(peer, self.places) {
            Room::Free => {}
            Room::Of(at) => {
                let entry = table.entries.swap_remove(at);
                self.count(entry.peer, false);
                self.metrics.ended.add(
                    match entry.stage {
                        Stage::Headless => ConnectionEnd::EvictedHeadless,
                        Stage::Idle => ConnectionEnd::EvictedIdle,
                        Stage::Answering => ConnectionEnd::EvictedAnswering,
                    },
                    1,
                );
                entry.evicted.notify_one();
            }
            Room::None => {
                self.metrics.ended.add(ConnectionEnd::Refused, 1);
                return None;
            }
        }
        let id = table.tick();
        let kept = table.entries.iter().find(|entry| entry.peer == peer).map(|entry| Arc::clone(&entry.answers));
        let answers = kept.unwrap_or_else(|| Arc::new(Semaphore::new(self.places.answers)));
        let evicted = Arc::new(Notify::new());
        table.entries.push(Entry {
            id,
            peer,
            stage: Stage::Headless,
            since: id,
            requests: 0,
            evicted: Arc::clone(&evicted),
            answers: Arc::clone(&answers),
        });
        self.count(peer, true);
        Some(Arc::new(Connection { id, peer, answers, evicted, connections: Arc::clone(self) }))
    }

    fn count(&self, peer: Peer, more: bool) {
        let open = &self.metrics.open[usize::from(!peer.is_local())];
        if more {
            open.fetch_add(1, Ordering::Relaxed)
        } else {
            open.fetch_sub(1, Ordering::Relaxed)
        };
    }

    /// Valid after a panic of its holder too: each change is one push or one store.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a newcomer goes.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// This entry makes room.
    Of(usize),
    None,
}

impl Table {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn room(&self, newcomer: Peer, places: Places) -> Room {
        let remote = self.entries.iter().filter(|entry| !entry.peer.is_local()).count();
        let crowded = !newcomer.is_local() && remote >= places.all.saturating_sub(places.local);
        if !crowded && self.entries.len() < places.all {
            return Room::Free;
        }
        // Remote peers that fill their places make room among themselves.
        let candidates = || self.entries.iter().enumerate().filter(|(_, entry)| !crowded || !entry.peer.is_local());
        let mut held = HashMap::from([(newcomer, 1usize)]);
        candidates().for_each(|(_, entry)| *held.entry(entry.peer).or_default() += 1);
        let most = if crowded { places.all.saturating_sub(places.local) } else { places.all };
        let share = (most / held.len()).max(FAIR);
        let greedy = |entry: &Entry| held[&entry.peer] > share;
        let first = candidates().max_by_key(|(_, entry)| (greedy(entry), entry.stage, Reverse(entry.since)));
        match first {
            Some((at, entry)) if entry.stage > Stage::Answering || greedy(entry) => Room::Of(at),
            _ => Room::None,
        }
    }

    fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }
}

impl Connection {
    /// A request is answered until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        let mut table = self.connections.lock();
        let since = table.tick();
        if let Some(entry) = table.entry(self.id) {
            entry.requests += 1;
            (entry.stage, entry.since) = (Stage::Answering, since);
        }
        Busy(Arc::clone(self))
    }

    /// Whether it has not sent a whole request head yet.
    pub(super) fn is_headless(&self) -> bool {
        self.connections.lock().entry(self.id).is_some_and(|entry| entry.stage == Stage::Headless)
    }

    /// Ends when this connection has to make room.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Busy {
    pub(super) fn connection(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut table = self.0.connections.lock();
        let since = table.tick();
        if let Some(entry) = table.entry(self.0.id) {
            entry.requests = entry.requests.saturating_sub(1);
            if entry.requests == 0 {
                (entry.stage, entry.since) = (Stage::Idle, since);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut table = self.connections.lock();
        if let Some(at) = table.entries.iter().position(|entry| entry.id == self.id) {
            table.entries.swap_remove(at);
            self.connections.count(self.peer, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places = Places { all: 64, local: 16, answers: 4 };
    const PROMETHEUS: Peer = Peer::User(999);
    const OTHER: Peer = Peer::User(1000);

    fn remote(last: u8) -> Peer {
        Peer::Remote(IpAddr::from([192, 0, 2, last]))
    }

    fn connections() -> (Arc<Connections>, Arc<ServerMetrics>) {
        let metrics = Arc::new(ServerMetrics::default());
        (Connections::new(PLACES, Arc::clone(&metrics)), metrics)
    }

    /// Whether its place was given to another.
    fn is_gone(connection: &Connection) -> bool {
        connection.connections.lock().entry(connection.id).is_none()
    }

    #[test]
    fn a_peer_is_a_user_a_host_or_a_network() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let peer = |from: &str, to: &str| Peer::of(address(from), address(to), || Some(7));
        assert_eq!(peer("127.0.0.9:1", "127.0.0.1:2"), Peer::User(7));
        assert_eq!(peer("[::1]:1", "[::1]:2"), Peer::User(7));
        assert_eq!(peer("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:2"), Peer::User(7));
        assert_eq!(peer("192.0.2.7:1", "192.0.2.7:2"), Peer::User(7));
        assert_eq!(Peer::of(address("[::1]:1"), address("[::1]:2"), || None), Peer::Local);
        assert_eq!(peer("192.0.2.7:1", "192.0.2.8:2"), remote(7));
        assert_eq!(peer("[::ffff:192.0.2.7]:1", "[::ffff:192.0.2.8]:2"), remote(7));
        let network = Peer::Remote("2001:db8:0:1::".parse().unwrap());
        assert_eq!(peer("[2001:db8:0:1:2:3:4:5]:1", "[2001:db8::1]:2"), network);
    }

    #[test]
    fn who_holds_most_makes_room_with_the_oldest_that_has_sent_no_head() {
        let (connections, metrics) = connections();
        let ours = connections.admit(PROMETHEUS).unwrap();
        let answered = connections.admit(OTHER).unwrap();
        let busy = answered.busy();
        let theirs: Vec<_> = (0..300).map(|_| connections.admit(OTHER).unwrap()).collect();
        // 64 places: ours, the one that is answered, and the newest 62.
        assert!(!is_gone(&ours) && !is_gone(&answered));
        assert!(theirs[..238].iter().all(|connection| is_gone(connection)));
        assert!(theirs[238..].iter().all(|connection| !is_gone(connection)));
        assert_eq!(metrics.ended.get(ConnectionEnd::EvictedHeadless), 238);
        assert_eq!(metrics.open[0].load(Ordering::Relaxed), 64);
        drop((ours, answered, theirs));
        assert_eq!(metrics.open[0].load(Ordering::Relaxed), 1, "a request that is answered holds its connection");
        drop(busy);
        assert_eq!(metrics.open[0].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn headless_go_before_idle_and_idle_before_answering() {
        let (connections, metrics) = connections();
        let mut held: Vec<_> = (0..64).map(|_| connections.admit(OTHER).unwrap()).collect();
        let mut busy: Vec<_> = held[..63].iter().map(Connection::busy).collect();
        drop(busy.pop());
        let last = |held: &mut Vec<_>| held.push(connections.admit(OTHER).unwrap());
        last(&mut held);
        assert!(is_gone(&held[63]) && !is_gone(&held[62]), "the headless one");
        // The newcomer has sent its head.
        busy.push(held[64].busy());
        last(&mut held);
        assert!(is_gone(&held[62]), "the idle one");
        busy.push(held[65].busy());
        last(&mut held);
        assert!(is_gone(&held[0]) && !is_gone(&held[1]), "the answer that began first");
        let ended = [ConnectionEnd::EvictedHeadless, ConnectionEnd::EvictedIdle, ConnectionEnd::EvictedAnswering];
        assert_eq!(ended.map(|end| metrics.ended.get(end)), [1; 3]);
    }

    #[test]
    fn remote_peers_never_take_the_places_of_this_host() {
        let (connections, _) = connections();
        let remote: Vec<_> = (0..200).map(|last| connections.admit(remote(last)).unwrap()).collect();
        assert_eq!(remote.iter().filter(|connection| !is_gone(connection)).count(), 48);
        let local: Vec<_> = (0..16).map(|_| connections.admit(PROMETHEUS).unwrap()).collect();
        assert!(local.iter().all(|connection| !is_gone(connection)));
        assert_eq!(remote.iter().filter(|connection| !is_gone(connection)).count(), 48);
    }

    #[test]
    fn who_reads_no_answers_gives_way_to_others_and_one_within_its_share_does_not() {
        let (connections, metrics) = connections();
        let slow: Vec<_> = (0..64).map(|_| connections.admit(OTHER).unwrap()).collect();
        let _busy: Vec<_> = slow.iter().map(Connection::busy).collect();
        let ours = connections.admit(PROMETHEUS).unwrap();
        assert!(is_gone(&slow[0]));
        let _asks = ours.busy();
        let more: Vec<_> = (0..100).map(|_| connections.admit(OTHER).unwrap()).collect();
        let _busy: Vec<_> = more.iter().map(Connection::busy).collect();
        assert!(!is_gone(&ours));
        // Everybody within the share and answering: there is no place for one more.
        let (crowd, metrics_of_crowd) = self::connections();
        let all: Vec<_> = (0..64).map(|user| crowd.admit(Peer::User(user / 4)).unwrap()).collect();
        let _busy: Vec<_> = all.iter().map(Connection::busy).collect();
        assert!(crowd.admit(PROMETHEUS).is_none());
        assert_eq!(metrics_of_crowd.ended.get(ConnectionEnd::Refused), 1);
        assert_eq!(metrics.ended.get(ConnectionEnd::Refused), 0);
    }

    #[test]
    fn answers_are_counted_per_peer() {
        let (connections, _) = connections();
        let [one, two, other] = [OTHER, OTHER, PROMETHEUS].map(|peer| connections.admit(peer).unwrap());
        let _held: Vec<_> = (0..4).map(|_| Arc::clone(&one.answers).try_acquire_owned().unwrap()).collect();
        assert!(two.answers.try_acquire().is_err() && other.answers.try_acquire().is_ok());
    }
}
