//! Attaches to a target's database libraries and to Tokio's spawns.
//!
//! Reads: the probe points of its binary, `[database]`. Yields: attached uprobes, [`Drivers`] for the pipeline, and the
//! places of statements that are found by watching. Costs: some ms an attachment, once per binary.

use std::collections::HashMap;

use rustok_obsd_ebpf::{Layout, PlaceKey};

use super::manager::Manager;
use crate::{
    capture::pipeline::{Command, Sample},
    config::{ProbeKind, ProbeSets},
    database::{System, tracker::Drivers},
    probe::State,
    statement::Dialect,
    target::{
        CustomPoint, Library, ProbePoint, ProbeSet, Target, TaskSlot, maps,
        statement_layout::{Found, Seeker},
    },
};

/// Functions whose places of the statement are sought, by process and address.
pub(super) type Seekers = HashMap<(u32, u64), Seeker>;

/// In the order in which they are attached: ends before begins, so that no begin waits for an end that nobody sees.
const POINTS: [ProbePoint; 8] = [
    ProbePoint::TokioSpawn,
    ProbePoint::SqlxNotice,
    ProbePoint::SqlxQueryEnd,
    ProbePoint::SqlxRollback,
    ProbePoint::SqlxBegin,
    ProbePoint::SqlxQuery,
    ProbePoint::SeaOrmCall,
    ProbePoint::SeaOrmBegin,
];

/// The functions that the configuration names.
pub(super) fn functions(config: &crate::config::Config) -> Vec<CustomPoint> {
    config.database.probe.iter().map(|point| CustomPoint::new(&point.function)).collect()
}

const fn is_on(sets: ProbeSets, set: ProbeSet) -> bool {
    match set {
        ProbeSet::Routes => true,
        ProbeSet::Tasks => sets.tasks,
        ProbeSet::Sqlx => sets.sqlx,
        ProbeSet::Results => sets.results,
        ProbeSet::SeaOrm => sets.sea_orm,
    }
}

/// The one database that the target's sqlx was built for.
fn system(target: &Target) -> System {
    let has = |library| target.binary.has(library);
    match (has(Library::SqlxPostgres), has(Library::SqlxMysql), has(Library::SqlxSqlite)) {
        (_, false, false) => System::Postgresql,
        (false, true, false) => System::Mysql,
        (false, false, true) => System::Sqlite,
        _ => System::Other,
    }
}

/// How statements are read: as all of the databases do that the target has a driver for. Without one that is known the
/// functions that the configuration names may ask any database.
fn dialect(has: impl Fn(Library) -> bool) -> Dialect {
    const DRIVERS: [(Library, Dialect); 4] = [
        (Library::SqlxPostgres, Dialect::POSTGRES),
        (Library::TokioPostgres, Dialect::POSTGRES),
        (Library::SqlxMysql, Dialect::MYSQL),
        (Library::SqlxSqlite, Dialect::SQLITE),
    ];
    let known = DRIVERS.into_iter().filter(|(library, _)| has(*library)).map(|(_, dialect)| dialect);
    known.reduce(Dialect::or).unwrap_or_default()
}

impl Manager {
    /// Attaches what is there and switched on.
    pub(super) fn attach_drivers(&mut self, target: &Target) -> Drivers {
        let mut drivers = Drivers {
            tasks: matches!(target.binary.task_slot, TaskSlot::Known(_)),
            runtime: target.binary.has(Library::Tokio),
            shared_connections: target.binary.has(Library::TokioPostgres),
            system: system(target),
            dialect: dialect(|library| target.binary.has(library)),
            ..Drivers::default()
        };
        if !self.config.database.enabled {
            return drivers;
        }
        let sets = self.config.database.probes;
        let inlined = target.binary.places(ProbePoint::SqlxQuery).is_empty();
        for point in POINTS {
            let name = target.process.exe.display().to_string();
            let places: Vec<u64> = target.binary.places(point).iter().map(|place| place.file_offset).collect();
            if !is_on(sets, point.set()) {
                self.probes.set(point.program(), &name, State::Disabled, "database.probes leaves it out");
            } else if places.is_empty() {
                // A library that is not there is no news.
                if target.binary.has(point.library()) {
                    self.probes.set(point.program(), &name, State::Disabled, target.binary.presence_of(point));
                }
            } else if self.attach(point.program(), target, &places) {
                drivers.calls |= point == ProbePoint::SqlxQuery;
                drivers.ends |= point == ProbePoint::SqlxQueryEnd;
            }
        }
        drivers.ends &= drivers.calls;
        self.attach_sought(target, sets.sqlx && inlined, &mut drivers);
        drivers
    }

