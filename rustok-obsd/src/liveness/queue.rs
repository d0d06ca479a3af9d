//! A bounded queue between two threads, of which the sender never waits.
//!
//! Reads: items of two classes. Yields: them in order, and counts of those refused. Costs: its places up front; a few
//! atomics per item.
//!
//! - An *event* says that something changed. Places are kept for events alone; where even these are full, the event is
//!   refused, counted, and the receiver finds out ([`Receiver::overflowed`]): it then has to look at everything anew.
//! - A *sample* is one of many. Samples of all processes together have few places, those of one process a part of these, so
//!   that who floods the queue costs others neither events nor their samples.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender, TrySendError},
    },
    time::Duration,
};

/// What is lost with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something changed.
    Event,
    /// One of many, of this process.
    Sample(u32),
}

/// An item.
pub trait Classed {
    /// Its class.
    fn class(&self) -> Class;
}

/// How many items wait at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Events, at least.
    pub events: usize,
    /// Samples.
    pub samples: usize,
    /// Samples of one process, 255 at most.
    pub samples_of_one: u8,
}

/// Shares of samples are kept by pid modulo this; who meets another there shares with it.
const SHARES: usize = 256;

struct Shared {
    bounds: Bounds,
    samples: AtomicUsize,
    shares: [AtomicU8; SHARES],
    overflowed: AtomicBool,
    refused_events: AtomicU64,
    refused_samples: AtomicU64,
}

impl Shared {
    fn share(&self, process: u32) -> &AtomicU8 {
        &self.shares[process as usize % SHARES]
    }

    /// Takes a place for a sample. One thread only.
    fn admit(&self, process: u32) -> bool {
        let share = self.share(process);
        let room = share.load(Ordering::Relaxed) < self.bounds.samples_of_one
            && self.samples.load(Ordering::Relaxed) < self.bounds.samples;
        if room {
            share.fetch_add(1, Ordering::Relaxed);
            self.samples.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    fn release(&self, process: u32) {
        self.share(process).fetch_sub(1, Ordering::Relaxed);
        self.samples.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a queue refused.
#[derive(Clone)]
pub struct Counts(Arc<Shared>);

impl Counts {
    /// Events, of each of which the receiver found out.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.refused_events.load(Ordering::Relaxed)
    }

    /// Samples.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.0.refused_samples.load(Ordering::Relaxed)
    }
}

/// Puts items in. It belongs to one thread.
pub struct Sender<T> {
    queue: SyncSender<T>,
    shared: Arc<Shared>,
}

/// Takes items out.
pub struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    shared: Arc<Shared>,
}

/// A queue within `bounds`.
#[must_use]
pub fn queue<T: Classed>(bounds: Bounds) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::sync_channel(bounds.events + bounds.samples);
    let shared = Arc::new(Shared {
        bounds,
        samples: AtomicUsize::new(0),
        shares: [const { AtomicU8::new(0) }; SHARES],
        overflowed: AtomicBool::new(false),
        refused_events: AtomicU64::new(0),
        refused_samples: AtomicU64::new(0),
    });
    (Sender { queue: sender, shared: Arc::clone(&shared) }, Receiver { queue: receiver, shared })
}

impl<T: Classed> Sender<T> {
    /// Puts an item in, and never waits; false, and counted, where there is no place. `&mut`: shares have one writer.
    pub fn send(&mut self, item: T) -> bool {
        let class = item.class();
        let room = match class {
            Class::Event => true,
            Class::Sample(process) => self.shared.admit(process),
        };
        let sent = if room { self.queue.try_send(item) } else { Err(TrySendError::Full(item)) };
        match (sent, class) {
            (Ok(()), _) => return true,
            // The receiver goes only when the daemon ends.
            (Err(TrySendError::Disconnected(_)), _) => {}
            (Err(TrySendError::Full(_)), Class::Event) => {
                self.shared.refused_events.fetch_add(1, Ordering::Relaxed);
                self.shared.overflowed.store(true, Ordering::Release);
            }
            (Err(TrySendError::Full(_)), Class::Sample(process)) => {
                if room {
                    self.shared.release(process);
                }
                self.shared.refused_samples.fetch_add(1, Ordering::Relaxed);
            }
        }
        false
    }

