//! The pipeline's part for routes: which request a matched path belongs to.
//!
//! Reads: records of axum's uprobe, and the tables that were read. Yields: routes to the requests under way and to those
//! that wait for theirs, and a [`Notice`] where the evidence is against them. Costs: two look-ups a route.
//!
//! No memory of a target is read here: a path that is not known yet is awaited, and the exchange with it.

use std::time::Instant;

use rustok_obsd_ebpf::RouteHit;

use super::doubts::Doubt;
use super::parked::Parked;
use super::pipeline::{Notice, Pipeline};
use crate::contract::own::Problem;
use crate::contract::routing::{Parked as Result, TableEvent};
use crate::exchange::{Exchange, Hit, RoutesExact};
use crate::target::Lookup;

impl Pipeline {
    /// axum matched a route.
    pub(super) fn on_route(&mut self, hit: &RouteHit) {
        let Some(target) = self.targets.get_mut(&hit.tgid) else { return };
        let connection = if hit.task == 0 { None } else { self.connections.of_task(hit.tgid, hit.task) };
        let doubt = target.doubts.judge(hit.task, connection.is_some());
        let Some(connection) = connection else {
            self.own.problems.add(Problem::RouteUnassigned, 1);
            if let Some(doubt) = doubt.filter(|_| target.routes_exact != RoutesExact::NEVER) {
                self.distrust_routes(hit.tgid, doubt);
            }
            return;
        };
        let place = Hit { map: hit.map, route: hit.route };
        match self.routes.lookup(target.process, hit.map, hit.route, Instant::now()) {
            Lookup::Known(path) => connection.http.on_hit(place, Some(&path), &mut self.shared),
            Lookup::Awaited => connection.http.on_hit(place, None, &mut self.shared),
            Lookup::Unknown => {
                connection.http.on_unknown_route();
                self.own.problems.add(Problem::RouteUnassigned, 1);
            }
        }
    }

    /// Exchanges that wait for their route.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.outputs.parking.len()
    }

    /// Takes what was read meanwhile, and names what waited for it, or for too long. Most need not wait at all, since a
    /// request takes longer than a read.
    pub(super) fn name_parked(&mut self) {
        let now = Instant::now();
        let answered = self.routes.catch_up(now);
        let Self { outputs, routes, targets, .. } = self;
        let parking = &mut outputs.parking;
        let ready = |parked: &Parked| {
            let process = targets.get(&parked.tgid).map(|target| target.process);
            let mut awaited = parked.routed.awaited().iter();
            !process.is_some_and(|process| awaited.any(|hit| routes.awaits(process, hit.map)))
        };
        let ready = if parking.len() > 0 && (answered || parking.is_late(now)) {
            parking.take_ready(now, ready)
        } else if parking.has_fresh() {
            parking.take_fresh(ready)
        } else {
            return;
        };
        ready.into_iter().for_each(|parked| self.name_one(parked, None));
    }

    /// Names all exchanges of a target that wait, for it is forgotten; of all targets where none is given.
    pub(super) fn release_parked(&mut self, tgid: Option<u32>) {
        self.routes.catch_up(Instant::now());
        let ready = self.outputs.parking.take_all(tgid);
        ready.into_iter().for_each(|parked| self.name_one(parked, Some(Result::Ended)));
    }

    /// Adds what the rooms for routes counted to the daemon's own metrics.
    #[cold]
    pub(super) fn publish_routing(&mut self) {
        let (stats, reads) = (self.routes.stats(), self.routes.reader().stats());
        let own = &self.own.routing;
        self.targets.values_mut().for_each(|target| target.named.publish(&own.learner));
        for (event, count) in [
            (TableEvent::Read, stats.reads),
            (TableEvent::Failed, stats.failures),
            (TableEvent::TimedOut, stats.timeouts),
            (TableEvent::Refused, stats.refusals),
            (TableEvent::Changed, stats.changes),
            (TableEvent::Evicted, stats.evictions),
        ] {
            own.tables.raise_to(event, count);
        }
        own.parked.raise_to(Result::NoRoom, self.outputs.parking.refused);
        own.set(self.routes.len(), self.outputs.parking.len(), reads);
    }

    /// `unless`: why it waits no longer, where that is not that the read has ended.
    fn name_one(&mut self, mut parked: Parked, unless: Option<Result>) {
        let Self { targets, routes, shared, outputs, own, .. } = self;
        let Some(target) = targets.get_mut(&parked.tgid).filter(|target| target.named.key == parked.key) else {
            return;
        };
        let process = target.process;
        let mut waits = false;
        let (route, all) = shared.resolve(&mut parked.routed, |hit| {
            waits |= routes.awaits(process, hit.map);
            routes.path(process, hit.map, hit.route)
        });
        let result = match unless {
            _ if all => Result::Named,
            Some(reason) => reason,
            None if waits => Result::Late,
            None => Result::Unreadable,
        };
        own.routing.parked.add(result, 1);
        if !all {
            own.problems.add(Problem::RouteUnassigned, 1);
        }
        parked.show(|exchange| {
            let exchange = Exchange { route: route.as_ref(), routes_exact: exchange.routes_exact && all, ..*exchange };
            let name = target.named.name(&exchange);
            outputs.record(parked.key, &exchange, &name, parked.addresses);
        });
    }

    #[cold]
    fn distrust_routes(&mut self, tgid: u32, doubt: Doubt) {
        if let Some(target) = self.targets.get_mut(&tgid) {
            target.routes_exact = RoutesExact::NEVER;
        }
        self.connections
            .each_of_process(tgid)
            .for_each(|connection| connection.http.set_routes_exact(RoutesExact::NEVER));
        let notice = match doubt {
            Doubt::NoTask => Notice::SlotDoubtful(tgid),
            Doubt::OtherTask => Notice::RoutesElsewhere(tgid),
        };
        let _ = self.notices.send(notice);
    }
}
