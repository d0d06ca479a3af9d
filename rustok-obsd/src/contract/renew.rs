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

use super::histogram::bump;
use super::places::Places;
use super::recorder::{HttpRecorder, Kept, Target};
use super::series::{ClientSeries, Lists, ServerSeries};
use crate::route::{Route, Source};
use std::sync::Arc;
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
        if self.places.is_due(now) {
            self.renew(now, false);
        }
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
            self.renew(Instant::now(), true);
        }
    }

    /// Makes all lists anew, without the services whose place was left; `still`: and without series that stood still.
    #[cold]
    fn renew(&mut self, now: Instant, still: bool) {
        let old = std::mem::replace(&mut self.lists, Arc::new(Lists::new(&self.limits)));
        let (server, client) = (std::mem::take(&mut self.server), std::mem::take(&mut self.client));
        self.forget_series();
        for name in self.places.renew(now) {
            let index = self.new_service(&name);
            self.share(&name, index);
        }
        self.admit_targets();
        let place = |places: &Places, service: usize| places.get(&old.services.get(service)?.name);
        let (mut gone, mut gone_client) = (0, 0);
        for (mut key, kept) in server {
            let Some(service) = place(&self.places, key.service).filter(|_| !(still && kept.is_quiet())) else {
                gone += 1;
                continue;
            };
            key.service = service;
            let route = Route { template: Arc::clone(&key.route), source: kept.series.source };
            if route.source == Source::Overflow {
                self.spare.carry(service as u32, 1);
            } else {
                self.room.carry(service as u32, ServerSeries::SIZE);
            }
            let known = self.server.get(&key).map(|kept| Arc::clone(&kept.series));
            let series = known.unwrap_or_else(|| self.new_server(key, &route));
            series.take_over(&kept.series);
        }
        for (mut key, kept) in client {
            let Some(service) = place(&self.places, key.service).filter(|_| !(still && kept.is_quiet())) else {
                gone_client += 1;
                continue;
            };
            key.service = service;
            self.client_room.carry(service as u32, ClientSeries::SIZE);
            let known = self.client.get(&key).map(|kept| Arc::clone(&kept.series));
            let series = known.unwrap_or_else(|| self.new_client(key));
            series.timed.duration.take_over(&kept.series.timed.duration);
        }
        for service in old.services.iter(usize::MAX) {
            let new = self.places.get(&service.name).and_then(|index| self.lists.services.get(index));
            let Some(new) = new else { continue };
            for (new, labels) in new.active_labels.iter().zip(&service.active_labels) {
                if let Some(labels) = labels.get() {
                    let _ = new.set(labels.clone());
                }
            }
        }
        self.room.evicted(gone);
        self.client_room.evicted(gone_client);
        self.publish_targets();
        self.metrics.replace(Arc::clone(&self.lists));
    }

    /// Each target has its service again; those that were among the others have one of their own where there is room by
    /// now, those of trusted users first.
    fn admit_targets(&mut self) {
        let mut targets: Vec<_> = std::mem::take(&mut self.targets).into_iter().collect();
        let waits = |places: &Places, target: &Target| places.get(&target.labels.service_name).is_none();
        targets.sort_by_key(|(key, target)| (waits(&self.places, target), target.labels.behind, *key));
        for (key, mut target) in targets {
            let name = &target.labels.service_name;
            target.service = self.service(name, target.labels.behind);
            self.places.join(name, target.labels.behind);
            if let Some(service) = self.lists.services.get(target.service) {
                for (method, active) in target.active.iter().enumerate().filter(|(_, active)| **active > 0) {
                    service.label_active(method);
                    bump(&service.active[method], *active);
                }
            }
            self.targets.insert(key, target);
        }
    }
}
