//! How often a peer may connect: who does so more often is turned away before anything is made for the connection.
//!
//! Reads: each new connection's peer, and the time. Yields: yes or no. Costs: one look-up by the peer a connection, some
//! bytes for each peer of the last seconds.
//!
//! All connections wait in one queue of the kernel, whosever they are. One user who opens and closes them in a loop keeps it
//! full, and the kernel then drops what a scraper sends, who tries again after a second. The sooner a connection of such
//! a user is turned away, the less often that happens: no task is made for it, no head is read, nothing is answered.

use super::peers::Peer;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Peers that are remembered; beyond them the bound of open connections has to do.
const REMEMBERED: usize = 4096;

/// Bounds of one peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Connections at once.
    pub(super) burst: u32,
    /// Then one in each such time.
    pub(super) every: Duration,
}

/// What each peer did lately.
#[derive(Debug)]
pub(super) struct Rates {
    rate: Rate,
    /// When each peer would have all of its burst again.
    peers: HashMap<Peer, Instant>,
}

impl Rates {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, peers: HashMap::new() }
    }

    /// Whether the peer may connect now.
    pub(super) fn admit(&mut self, peer: Peer, now: Instant) -> bool {
        let whole = self.rate.every.saturating_mul(self.rate.burst);
        if let Some(full) = self.peers.get_mut(&peer) {
            let next = (*full).max(now) + self.rate.every;
            if next.saturating_duration_since(now) > whole {
                return false;
            }
            *full = next;
            return true;
        }
        if self.peers.len() >= REMEMBERED {
            self.peers.retain(|_, full| *full > now);
        }
        if self.peers.len() < REMEMBERED {
            self.peers.insert(peer, now + self.rate.every);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 10, every: Duration::from_millis(100) };

    fn admitted(rates: &mut Rates, peer: Peer, now: Instant) -> usize {
        (0..100).filter(|_| rates.admit(peer, now)).count()
    }

    #[test]
    fn a_peer_has_its_burst_and_then_its_rate_whatever_others_do() {
        let (mut rates, start) = (Rates::new(RATE), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(admitted(&mut rates, Peer::User(1), start), 10);
        assert_eq!(admitted(&mut rates, Peer::User(2), start), 10);
        assert_eq!(admitted(&mut rates, Peer::User(1), at(99)), 0);
        assert_eq!(admitted(&mut rates, Peer::User(1), at(350)), 3);
        assert_eq!(admitted(&mut rates, Peer::User(1), at(60_000)), 10, "no more than the burst");
    }

    #[test]
    fn peers_are_forgotten_when_they_are_many() {
        let (mut rates, start) = (Rates::new(RATE), Instant::now());
        for user in 0..10_000 {
            assert!(rates.admit(Peer::User(user), start));
        }
        assert_eq!(rates.peers.len(), REMEMBERED);
        assert_eq!(admitted(&mut rates, Peer::User(0), start), 9, "who is remembered stays bounded");
        let later = start + Duration::from_secs(5);
        assert!(rates.admit(Peer::User(20_000), later));
        assert_eq!(rates.peers.len(), 1);
    }
}
