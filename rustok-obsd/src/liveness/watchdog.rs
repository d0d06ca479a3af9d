//! The thread that watches the others. It depends on none of them: no runtime, no lock that is held while work is done, and
//! it does not log, since the log may be what hangs.
//!
//! Reads: the heartbeats. Yields: `WATCHDOG=1` while all threads are within their bounds; the end of the process where one
//! is not, and where the end takes too long. Costs: a wake-up every two seconds.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::{Fault, Heartbeats, Notify, end, exit_after};
use crate::cli::exit;

/// Between two looks.
pub const TICK: Duration = Duration::from_secs(2);

/// The running watchdog; it ends with the process.
#[derive(Clone)]
pub struct Watchdog {
    beats: Heartbeats,
    end: SyncSender<Duration>,
    notify: Notify,
}

impl Watchdog {
    /// Starts it: from now on a fault of one of `beats` ends the process with [`exit::BROKEN`].
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(beats: &Heartbeats, notify: Notify) -> io::Result<Self> {
        beats.on_fault(|fault| end(fault.to_string(), exit::BROKEN));
        let (end, ending) = sync_channel(1);
        let watch = Watch::new(beats.clone(), notify);
        thread::Builder::new().name("watchdog".into()).spawn(move || watch.run(&ending))?;
        Ok(Self { beats: beats.clone(), end, notify })
    }

    /// The daemon serves.
    pub fn ready(&self, status: &str) {
        self.notify.ready(status);
    }

    /// The daemon was asked to end: after `within` it does, whatever hangs.
    pub fn stopping(&self, within: Duration) {
        self.beats.stopping();
        self.notify.stopping();
        // Asked twice, the first time counts.
        let _ = self.end.try_send(within);
    }
}

/// The watchdog's rounds.
struct Watch {
    beats: Heartbeats,
    notify: Notify,
    tick: Duration,
    /// Which thread was late at the last round.
    late: Option<String>,
}

impl Watch {
    fn new(beats: Heartbeats, notify: Notify) -> Self {
        // The service manager recommends half of its bound at most.
        let tick = notify.watchdog.map_or(TICK, |bound| (bound / 3).min(TICK)).max(Duration::from_millis(50));
        Self { beats, notify, tick, late: None }
    }

    fn run(mut self, ending: &Receiver<Duration>) {
        let mut last = Instant::now();
        loop {
            match ending.recv_timeout(self.tick) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(within) => return self.end(within),
                // The daemon did not start.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if let Some(fault) = self.round(now.duration_since(last)) {
                end(fault.to_string(), exit::BROKEN);
            }
            last = now;
        }
    }

    /// One look, `elapsed` after the last. Of a round that took long (the process was stopped, the machine suspended or
    /// overloaded) only two ticks count: in the rest of the time the other threads could not run either.
    fn round(&mut self, elapsed: Duration) -> Option<Fault> {
        let fault = self.beats.look(elapsed.min(2 * self.tick));
        if fault.is_none() {
            let late = self.beats.ready().err();
            let news = self.late != late;
            self.notify.alive(news.then(|| late.as_deref().unwrap_or("all threads report")));
            self.late = late;
        }
        fault
    }

    fn end(&self, within: Duration) {
        thread::sleep(within);
        let names = self.beats.names().join(", ");
        exit_after(
            format!(
                "the end took more than {within:?} (threads still there: {names}); the kernel detaches what is left"
            ),
            exit::OK,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_took_an_hour_counts_as_two_and_the_thread_that_stands_still_is_named_after_its_bound() {
        let beats = Heartbeats::default();
        let beat = beats.register("still", Duration::from_secs(15));
        let mut watch = Watch::new(beats.clone(), Notify { watchdog: None });
        assert_eq!(watch.tick, TICK);
        assert_eq!(watch.round(TICK), None);
        // A suspended machine, thrice.
        for _ in 0..3 {
            assert_eq!(watch.round(Duration::from_secs(3600)), None);
        }
        assert_eq!(watch.late.as_deref(), Some("thread still has been silent for 12 s, its bound is 15 s"));
        beat.alive();
        assert_eq!(watch.round(TICK), None);
        assert_eq!(watch.late, None);
        let rounds = (1..100).find(|_| watch.round(TICK).is_some());
        assert_eq!(rounds, Some(8), "16 s");
        let Some(Fault::Hung { name, silent, bound }) = watch.round(TICK) else { panic!("it hangs") };
        assert_eq!((name, silent, bound), ("still", Duration::from_secs(18), Duration::from_secs(15)));
        beat.done();
    }

    #[test]
    fn the_service_managers_bound_is_kept_thrice_over() {
        let watch = |watchdog| Watch::new(Heartbeats::default(), Notify { watchdog }).tick;
        assert_eq!(watch(Some(Duration::from_secs(3))), Duration::from_secs(1));
        assert_eq!(watch(Some(Duration::from_secs(60))), TICK);
    }
}
