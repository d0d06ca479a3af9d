//! Drains the ring buffer.
//!
//! Reads: the programs' ring. Yields: its entries, in order, as bytes. Costs: a `poll(2)` when it is empty; the programs
//! wake us only when a part of the ring is used, so that a busy server does not wake us per record. What waits below
//! that is taken when the pause ends.

use std::{os::fd::AsRawFd as _, time::Duration};

use aya::maps::{HashMap, MapData, RingBuf};
use rustok_obsd_ebpf::Capture;

use crate::probe::loader::{CaptureMaps, SocketWords};

/// What the programs are to do with a connection.
pub trait Verdicts: Send {
    /// Copy so much of it.
    fn copy(&mut self, conn: u64, capture: Capture);
    /// Forget its socket: the daemon follows it no more.
    fn forget(&mut self, sock: u64, conn: u64);
}

/// The programs' own maps.
struct KernelVerdicts {
    verdicts: HashMap<MapData, u64, u32>,
    sockets: HashMap<MapData, u64, SocketWords>,
}

impl Verdicts for KernelVerdicts {
    fn copy(&mut self, conn: u64, capture: Capture) {
        // A full LRU map evicts; an error leaves the connection on full copying, which is only dearer.
        let _ = self.verdicts.insert(conn, u32::from(capture as u8), 0);
    }

    fn forget(&mut self, sock: u64, conn: u64) {
        // The socket's memory may serve another connection by now.
        if self.sockets.get(&sock, 0).is_ok_and(|[known, ..]| known == conn) {
            let _ = self.sockets.remove(&sock);
        }
    }
}

/// Takes the ring out of the maps, and leaves the verdicts.
#[must_use]
pub fn split(maps: CaptureMaps) -> (Ring, Box<dyn Verdicts>) {
    let CaptureMaps { ring, verdicts, sockets } = maps;
    (Ring::new(ring), Box::new(KernelVerdicts { verdicts, sockets }))
}

/// Shortest pause between two looks at a ring that is not full enough to wake us: bounds how old a record gets.
const SHORTEST: Duration = Duration::from_millis(5);
/// Longest pause, on an idle host.
const LONGEST: Duration = Duration::from_millis(80);

/// Bytes between two looks at what the ring refused, see [`Ring::drain_part`].
const PART: usize = 24 << 10;

/// The reading end of the ring.
pub struct Ring {
    ring: RingBuf<MapData>,
    pause: Duration,
}

impl Ring {
    /// Takes the ring.
    #[must_use]
    pub const fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, pause: SHORTEST }
    }

    /// Hands at most `most` waiting entries to `take`. Returns how many there were.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < most {
            let Some(entry) = self.ring.next() else { break };
            take(&entry);
            taken += 1;
        }
        self.pause = if taken > 0 { SHORTEST } else { (self.pause * 2).min(LONGEST) };
        taken
    }

    /// Hands waiting entries to `take`, but so few that no gap is passed that arises meanwhile: a ring that refuses a
    /// record is full of others, to be read before the gap. The smallest ring has 64 KiB, the largest record not 17 KiB,
    /// and at most one of these comes on top of a part. Returns whether the ring is empty now.
    pub fn drain_part(&mut self, mut take: impl FnMut(&[u8])) -> bool {
        let (mut bytes, mut taken) = (0, false);
        let empty = loop {
            if bytes >= PART {
                break false;
            }
            let Some(entry) = self.ring.next() else { break true };
            take(&entry);
            // A header stands before each, and its length is rounded up.
            bytes += entry.len() + 15;
            taken = true;
        };
        self.pause = if taken { SHORTEST } else { (self.pause * 2).min(LONGEST) };
        empty
    }

    /// Waits until the programs wake us or the pause is over.
    pub fn wait(&self) {
        let mut fd = libc::pollfd { fd: self.ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = i32::try_from(self.pause.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd for the duration of the call. An error or a signal is a wake-up without entries.
        unsafe { libc::poll(&raw mut fd, 1, timeout) };
    }
}