    /// What it refused.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts(Arc::clone(&self.shared))
    }
}

impl<T: Classed> Receiver<T> {
    /// The next item.
    ///
    /// # Errors
    /// None came within `timeout`, or the sender is gone.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let item = self.queue.recv_timeout(timeout)?;
        if let Class::Sample(process) = item.class() {
            self.shared.release(process);
        }
        Ok(item)
    }

    /// Whether events were refused since the last call: what they would have said has to be found out by a look at
    /// everything, begun after this call.
    #[must_use = "the answer is given once"]
    pub fn overflowed(&self) -> bool {
        self.shared.overflowed.swap(false, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Item {
        Event(u32),
        Sample(u32),
    }

    impl Classed for Item {
        fn class(&self) -> Class {
            match self {
                Self::Event(_) => Class::Event,
                Self::Sample(process) => Class::Sample(*process),
            }
        }
    }

    const BOUNDS: Bounds = Bounds { events: 4, samples: 8, samples_of_one: 3 };

    fn next(receiver: &Receiver<Item>) -> Option<Item> {
        receiver.recv_timeout(Duration::ZERO).ok()
    }

    #[test]
    fn a_flood_of_samples_costs_neither_events_nor_the_samples_of_others() {
        let (mut sender, receiver) = queue(BOUNDS);
        let counts = sender.counts();
        assert_eq!((0..1000).filter(|_| sender.send(Item::Sample(1))).count(), 3);
        assert_eq!((0..1000).filter(|_| sender.send(Item::Sample(2))).count(), 3);
        assert_eq!((0..1000).filter(|_| sender.send(Item::Sample(3))).count(), 2, "eight in all");
        assert_eq!((counts.events(), counts.samples()), (0, 3000 - 8));
        assert!((0..4).all(|event| sender.send(Item::Event(event))));
        assert!(!receiver.overflowed());
        // A place is free again once its sample was taken.
        assert_eq!(next(&receiver), Some(Item::Sample(1)));
        assert!(!sender.send(Item::Sample(2)), "its share is used up");
        assert!(sender.send(Item::Sample(1)));
        let rest: Vec<_> = std::iter::from_fn(|| next(&receiver)).collect();
        assert_eq!(rest.iter().filter(|item| matches!(item, Item::Event(_))).count(), 4);
        assert_eq!(rest.len(), 12);
        assert_eq!((0..9).filter(|process| sender.send(Item::Sample(*process))).count(), 8, "all places are free");
    }

    #[test]
    fn an_event_that_is_refused_is_counted_and_makes_the_receiver_look_anew_once() {
        let (mut sender, receiver) = queue(BOUNDS);
        let sent = (0..100).filter(|event| sender.send(Item::Event(*event))).count();
        assert!((4..=12).contains(&sent), "{sent}");
        assert_eq!(sender.counts().events(), 100 - sent as u64);
        assert!(receiver.overflowed() && !receiver.overflowed());
        assert_eq!(next(&receiver), Some(Item::Event(0)), "in order");
        assert!(sender.send(Item::Event(100)) && !receiver.overflowed());
    }

    #[test]
    fn a_sender_whose_receiver_is_gone_never_waits() {
        let (mut sender, receiver) = queue(BOUNDS);
        drop(receiver);
        assert!((0..100).all(|event| !sender.send(Item::Event(event))));
        assert_eq!(sender.counts().events(), 0);
        let (sender, receiver) = queue::<Item>(BOUNDS);
        drop(sender);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Err(RecvTimeoutError::Disconnected));
    }
}
