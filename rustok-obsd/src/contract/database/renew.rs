//! The database recorder's series that nobody touched for long give way where room is wanted.
//!
//! Reads: the counts of all series, every five minutes. Yields: new [`Lists`] without those that stood still. Costs and what
//! Prometheus sees: as for those of HTTP, see `contract/renew.rs`.

use super::recorder::{DatabaseRecorder, OperationKey};
use super::series::{Lists, OperationSeries, Service};
use crate::contract::recorder::Kept;
use crate::database::System;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(300);

/// What a database's number stood for.
type Place = (Option<SocketAddr>, Option<Arc<str>>, System);

impl DatabaseRecorder {
    /// Time goes by.
    pub fn age(&mut self, now: Instant) {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return;
        }
        if self.looked.replace(now).is_some() {
            // Shortcuts of a wave give their room back; those in use come again.
            self.forget_all_shortcuts();
            self.look();
        }
    }

    /// Looks which series stood still, and renews the lists where room was wanted and some did.
    pub(super) fn look(&mut self) {
        let other = Arc::clone(&self.other);
        let own = self.operations.iter_mut().filter(|(key, _)| key.collection.as_ref() != Some(&other));
        let mut quiet = own.filter_map(|(_, kept)| kept.look(kept.series.count()).then_some(())).count();
        quiet +=
            self.statements.values_mut().filter_map(|kept| kept.look(load(&kept.series.calls)).then_some(())).count();
        let own = self.requests.iter_mut().filter(|(key, _)| key.route != other);
        quiet += own.filter_map(|(_, kept)| kept.look(kept.series.count()).then_some(())).count();
        for kept in self.pools.values_mut() {
            kept.look(kept.series.wait.count());
        }
        if self.wanted && quiet > 0 {
            self.wanted = false;
            self.renew();
            self.room.evicted(quiet as u64);
        }
    }

    #[cold]
    fn renew(&mut self) {
        let old = std::mem::replace(&mut self.lists, Arc::new(Lists::new(&self.settings)));
        let places = self.places();
        let modules = std::mem::take(&mut self.module_names);
        let targets = std::mem::take(&mut self.targets);
        let (operations, statements) = (std::mem::take(&mut self.operations), std::mem::take(&mut self.statements));
        let (requests, pools) = (std::mem::take(&mut self.requests), std::mem::take(&mut self.pools));
        let errors = std::mem::take(&mut self.errors);
        self.forget_series();
        self.begin();
        self.targets = targets.into_iter().map(|(key, service)| (key, self.service(&service.name))).collect();
        let name = |service: usize| old.services.get(service).map(|service| service.name.clone());
        for (key, kept) in operations.into_iter().filter(|(_, kept)| !kept.is_quiet()) {
            let Some(name) = name(key.service) else { continue };
            self.carry_operation(&name, key, &kept, &places);
        }
        for ((service, fingerprint), kept) in statements.into_iter().filter(|(_, kept)| !kept.is_quiet()) {
            let Some((service, state)) = name(service).and_then(|name| self.again(&name)) else { continue };
            // There were no more of them before.
            state.statements.push(Arc::clone(&kept.series));
            self.statements.insert((service, fingerprint), kept);
        }
        for (mut key, kept) in requests.into_iter().filter(|(_, kept)| !kept.is_quiet()) {
            let Some((service, _)) = name(key.service).and_then(|name| self.again(&name)) else { continue };
            key.service = service;
            let module = modules.get(load32(&kept.series.module) as usize).cloned();
            let module = module.map_or(Self::UNKNOWN_MODULE, |name| self.module(&name));
            kept.series.module.store(module, Ordering::Relaxed);
            self.charge_request(service, key.route == self.other);
            self.lists.requests.push(Arc::clone(&kept.series));
            self.requests.insert(key, kept);
        }
        for ((service, database), kept) in pools {
            let held =
                self.slots.iter().any(|slot| slot.series.as_ref().is_some_and(|held| Arc::ptr_eq(held, &kept.series)));
            if kept.is_quiet() && !held {
                continue;
            }
            let Some((service, _)) = name(service).and_then(|name| self.again(&name)) else { continue };
            let database = self.carry_database(service, database, &places);
            self.lists.pools.push(Arc::clone(&kept.series));
            self.pools.insert((service, database), kept);
        }
        self.carry_slots(&places);
        for ((module, mishap), index) in errors {
            let Some(series) = old.errors.get(index) else { continue };
            let name = modules.get(module as usize).cloned();
            let module = name.map_or(Self::UNKNOWN_MODULE, |name| self.module(&name));
            let index = self.errors.get(&(module, mishap)).copied().or_else(|| self.new_mishap(module, mishap));
            if let Some(new) = index.and_then(|index| self.lists.errors.get(index)) {
                add(&new.count, &series.count);
            }
        }
        for service in old.services.iter(usize::MAX) {
            if let Some((_, new)) = self.again(&service.name) {
                new.take_over(service);
            }
        }
        self.metrics.replace(Arc::clone(&self.lists));
    }

    /// The service of a name, if it has a place again.
    fn again(&mut self, name: &str) -> Option<(usize, Arc<Service>)> {
        let service = self.service(name);
        let index = *self.services.get(&service.name)?;
        (service.name == name).then_some((index, service))
    }

    fn carry_operation(
        &mut self,
        name: &str,
        key: OperationKey,
        kept: &Kept<OperationSeries>,
        places: &FxHashMap<u32, Place>,
    ) {
        let Some((service, state)) = self.again(name) else { return };
        let database = self.carry_database(service, key.database, places);
        let key = OperationKey { service, database, ..key };
        self.charge_operation(service, key.collection.as_ref() == Some(&self.other));
        let known = self.operations.get(&key).map(|kept| Arc::clone(&kept.series));
        let series = known.unwrap_or_else(|| {
            let [_, _, _, code @ ..] = key.code.to_be_bytes();
            let sqlstate = (key.code != 0).then_some(code);
            self.new_operation(key, &state, sqlstate)
        });
        series.take_over(&kept.series);
    }

    fn carry_database(&mut self, service: usize, number: u32, places: &FxHashMap<u32, Place>) -> u32 {
        match places.get(&number) {
            Some((server, namespace, system)) => self.database(service, *server, namespace.as_ref(), *system),
            None => number,
        }
    }

    /// What each number of a database stands for, but those that are fixed.
    fn places(&self) -> FxHashMap<u32, Place> {
        let names: FxHashMap<u32, &Arc<str>> = self.namespaces.iter().map(|(name, number)| (*number, name)).collect();
        let place = |((server, name, system), number): (&(_, u32, _), &u32)| {
            (*number, (*server, names.get(name).map(|name| Arc::clone(name)), *system))
        };
        self.databases.iter().map(place).filter(|(number, _)| *number > 1).collect()
    }

    fn carry_slots(&mut self, places: &FxHashMap<u32, Place>) {
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.series.is_none() {
                continue;
            }
            let (target, database) = (slot.target, slot.database);
            let name = self.targets.get(&target).map(|service| service.name.clone());
            let service = name.and_then(|name| self.services.get(&name).copied()).unwrap_or(0);
            let database = self.carry_database(service, database, places);
            self.slots[at].database = database;
            self.slot_of.insert((target, database), at as u32);
        }
    }
}

fn load(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

fn load32(cell: &std::sync::atomic::AtomicU32) -> u32 {
    cell.load(Ordering::Relaxed)
}

/// One thread only.
fn add(cell: &AtomicU64, other: &AtomicU64) {
    cell.store(load(cell).wrapping_add(load(other)), Ordering::Relaxed);
}

impl OperationSeries {
    fn count(&self) -> u64 {
        self.timed.duration.count() + load(&self.timeless)
    }

    /// Adds what another one of the same labels counted; the traces of exemplars stay behind.
    fn take_over(&self, other: &Self) {
        add(&self.timeless, &other.timeless);
        self.timed.duration.take_over(&other.timed.duration);
        if let Some(rows) = other.rows.get() {
            self.rows.get_or_init(|| Box::new(crate::contract::histogram::Histogram::new())).take_over(rows);
        }
    }
}

impl Service {
    fn take_over(&self, other: &Self) {
        let cells = self.operations.iter().flatten().chain(&self.transactions);
        for (cell, other) in cells.zip(other.operations.iter().flatten().chain(&other.transactions)) {
            add(cell, other);
        }
        if let Some(others) = other.others.get() {
            let _ = self.others.set(Arc::clone(others));
        }
    }
}
