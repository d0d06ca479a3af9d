//! The HTTP recorder's series that nobody touched for long give way where room is wanted.
//!
//! Reads: the counts of all series, every five minutes. Yields: new [`Lists`] without those that stood still. Costs: some
//! additions a series every five minutes; a renewal allocates all series anew, at most once in that time, while scrapes read
//! the old ones.
//!
//! What Prometheus sees: the series of such a label set ends. If the label set comes again, it begins at 0, which `rate()`
//! and `increase()` take for a reset, as after a restart. None goes that changed within the last ten minutes, so that its last value
//! was scraped before. Totals over all series fall by what has gone, as at a restart; `rustok_obsd_store_evicted_total`
//! counts them.

use super::recorder::{HttpRecorder, Kept};
use super::series::{ClientSeries, Lists, ServerSeries};
use crate::route::{Route, Source};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(300);
/// Looks after which a series that stood still may go.
const QUIET: u8 = 2;

impl<T> Kept<T> {
    /// So much was counted now; tells whether it stood still for long.
    pub(super) fn look(&mut self, count: u64) -> bool {
        self.quiet = if count == self.count { self.quiet.saturating_add(1) } else { 0 };
        self.count = count;
        self.is_quiet()
    }

    pub(super) const fn is_quiet(&self) -> bool {
        self.quiet >= QUIET
    }
}

impl HttpRecorder {
    /// Time goes by.
    pub fn age(&mut self, now: Instant) {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return;
        }
        let first = self.looked.replace(now).is_none();
        if !first {
            self.look();
        }
    }

    /// Looks which series stood still, and renews the lists where room was wanted and some did.
    pub(super) fn look(&mut self) {
        // What is beyond the caps is counted on: it is never given up.
        let own = self.server.values_mut().filter(|kept| !kept.series.overflow);
        let server = own.fold(0u64, |quiet, kept| {
            let count = kept.series.timed.duration.count();
            quiet + u64::from(kept.look(count))
        });
        let client = self.client.values_mut().fold(0u64, |quiet, kept| {
            let count = kept.series.timed.duration.count();
            quiet + u64::from(kept.look(count))
        });
        if self.wanted && server + client > 0 {
            self.wanted = false;
            self.renew();
            self.room.evicted(server);
            self.client_room.evicted(client);
        }
    }

    #[cold]
    fn renew(&mut self) {
        let old = std::mem::replace(&mut self.lists, Arc::new(Lists::new(&self.limits)));
        let (server, client) = (std::mem::take(&mut self.server), std::mem::take(&mut self.client));
        self.forget_series();
        let mut targets = std::mem::take(&mut self.targets);
        for target in targets.values_mut() {
            target.service = self.service(&target.labels.service_name);
        }
        self.targets = targets;
        for (mut key, kept) in server.into_iter().filter(|(_, kept)| !kept.is_quiet()) {
            let Some(name) = old.services.get(key.service).map(|service| service.name.clone()) else { continue };
            key.service = self.service(&name);
            let route = Route { template: Arc::clone(&key.route), source: kept.series.source };
            // What was there fits again.
            let _ = if route.source == Source::Overflow {
                self.spare.charge(key.service as u32, 1)
            } else {
                self.room.charge(key.service as u32, ServerSeries::SIZE)
            };
            // The place of a service that is gone may be another one's: then it is one of the others.
            let known = self.server.get(&key).map(|kept| Arc::clone(&kept.series));
            let series = known.unwrap_or_else(|| self.new_server(key, &route));
            series.take_over(&kept.series);
        }
        for (mut key, kept) in client.into_iter().filter(|(_, kept)| !kept.is_quiet()) {
            let Some(name) = old.services.get(key.service).map(|service| service.name.clone()) else { continue };
            key.service = self.service(&name);
            let _ = self.client_room.charge(key.service as u32, ClientSeries::SIZE);
            let known = self.client.get(&key).map(|kept| Arc::clone(&kept.series));
            let series = known.unwrap_or_else(|| self.new_client(key));
            series.timed.duration.take_over(&kept.series.timed.duration);
        }
        for service in old.services.iter(usize::MAX) {
            let new = self.services.get(&service.name).and_then(|index| self.lists.services.get(*index));
            let Some(new) = new else { continue };
            for (method, labels) in service.active_labels.iter().enumerate() {
                if let Some(labels) = labels.get() {
                    let _ = new.active_labels[method].set(labels.clone());
                    new.active[method].store(service.active[method].load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        }
        self.metrics.replace(Arc::clone(&self.lists));
    }
}
