//! The ring's reading end, shared by the thread and by scrapes.
//!
//! Reads: the ring and the programs' counters. Yields: events to the subscribers; the `rustok_obsd_host_events_*`
//! families. Costs: a lock and a few atomics a drain, then the subscribers' own time.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use aya::maps::{MapData, RingBuf};
use rustok_obsd_ebpf::host_event::HostKind;

use super::{Event, Subscriber};
use crate::{
    contract::{
        host_events::{EventKind, HOST_EVENTS, HOST_EVENTS_INCOMPLETE, HOST_EVENTS_LOST},
        own::Counters,
    },
    exposition::{Collect, Encoder},
    probe::HostCounts,
};

/// Where each kind of record is counted.
const KINDS: [(HostKind, EventKind); 6] = [
    (HostKind::Exec, EventKind::Exec),
    (HostKind::Exit, EventKind::Exit),
    (HostKind::Freed, EventKind::Freed),
    (HostKind::Oom, EventKind::Oom),
    (HostKind::CgroupMade, EventKind::CgroupMade),
    (HostKind::CgroupRemoved, EventKind::CgroupRemoved),
];

/// Takes events out of the ring and hands them to the subscribers.
pub struct EventSource {
    ring: Mutex<RingBuf<MapData>>,
    /// Most entries of a drain.
    most: usize,
    counts: HostCounts,
    subscribers: Vec<Arc<dyn Subscriber>>,
    told: Counters<EventKind>,
    lost: Counters<EventKind>,
    incomplete: Counters<EventKind>,
}

impl EventSource {
    /// Of a ring of so many bytes.
    #[must_use]
    pub fn new(
        ring: RingBuf<MapData>,
        ring_bytes: u32,
        counts: HostCounts,
        subscribers: Vec<Arc<dyn Subscriber>>,
    ) -> Self {
        Self {
            ring: Mutex::new(ring),
            most: ring_bytes as usize / SMALLEST,
            counts,
            subscribers,
            told: Counters::default(),
            lost: Counters::default(),
            incomplete: Counters::default(),
        }
    }

    /// Hands on everything that happened before the call, and returns how many events that were. What happens meanwhile
    /// may wait for the next time, so that a busy host does not hold the caller.
    pub fn drain(&self) -> usize {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        while taken < self.most
            && let Some(entry) = ring.next()
        {
            taken += 1;
            let Some(event) = Event::decode(&entry) else {
                self.lost.add(EventKind::Malformed, 1);
                continue;
            };
            self.told.add(event.kind(), 1);
            for subscriber in &self.subscribers {
                subscriber.event(&event);
            }
        }
        taken
    }

    /// Events of a kind that were handed on.
    #[must_use]
    pub fn told(&self, kind: EventKind) -> u64 {
        self.told.get(kind)
    }

    /// Events of a kind that were lost.
    #[must_use]
    pub fn lost(&self, kind: EventKind) -> u64 {
        self.take_counts();
        self.lost.get(kind)
    }

    /// Events of a kind that lack a field.
    #[must_use]
    pub fn incomplete(&self, kind: EventKind) -> u64 {
        self.take_counts();
        self.incomplete.get(kind)
    }

    /// A descriptor that becomes readable when the programs wake their reader.
    pub(super) fn wakes(&self) -> std::io::Result<OwnedFd> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).as_fd().try_clone_to_owned()
    }

    /// Takes over what the programs count.
    fn take_counts(&self) {
        for (from, to) in KINDS {
            self.lost.raise_to(to, self.counts.lost(from));
            self.incomplete.raise_to(to, self.counts.incomplete(from));
        }
    }
}

/// Bytes that the smallest record takes in the ring, with its header.
const SMALLEST: usize = size_of::<rustok_obsd_ebpf::host_event::OomVictim>() + 8;

impl Collect for EventSource {
    fn collect(&self, out: &mut Encoder<'_>) {
        self.take_counts();
        self.told.collect(&HOST_EVENTS, out);
        self.lost.collect(&HOST_EVENTS_LOST, out);
        self.incomplete.collect(&HOST_EVENTS_INCOMPLETE, out);
    }
}
