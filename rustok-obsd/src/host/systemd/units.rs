//! What is asked of systemd at a scrape.
//!
//! Reads: a connection. Yields: the manager's state, the units that are wanted, their properties. Costs: see the collector;
//! up to 32 questions are under way at once, for the bus has a limit of 128 per connection.

use super::STATES;
use super::bus::{Property, manager, property};
use crate::config::collector::{Filter, Pattern};
use crate::host::Settings;
use rustc_hash::FxHashMap;
use tokio::task::JoinSet;
use zbus::{Connection, Error, ObjectPath};

/// Questions under way at once.
const PARALLEL: usize = 32;
/// systemd's word for no number.
const NONE: u64 = u64::MAX;

/// A property that units of a kind have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    Restarts,
    StartTime,
    TasksCurrent,
    TasksMax,
    LastTrigger,
    Accepted,
    Connections,
    Refused,
    ServiceType,
    MountType,
}

impl Wanted {
    /// Those that are numbers.
    const NUMBERS: usize = Self::ServiceType as usize;

    /// Interface and name.
    const fn property(self) -> (&'static str, &'static str) {
        match self {
            Self::Restarts => ("org.freedesktop.systemd1.Service", "NRestarts"),
            Self::StartTime => ("org.freedesktop.systemd1.Unit", "ActiveEnterTimestamp"),
            Self::TasksCurrent => ("org.freedesktop.systemd1.Service", "TasksCurrent"),
            Self::TasksMax => ("org.freedesktop.systemd1.Service", "TasksMax"),
            Self::LastTrigger => ("org.freedesktop.systemd1.Timer", "LastTriggerUSec"),
            Self::Accepted => ("org.freedesktop.systemd1.Socket", "NAccepted"),
            Self::Connections => ("org.freedesktop.systemd1.Socket", "NConnections"),
            Self::Refused => ("org.freedesktop.systemd1.Socket", "NRefused"),
            Self::ServiceType => ("org.freedesktop.systemd1.Service", "Type"),
            Self::MountType => ("org.freedesktop.systemd1.Mount", "Type"),
        }
    }
}

/// A unit that is wanted.
#[derive(Debug)]
pub struct Unit {
    pub name: String,
    pub state: String,
    path: String,
    /// The label `type`: of services and mounts their own, of others empty; `None` while it is not known.
    pub kind: Option<String>,
    /// By [`Wanted`].
    pub numbers: [Option<u64>; Wanted::NUMBERS],
}

/// As `ListUnits` has it: name, description, load state, active state, sub state, followed unit, path, job's number, kind and
/// path.
type Listed<'m> = (&'m str, &'m str, &'m str, &'m str, &'m str, &'m str, ObjectPath<'m>, u32, &'m str, ObjectPath<'m>);

/// What a scrape found.
pub struct Reading {
    filter: Filter,
    options: Options,
    pub version: Option<String>,
    pub virtualization: Option<String>,
    pub state: Option<String>,
    /// Units by state, of all units.
    pub summary: Vec<(String, u64)>,
    pub units: Vec<Unit>,
    /// Types by unit, until systemd reloads its units.
    types: FxHashMap<String, String>,
    loaded: Option<u64>,
}

#[derive(Clone, Copy)]
struct Options {
    restarts: bool,
    start_time: bool,
    tasks: bool,
}

impl Reading {
    /// By the options.
    pub fn new(settings: &Settings) -> Self {
        let options = &settings.options;
        // The whole name must match, as in node_exporter.
        let whole = |pattern: &Pattern| match pattern.is_set() {
            true => Pattern::parse(&format!("^(?:{})$", pattern.as_str())).unwrap_or_else(|_| pattern.clone()),
            false => Pattern::default(),
        };
        let filter =
            Filter { include: whole(&options.systemd_unit_include), exclude: whole(&options.systemd_unit_exclude) };
        let options = Options {
            restarts: options.systemd_restarts_metrics,
            start_time: options.systemd_start_time_metrics,
            tasks: options.systemd_task_metrics,
        };
        Self {
            filter,
            options,
            version: None,
            virtualization: None,
            state: None,
            summary: Vec::new(),
            units: Vec::new(),
            types: FxHashMap::default(),
            loaded: None,
        }
    }

    /// Forgets what was found, but for the types.
    pub fn clear(&mut self) {
        (self.version, self.virtualization, self.state) = (None, None, None);
        self.summary.clear();
        self.units.clear();
    }

