//! The database recorder's series that nobody touched for long give way where room is wanted.
//!
//! Reads: the counts of all series, every five minutes. Yields: new [`Lists`] without those that stood still. Costs and what
//! Prometheus sees: as for those of HTTP, see `contract/renew.rs`.

use super::admit::OTHER_DATABASE;
use super::recorder::{DatabaseRecorder, OperationKey};
use super::series::{Lists, Mishap, OperationSeries, RequestSeries, Service, StatementSeries};
use crate::contract::histogram::bump;
use crate::contract::recorder::Kept;
use crate::database::System;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(300);

/// Whose the errors are that outlive their service.
const NOBODY: usize = u32::MAX as usize;

/// What a database's number stood for.
type Place = (Option<SocketAddr>, Option<Arc<str>>, System);

impl DatabaseRecorder {
    /// Time goes by.
    pub fn age(&mut self, now: Instant) {
        if self.places.is_due(now) {
            self.renew(now, false);
        }
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
        let own = self.errors.iter_mut().filter(|((_, mishap), _)| !matches!(mishap, Mishap::Other(_)));
        quiet += own.filter_map(|(_, (_, kept))| kept.look(load(&kept.series.count)).then_some(())).count();
        for kept in self.pools.values_mut() {
            kept.look(kept.series.wait.count());
        }
        if self.wanted && quiet > 0 {
            self.wanted = false;
            self.renew(Instant::now(), true);
        }
    }

    /// Makes all lists anew, without the services whose place was left; `still`: and without series that stood still.
    #[cold]
    fn renew(&mut self, now: Instant, still: bool) {
        let old = std::mem::replace(&mut self.lists, Arc::new(Lists::new(&self.settings)));
        let places = self.places();
        let modules = std::mem::take(&mut self.module_names);
        let (operations, statements) = (std::mem::take(&mut self.operations), std::mem::take(&mut self.statements));
        let (requests, pools) = (std::mem::take(&mut self.requests), std::mem::take(&mut self.pools));
        let errors = std::mem::take(&mut self.errors);
        self.forget_series();
        self.begin();
        for name in self.places.renew(now) {
            let index = self.new_service(&name);
            self.share(&name, index);
        }
        self.admit_targets();
        let mut gone = 0;
        for (key, kept) in operations {
            let place = self.again(&old, key.service).filter(|_| !(still && kept.is_quiet()));
            let Some((service, state)) = place else {
                gone += 1;
                continue;
            };
            self.carry_operation(service, &state, key, &kept, &places);
        }
        for ((service, fingerprint), kept) in statements {
            let place = self.again(&old, service).filter(|_| !(still && kept.is_quiet()));
            let Some((service, state)) = place else {
                gone += 1;
                continue;
            };
            self.statement_room.carry(service as u32, StatementSeries::SIZE);
            // There were no more of them before.
            state.statements.push(Arc::clone(&kept.series));
            self.statements.insert((service, fingerprint), kept);
        }
        for (mut key, kept) in requests {
            let place = self.again(&old, key.service).filter(|_| !(still && kept.is_quiet()));
            let Some((service, _)) = place else {
                gone += 1;
                continue;
            };
            key.service = service;
            let module = self.carry_module(service, &modules, load32(&kept.series.module));
            kept.series.module.store(module, Ordering::Relaxed);
            if key.route == self.other {
                self.spare.carry(service as u32, 1);
            } else {
                self.request_room.carry(service as u32, RequestSeries::SIZE);
            }
            self.lists.requests.push(Arc::clone(&kept.series));
            self.requests.insert(key, kept);
        }
        for ((service, database), kept) in pools {
            let held =
                self.slots.iter().any(|slot| slot.series.as_ref().is_some_and(|held| Arc::ptr_eq(held, &kept.series)));
            if still && kept.is_quiet() && !held {
                continue;
            }
            let Some((service, _)) = self.again(&old, service) else { continue };
            let database = self.carry_database(service, database, &places);
            if database != OTHER_DATABASE {
                self.pool_room.carry(service as u32, 1);
            }
            self.lists.pools.push(Arc::clone(&kept.series));
            self.pools.insert((service, database), kept);
        }
        self.carry_slots(&places);
        for ((module, mishap), (service, kept)) in errors {
            // Services share these label sets: one that is counted on does not end with the service that it was charged to.
            let place = self.again(&old, service);
            if kept.is_quiet() && (still || place.is_none()) {
                gone += 1;
                continue;
            }
            let service = place.map_or(NOBODY, |(service, _)| service);
            let module = self.carry_module(service, &modules, module);
            if !matches!(mishap, Mishap::Other(_)) {
                self.error_room.carry(service as u32, 1);
            }
            self.lists.errors.push(Arc::clone(&kept.series));
            self.errors.insert((module, mishap), (service, kept));
        }
        for service in old.services.iter(usize::MAX) {
            let new = self.places.get(&service.name).and_then(|index| self.lists.services.get(index));
            if let Some(new) = new {
                new.take_over(service);
            }
        }
        self.room.evicted(gone);
        self.metrics.replace(Arc::clone(&self.lists));
    }