    /// Functions whose place of the statement is not known yet: sqlx' own where its logger is inlined, and the user's.
    fn attach_sought(&mut self, target: &Target, fallback: bool, drivers: &mut Drivers) {
        let mut wanted: Vec<(ProbePoint, Layout)> = Vec::new();
        let sought = |argument| Layout { argument, direct: 0, pointer: 0, length: 0, known: 0 };
        if fallback {
            wanted.push((ProbePoint::SqlxStatement, sought(1)));
        }
        for (point, index) in self.config.database.probe.clone().into_iter().zip(0u8..) {
            let custom = ProbePoint::Custom(index);
            let program = match point.kind {
                ProbeKind::Statement => {
                    wanted.push((custom, sought(point.argument)));
                    continue;
                }
                ProbeKind::Text => {
                    wanted.push((custom, Layout { direct: 1, known: 1, ..sought(point.argument) }));
                    continue;
                }
                ProbeKind::Begin => "sqlx_begin",
                ProbeKind::Commit => "commit",
                ProbeKind::Rollback => "sqlx_rollback",
            };
            let places: Vec<u64> = target.binary.places(custom).iter().map(|place| place.file_offset).collect();
            if places.is_empty() {
                let name = target.process.exe.display().to_string();
                self.probes.set(&point.function, &name, State::Failed, target.binary.presence_of(custom));
            } else {
                self.attach(program, target, &places);
            }
        }
        let pid = target.process.key.pid;
        let mappings = maps::executable(&self.config.path.procfs, pid);
        let (mut offsets, mut sought_places) = (Vec::new(), 0);
        for (point, layout) in wanted {
            for place in target.binary.places(point) {
                let Some(address) = maps::address(&mappings, target.file.inode, place.file_offset) else { continue };
                self.set_layout(pid, address, layout);
                if layout.known == 0 {
                    self.seekers.insert((pid, address), Seeker::new(layout.argument));
                    sought_places += 1;
                }
                offsets.push(place.file_offset);
            }
            if let ProbePoint::Custom(index) = point
                && target.binary.places(point).is_empty()
            {
                let name = target.process.exe.display().to_string();
                let function = &self.config.database.probe[usize::from(index)].function;
                self.probes.set(function, &name, State::Failed, target.binary.presence_of(point));
            }
        }
        if !offsets.is_empty() && self.attach("statement", target, &offsets) {
            drivers.calls |= offsets.len() > sought_places;
            drivers.sought = sought_places > 0;
        }
    }

    fn set_layout(&self, tgid: u32, place: u64, layout: Layout) {
        let Some(mut programs) = self.lock() else { return };
        let key = PlaceKey { place, tgid, pad: 0 };
        let mut words = [0; 2];
        for (word, bytes) in words.iter_mut().zip(key.as_bytes().chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        let value = u64::from_ne_bytes(layout.as_bytes().try_into().unwrap_or_default());
        if let Err(error) = programs.layouts.insert(words, value, 0) {
            tracing::warn!(
                "process {tgid}: statements at {place:#x} are not read: the programs' map of layouts: {error}"
            );
        }
    }

    /// A function whose place of the statement is sought was called.
    pub(super) fn seek(&mut self, sample: &Sample) {
        let (tgid, place) = (sample.hit.tgid, sample.hit.place);
        let Some(seeker) = self.seekers.get_mut(&(tgid, place)) else { return };
        match seeker.sample(&sample.words, &sample.prefixes, sample.hit.text_len) {
            Found::Searching => {}
            Found::At(layout) => {
                self.seekers.remove(&(tgid, place));
                self.set_layout(tgid, place, layout);
                if let Some(live) = self.live.get_mut(&tgid) {
                    let name = live.target.process.exe.display().to_string();
                    tracing::info!(
                        "{name}: the place of statements in the arguments of {place:#x} is known: {layout:?}"
                    );
                    live.drivers.calls = true;
                    let drivers = live.drivers;
                    let _ = self.commands.send(Command::Drivers { tgid, drivers });
                }
            }
            Found::Nowhere { reason } => {
                self.seekers.remove(&(tgid, place));
                if let Some(live) = self.live.get(&tgid) {
                    let name = live.target.process.exe.display().to_string();
                    tracing::warn!("{name}: statements of the function at {place:#x} are not read: {reason}");
                    self.probes.set("statement", &name, State::Failed, reason);
                }
            }
        }
    }

    /// Whether Tokio's task ids are known changed.
    pub(super) fn tell_tasks(&mut self, pid: u32, known: bool) {
        let Some(live) = self.live.get_mut(&pid) else { return };
        live.drivers.tasks = known;
        let drivers = live.drivers;
        let _ = self.commands.send(Command::Drivers { tgid: pid, drivers });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_by_the_rules_of_all_databases_that_the_target_may_ask() {
        use Library::{SeaOrm, SqlxMysql, SqlxPostgres, SqlxSqlite, Tokio, TokioPostgres};
        for (libraries, want) in [
            (&[Tokio, SeaOrm, SqlxPostgres][..], Dialect::POSTGRES),
            (&[TokioPostgres], Dialect::POSTGRES),
            (&[SqlxMysql], Dialect::MYSQL),
            (&[SqlxSqlite], Dialect::SQLITE),
            (&[SqlxPostgres, SqlxSqlite], Dialect::POSTGRES.or(Dialect::SQLITE)),
            (&[TokioPostgres, SqlxMysql], Dialect::POSTGRES.or(Dialect::MYSQL)),
            (&[Tokio], Dialect::ANY),
            (&[], Dialect::ANY),
        ] {
            assert_eq!(dialect(|library| libraries.contains(&library)), want, "{libraries:?}");
        }
    }
}