    /// Finds it anew.
    pub async fn read(&mut self, connection: &Connection) -> zbus::Result<()> {
        self.clear();
        let of = |name| property(connection, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", name);
        let (version, virtualization, state, loaded, list) = tokio::join!(
            of("Version"),
            of("Virtualization"),
            of("SystemState"),
            of("UnitsLoadTimestampMonotonic"),
            manager(connection, "ListUnits"),
        );
        let list = list?;
        let text = |property: Option<Property>| match property {
            Some(Property::Text(text)) => Some(text),
            _ => None,
        };
        self.version = text(version?);
        self.state = text(state?);
        // Nothing is hardware; no answer is no knowledge.
        let virtualization = text(virtualization?).unwrap_or_else(|| "unknown".into());
        self.virtualization = Some(if virtualization.is_empty() { "none".into() } else { virtualization });
        self.forget_types(loaded?.as_ref());
        let body = list.body();
        let listed: Vec<Listed<'_>> = body.deserialize()?;
        self.take(&listed);
        self.ask(connection).await
    }

    /// Types may be others once the units were reloaded; a systemd that does not tell when is asked each time.
    fn forget_types(&mut self, loaded: Option<&Property>) {
        let loaded = match loaded {
            Some(Property::Number(loaded)) => Some(*loaded),
            _ => None,
        };
        if loaded.is_none() || loaded != self.loaded {
            self.types.clear();
        }
        self.loaded = loaded;
    }

    fn take(&mut self, listed: &[Listed<'_>]) {
        self.summary.extend(STATES.map(|state| (state.to_owned(), 0)));
        for (name, _, load, state, _, _, path, ..) in listed {
            match self.summary.iter_mut().find(|(known, _)| known == state) {
                Some((_, count)) => *count += 1,
                None => self.summary.push(((*state).to_owned(), 1)),
            }
            if *load == "loaded" && self.filter.wants(name) {
                let typed = name.ends_with(".service") || name.ends_with(".mount");
                self.units.push(Unit {
                    kind: if typed { self.types.get(*name).cloned() } else { Some(String::new()) },
                    name: (*name).to_owned(),
                    state: (*state).to_owned(),
                    path: path.as_str().to_owned(),
                    numbers: [None; Wanted::NUMBERS],
                });
            }
        }
        if self.types.len() > 2 * self.units.len() + 100 {
            // Transient units leave theirs behind.
            self.types.clear();
        }
    }

    /// The questions about units.
    fn questions(&mut self) -> Vec<(usize, Wanted)> {
        let Options { restarts, start_time, tasks } = self.options;
        let mut questions = Vec::new();
        for (at, unit) in self.units.iter_mut().enumerate() {
            let mut ask = |wanted, when: bool| {
                if when {
                    questions.push((at, wanted));
                }
            };
            match unit.name.rsplit('.').next() {
                Some("service") => {
                    ask(Wanted::ServiceType, unit.kind.is_none());
                    ask(Wanted::Restarts, restarts);
                    ask(Wanted::TasksCurrent, tasks);
                    ask(Wanted::TasksMax, tasks);
                }
                Some("mount") => ask(Wanted::MountType, unit.kind.is_none()),
                Some("timer") => ask(Wanted::LastTrigger, true),
                Some("socket") => {
                    for wanted in [Wanted::Accepted, Wanted::Connections, Wanted::Refused] {
                        ask(wanted, true);
                    }
                }
                _ => {}
            }
            let active = unit.state == "active";
            ask(Wanted::StartTime, start_time && active);
            unit.numbers[Wanted::StartTime as usize] = (start_time && !active).then_some(0);
        }
        questions
    }

    async fn ask(&mut self, connection: &Connection) -> zbus::Result<()> {
        for part in self.questions().chunks(PARALLEL) {
            let mut asked = JoinSet::new();
            for (at, wanted) in part.iter().copied() {
                let (connection, path) = (connection.clone(), self.units[at].path.clone());
                let (interface, name) = wanted.property();
                asked.spawn(async move { (at, wanted, property(&connection, &path, interface, name).await) });
            }
            while let Some(answer) = asked.join_next().await {
                let (at, wanted, answer) = answer.map_err(|error| Error::Failure(error.to_string()))?;
                self.put(at, wanted, answer?);
            }
        }
        Ok(())
    }

    fn put(&mut self, at: usize, wanted: Wanted, answer: Option<Property>) {
        let unit = &mut self.units[at];
        match (wanted, answer) {
            (Wanted::ServiceType | Wanted::MountType, Some(Property::Text(kind))) => {
                self.types.insert(unit.name.clone(), kind.clone());
                unit.kind = Some(kind);
            }
            // The unit has gone meanwhile.
            (Wanted::ServiceType | Wanted::MountType, _) => unit.kind = Some(String::new()),
            (wanted, Some(Property::Number(number))) if number != NONE => unit.numbers[wanted as usize] = Some(number),
            _ => {}
        }
    }
}