    /// Each target has its service again; those that were among the others have one of their own where there is room by
    /// now, those of trusted users first.
    fn admit_targets(&mut self) {
        let mut targets: Vec<_> = std::mem::take(&mut self.targets).into_iter().collect();
        targets.sort_by_key(|(key, target)| (self.places.get(&target.name).is_none(), target.behind, *key));
        for (key, mut target) in targets {
            target.service = self.service(&target.name, target.behind);
            self.places.join(&target.name, target.behind);
            self.targets.insert(key, target);
        }
    }

    /// What a service of the old lists is in the new ones, if it has a place still.
    fn again(&self, old: &Lists, service: usize) -> Option<(usize, Arc<Service>)> {
        let index = self.places.get(&old.services.get(service)?.name)?;
        Some((index, self.lists.services.get(index).cloned()?))
    }

    fn carry_operation(
        &mut self,
        service: usize,
        state: &Service,
        key: OperationKey,
        kept: &Kept<OperationSeries>,
        places: &FxHashMap<u32, Place>,
    ) {
        let database = self.carry_database(service, key.database, places);
        let key = OperationKey { service, database, ..key };
        if key.collection.as_ref() == Some(&self.other) {
            self.spare.carry(service as u32, 1);
        } else {
            self.room.carry(service as u32, OperationSeries::SIZE);
        }
        let known = self.operations.get(&key).map(|kept| Arc::clone(&kept.series));
        let series = known.unwrap_or_else(|| {
            let [_, _, _, code @ ..] = key.code.to_be_bytes();
            let sqlstate = (key.code != 0).then_some(code);
            self.new_operation(key, state, sqlstate)
        });
        series.take_over(&kept.series);
    }

    fn carry_database(&mut self, service: usize, number: u32, places: &FxHashMap<u32, Place>) -> u32 {
        let Some((server, namespace, system)) = places.get(&number) else { return number };
        if let Some(number) = self.known_database(*server, namespace.as_ref(), *system) {
            return number;
        }
        self.database_room.carry(service as u32, self.units(namespace.as_ref()));
        self.new_database(*server, namespace.as_ref(), *system)
    }

    fn carry_module(&mut self, service: usize, names: &[Arc<str>], number: u32) -> u32 {
        let Some(name) = names.get(number as usize) else { return Self::UNKNOWN_MODULE };
        if let Some(number) = self.module_numbers.get(name) {
            return *number;
        }
        self.module_room.carry(service as u32, 1);
        self.new_module(name)
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
            let Some(service) = self.targets.get(&target).map(|target| Arc::clone(&target.service)) else { continue };
            let index = self.places.get(&service.name).unwrap_or(0);
            let database = self.carry_database(index, database, places);
            let series = self.pool_series(index, &service, database);
            let slot = &mut self.slots[at];
            slot.database = database;
            // A target that was among the others takes its connections along.
            if let Some(old) = slot.series.replace(Arc::clone(&series)).filter(|old| !Arc::ptr_eq(old, &series)) {
                for ((old, new), connections) in old.connections.iter().zip(&series.connections).zip(slot.connections) {
                    bump(old, connections.wrapping_neg());
                    bump(new, connections);
                }
                series.counted.store(true, Ordering::Relaxed);
            }
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
