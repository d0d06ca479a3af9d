//! What is attached to a target, and what of its database libraries is observed by it.
//!
//! Reads: the probe points of its binary, `[database]`. Yields: [`Step`]s to attach, [`Drivers`] for the pipeline, and the
//! places of statements that are found by watching. Costs: some look-ups per target.

use std::collections::HashMap;

use rustok_obsd_ebpf::Layout;

use super::{
    file_probes::Step,
    lines::Line,
    manager::{AXUM, Manager, TOKIO},
};
use crate::{
    capture::pipeline::{Command, Sample},
    config::{ProbeKind, ProbeSets},
    database::{System, tracker::Drivers},
    probe::State,
    statement::Dialect,
    target::{
        CustomPoint, Library, ProbePoint, ProbeSet, Process, Target, TaskSlot,
        statement_layout::{Found, Seeker},
    },
};

/// Functions whose places of the statement are sought, by process and address.
pub(super) type Seekers = HashMap<(u32, u64), Seeker>;

/// In the order in which they are attached: ends before begins, so that no begin waits for an end that nobody sees.
const POINTS: [ProbePoint; 10] = [
    ProbePoint::TokioSpawn,
    ProbePoint::SqlxNotice,
    ProbePoint::SqlxQueryEnd,
    ProbePoint::SqlxRollback,
    ProbePoint::SqlxBegin,
    ProbePoint::SqlxBeginText,
    ProbePoint::SqlxQuery,
    ProbePoint::SeaOrmCall,
    ProbePoint::SeaOrmRaw,
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

/// The places of a configured function, for what.
enum Custom {
    /// A begin, commit or rollback: by this program.
    Call(&'static str),
    /// It takes a statement that lies so.
    Statement(Layout),
}

fn custom(point: &crate::config::ProbePoint) -> Custom {
    let sought = Layout { argument: point.argument, direct: 0, pointer: 0, length: 0, known: 0 };
    match point.kind {
        ProbeKind::Statement => Custom::Statement(sought),
        ProbeKind::Text => Custom::Statement(Layout { direct: 1, known: 1, ..sought }),
        ProbeKind::Begin => Custom::Call("sqlx_begin"),
        ProbeKind::Commit => Custom::Call("commit"),
        ProbeKind::Rollback => Custom::Call("sqlx_rollback"),
    }
}

/// Adds places to what is attached for a program.
fn add(steps: &mut Vec<Step>, program: &'static str, places: Vec<u64>) {
    match steps.iter_mut().find(|step| step.program == program) {
        Some(step) => step.places.extend(places),
        None => steps.push(Step { program, places }),
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
    /// What is to be attached for a target: what is there and switched on. Says on the board why the rest is not.
    pub(super) fn plan(&mut self, target: &Target) -> Vec<Step> {
        let name = target.process.exe.display().to_string();
        let mut steps = Vec::new();
        let routes = target.places(ProbePoint::AxumRoute);
        if routes.is_empty() {
            let reason = target.presence_of(ProbePoint::AxumRoute);
            if self.says(Line::Routes, &target.process) {
                tracing::info!("{name}: routes come from patterns and learned templates, not from axum: {reason}");
            }
            self.probes.set(AXUM, &name, State::Disabled, reason);
        } else {
            add(&mut steps, AXUM, routes);
        }
        if matches!(target.task_slot(), TaskSlot::NeedsCalibration { .. }) {
            let enter = target.places(ProbePoint::TokioTaskEnter);
            if !enter.is_empty() {
                add(&mut steps, TOKIO, enter);
            }
        }
        if !self.config.database.enabled {
            return steps;
        }
        let sets = self.config.database.probes;
        for point in POINTS {
            let places = target.places(point);
            if point == ProbePoint::SqlxBeginText && !target.binary.has(Library::SqlxPostgres) {
                // MySQL's driver runs that text as a statement like any other; SQLite's makes it on a thread of its own.
                continue;
            }
            if !is_on(sets, point.set()) {
                self.probes.set(point.program(), &name, State::Disabled, "database.probes leaves it out");
            } else if !places.is_empty() {
                add(&mut steps, point.program(), places);
            } else if target.has(point.library()) {
                // A library that is not there is no news.
                self.probes.set(point.program(), &name, State::Disabled, target.presence_of(point));
            }
        }
        for (point, index) in self.config.database.probe.iter().zip(0u8..) {
            let places = target.places(ProbePoint::Custom(index));
            if places.is_empty() {
                let reason = target.presence_of(ProbePoint::Custom(index));
                self.probes.set(&point.function, &name, State::Failed, reason);
                continue;
            }
            match custom(point) {
                Custom::Call(program) => add(&mut steps, program, places),
                Custom::Statement(_) => add(&mut steps, "statement", places),
            }
        }
        if self.seeks_statements(target) {
            add(&mut steps, "statement", target.places(ProbePoint::SqlxStatement));
        }
        for step in &mut steps {
            step.places.sort_unstable();
            step.places.dedup();
        }
        steps.retain(|step| !step.places.is_empty());
        steps
    }

    /// Whether sqlx' own functions are watched for their statements: its logger is inlined.
    fn seeks_statements(&self, target: &Target) -> bool {
        self.config.database.probes.sqlx && target.places(ProbePoint::SqlxQuery).is_empty()
    }

    /// What is observed of the target's database libraries, once everything is attached.
    pub(super) fn drivers(&mut self, target: &Target) -> Drivers {
        let mut drivers = Drivers {
            tasks: matches!(target.task_slot(), TaskSlot::Known(_)),
            runtime: target.has(Library::Tokio),
            shared_connections: target.has(Library::TokioPostgres),
            system: system(target),
            dialect: dialect(|library| target.binary.has(library)),
            ..Drivers::default()
        };
        drivers.calls = self.has_probe(target, ProbePoint::SqlxQuery.program());
        drivers.ends = drivers.calls && self.has_probe(target, ProbePoint::SqlxQueryEnd.program());
        if self.has_probe(target, "statement") {
            self.lay_out(target, &mut drivers);
        }
        drivers
    }

    /// Says to the programs where functions hold their statements, or that the place is sought.
    fn lay_out(&mut self, target: &Target, drivers: &mut Drivers) {
        let mut wanted: Vec<(ProbePoint, Layout)> = Vec::new();
        if self.seeks_statements(target) {
            let sought = Layout { argument: 1, direct: 0, pointer: 0, length: 0, known: 0 };
            wanted.push((ProbePoint::SqlxStatement, sought));
        }
        for (point, index) in self.config.database.probe.iter().zip(0u8..) {
            if let Custom::Statement(layout) = custom(point) {
                wanted.push((ProbePoint::Custom(index), layout));
            }
        }
        let pid = target.process.key.pid;
        for (point, layout) in wanted {
            for address in target.places(point).into_iter().filter_map(|offset| target.address(offset)) {
                self.place(&target.process, address, layout);
                if layout.known == 0 {
                    self.seekers.insert((pid, address), Seeker::new(layout.argument));
                    drivers.sought = true;
                } else {
                    drivers.calls = true;
                }
            }
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
                let Some(live) = self.live.get_mut(&tgid) else { return };
                live.drivers.calls = true;
                let (drivers, process) = (live.drivers, live.target.process.clone());
                self.place(&process, place, layout);
                if self.says(Line::Statements, &process) {
                    let name = process.exe.display();
                    tracing::info!(
                        "{name}: the place of statements in the arguments of {place:#x} is known: {layout:?}"
                    );
                }
                let _ = self.commands.send(Command::Drivers { tgid, drivers });
            }
            Found::Nowhere { reason } => {
                self.seekers.remove(&(tgid, place));
                let Some(process) = self.live.get(&tgid).map(|live| live.target.process.clone()) else { return };
                let name = process.exe.display().to_string();
                if self.says(Line::Statements, &process) {
                    tracing::warn!("{name}: statements of the function at {place:#x} are not read: {reason}");
                }
                self.probes.set("statement", &name, State::Failed, reason);
            }
        }
    }

    /// Says to the programs where a function holds its statement.
    fn place(&mut self, process: &Process, address: u64, layout: Layout) {
        let pid = process.key.pid;
        if let Err(error) = self.followed.layout(pid, address, layout)
            && self.says(Line::Maps, process)
        {
            tracing::warn!("process {pid}: statements at {address:#x} are not read: {error}");
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
