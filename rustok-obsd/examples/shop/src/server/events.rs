//! EventBus and circuit breaker, small, with RusToK's semantics.
//!
//! The bus is a `tokio::sync::broadcast` of 128: publishing never blocks, a slow receiver loses the oldest. The
//! breaker opens after 5 failures in a row, lets a probe through after 60 s, and closes after 2 successes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use uuid::Uuid;

/// What happened to which row.
#[derive(Clone, Debug)]
pub struct Event {
    /// Such as `node.created`.
    pub kind: &'static str,
    /// The row.
    pub id: Uuid,
}

/// Publishes to every subscriber. Cheap to clone.
#[derive(Clone)]
pub struct EventBus {
    sender: broadcast::Sender<Event>,
    counts: Arc<Counts>,
}

/// What the bus has done so far.
#[derive(Default)]
pub struct Counts {
    published: AtomicU64,
    processed: AtomicU64,
    dropped: AtomicU64,
}

impl EventBus {
    /// A bus with one subscriber, the indexer, on a task of its own.
    #[must_use]
    pub fn start() -> Self {
        let bus = Self { sender: broadcast::Sender::new(128), counts: Arc::default() };
        let (mut receiver, counts) = (bus.sender.subscribe(), Arc::clone(&bus.counts));
        tokio::spawn(async move {
            loop {
                match receiver.recv().await {
                    Ok(event) => {
                        tracing::debug!(kind = event.kind, id = %event.id, "indexed");
                        counts.processed.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        counts.dropped.fetch_add(missed, Ordering::Relaxed);
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        bus
    }

    /// Tells all subscribers.
    pub fn publish(&self, event: Event) {
        self.counts.published.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(event).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Published, processed, dropped.
    #[must_use]
    pub fn counts(&self) -> [u64; 3] {
        [&self.counts.published, &self.counts.processed, &self.counts.dropped]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

/// What a breaker does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Lets it through.
    Closed,
    /// Refuses it.
    Open,
    /// Lets it through, to see.
    HalfOpen,
}

/// A circuit breaker around one service.
pub struct Breaker(Mutex<Inner>);

struct Inner {
    state: State,
    /// Failures in a row when closed, successes in a row when half open.
    streak: u32,
    opened: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self(Mutex::new(Inner { state: State::Closed, streak: 0, opened: None }))
    }
}

impl Breaker {
    const FAILURES: u32 = 5;
    const SUCCESSES: u32 = 2;
    const TIMEOUT: Duration = Duration::from_secs(60);

    /// May a call be made now?
    pub fn admits(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        if inner.state == State::Open && inner.opened.is_none_or(|opened| now - opened >= Self::TIMEOUT) {
            (inner.state, inner.streak) = (State::HalfOpen, 0);
        }
        inner.state != State::Open
    }

    /// Notes how an admitted call went.
    pub fn note(&self, success: bool, now: Instant) {
        let mut inner = self.lock();
        match (inner.state, success) {
            (State::Closed, true) => inner.streak = 0,
            (State::Closed, false) if inner.streak + 1 < Self::FAILURES => inner.streak += 1,
            (State::HalfOpen, true) if inner.streak + 1 < Self::SUCCESSES => inner.streak += 1,
            (State::HalfOpen, true) => (inner.state, inner.streak) = (State::Closed, 0),
            (State::Closed | State::HalfOpen, false) => {
                (inner.state, inner.opened) = (State::Open, Some(now));
            }
            (State::Open, _) => {}
        }
    }

    /// The state as of the last call.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().state
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_the_breaker_and_two_successes_after_a_minute_close_it() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for success in [false, false, false, false, true, false, false, false, false] {
            breaker.note(success, start);
        }
        assert_eq!(breaker.state(), State::Closed);
        breaker.note(false, start);
        assert!(!breaker.admits(start + Duration::from_secs(59)));
        assert!(breaker.admits(start + Duration::from_secs(60)));
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.note(true, start);
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.note(true, start);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn a_failed_probe_opens_the_breaker_again() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        (0..5).for_each(|_| breaker.note(false, start));
        let later = start + Duration::from_secs(60);
        assert!(breaker.admits(later));
        breaker.note(false, later);
        assert!(!breaker.admits(later + Duration::from_secs(59)));
    }

    #[tokio::test]
    async fn every_published_event_is_processed_or_counted_as_dropped() {
        let bus = EventBus::start();
        for _ in 0..1000 {
            bus.publish(Event { kind: "node.created", id: Uuid::nil() });
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let [published, processed, dropped] = bus.counts();
        assert_eq!((published, processed + dropped), (1000, 1000));
        assert!(processed > 0 && dropped > 0, "{processed} processed, {dropped} dropped");
    }
}
