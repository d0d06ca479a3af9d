//! The pipeline's part for routes: which request a matched path belongs to.
//!
//! Reads: records of axum's uprobe. Yields: routes to the requests under way, and a [`Notice`] where the evidence is against
//! them. Costs: two look-ups a route.

use std::time::Instant;

use rustok_obsd_ebpf::RouteHit;

use super::doubts::Doubt;
use super::pipeline::{Notice, Pipeline};
use crate::contract::own::Problem;

impl Pipeline {
    /// axum matched a route.
    pub(super) fn on_route(&mut self, hit: &RouteHit) {
        let Some(target) = self.targets.get_mut(&hit.tgid) else { return };
        let connection = if hit.task == 0 { None } else { self.connections.of_task(hit.tgid, hit.task) };
        let doubt = target.doubts.judge(hit.task, connection.is_some());
        let Some(connection) = connection else {
            self.own.problems.add(Problem::RouteUnassigned, 1);
            if let Some(doubt) = doubt.filter(|_| target.routes_exact) {
                self.distrust_routes(hit.tgid, doubt);
            }
            return;
        };
        match self.routes.lookup(target.process, hit.map, hit.route, Instant::now()) {
            Some(path) => connection.http.on_route(&path, &mut self.shared),
            None => {
                connection.http.on_unknown_route();
                self.own.problems.add(Problem::RouteUnassigned, 1);
            }
        }
    }

    #[cold]
    fn distrust_routes(&mut self, tgid: u32, doubt: Doubt) {
        if let Some(target) = self.targets.get_mut(&tgid) {
            target.routes_exact = false;
        }
        self.connections.each_of_process(tgid).for_each(|connection| connection.http.set_routes_exact(false));
        let notice = match doubt {
            Doubt::NoTask => Notice::SlotDoubtful(tgid),
            Doubt::OtherTask => Notice::RoutesElsewhere(tgid),
        };
        let _ = self.notices.send(notice);
    }
}
