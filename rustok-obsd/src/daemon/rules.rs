//! From the configuration to what the rooms take.
//!
//! Reads: [`Config`]. Yields: selection rules, caps. Costs: once at start.

use super::DaemonError;
use crate::{
    config::{Config, Target},
    contract::{database, recorder::Limits},
    target::{Rule, Scanner, Selector, UnknownUser, UserNumbers},
};

/// One rule for each combination of an entry's alternatives: within an entry every kind of criterion must hold, in one
/// of its values.
///
/// # Errors
/// A user that is not there.
pub fn rules(targets: &[Target], users: &UserNumbers) -> Result<Vec<Rule>, UnknownUser> {
    fn each<T: Clone>(values: &[T]) -> Vec<Option<T>> {
        if values.is_empty() { vec![None] } else { values.iter().cloned().map(Some).collect() }
    }
    let mut rules = Vec::new();
    for (entry, target) in targets.iter().enumerate() {
        let user = target.user.as_deref().map(|user| users.number(user)).transpose()?;
        let trusted_owners: Vec<u32> =
            target.trusted_owners.iter().map(|user| users.number(user)).collect::<Result<_, _>>()?;
        for exe in each(&target.exe) {
            for cmdline in each(&target.command_line) {
                for port in each(&target.port) {
                    for cgroup in each(&target.cgroup) {
                        for pid in each(&target.pid) {
                            rules.push(Rule {
                                exe: exe.clone(),
                                cmdline: cmdline.clone(),
                                port: port.and_then(|port| port.try_into().ok()),
                                cgroup: cgroup.clone(),
                                pid,
                                user,
                                trusted_owners: trusted_owners.clone(),
                                entry,
                                service_name: target.service_name.clone(),
                                service_version: target.service_version.clone(),
                            });
                        }
                    }
                }
            }
        }
    }
    Ok(rules)
}

/// What finds the processes that the configuration selects.
///
/// # Errors
/// A rule that cannot be used, or a user that is not there.
pub fn scanner(config: &Config) -> Result<Scanner, DaemonError> {
    let rules = rules(&config.targets, &UserNumbers::read(&config.path.rootfs))?;
    Ok(Scanner::new(&config.path.procfs, Selector::new(&rules)?).with_rootfs(&config.path.rootfs))
}

/// Caps of the recorder: each route may be seen with some methods and statuses.
#[must_use]
pub fn recorder_limits(config: &Config) -> Limits {
    Limits { server_series: config.routes.limit.saturating_mul(8), ..Limits::default() }
}

/// Caps and bounds of the recorder of databases.
#[must_use]
pub fn database_settings(config: &Config) -> database::Settings {
    database::Settings {
        statements: config.database.statements,
        repeated: u32::try_from(config.database.repeated).unwrap_or(u32::MAX),
        requests: config.routes.limit.saturating_mul(4),
        modules: database::Modules::new(config.errors.modules.0.iter().cloned()),
        ..database::Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capture::connections::Connections,
        contract::{database::DatabaseRecorder, recorder::HttpRecorder},
        database::Tracker,
        exchange,
    };

    /// `MemoryMax=` of the unit, and how much of it what targets fill may take.
    #[test]
    fn all_stores_full_fit_into_the_units_memory() {
        let config = Config::default();
        let unit = include_str!("../../../deploy/systemd/rustok-obsd.service");
        let most =
            unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('M')?.parse::<u64>().ok());
        let (http, _) = HttpRecorder::new(recorder_limits(&config));
        let (database, _) = DatabaseRecorder::new(database_settings(&config));
        let connections = Connections::new(config.capture.sockets);
        let meters = http.meters().chain(database.meters()).chain([connections.meter()]);
        let (tracker, shared, wire) =
            (Tracker::default(), exchange::Shared::default(), exchange::postgres::Shared::default());
        let meters = meters.chain(tracker.meters()).chain(shared.meters()).chain(wire.meters());
        let spans = 2 * 1024 * config.traces.queue_size as u64 + crate::budget::Store::Parked.limit() as u64;
        let all = meters.map(|meter| meter.limit()).sum::<u64>();
        let (all, most) = ((all + spans) >> 20, most.expect("a number of MiB"));
        println!("{all} MiB");
        // What the allocator makes of it: 160 to 170 MiB where the budgets said 119 (`benches/memory.rs`).
        let resident = all * 7 / 5;
        // The rest is the daemon itself, its programs' maps, a scrape in the making, and the analysis of a binary.
        assert!(resident + 96 <= most, "the stores may take {all} MiB, {resident} of them resident, of {most}");
    }

    #[test]
    fn alternatives_of_one_entry_become_a_rule_each_and_keep_its_number() {
        let targets = [
            Target { exe: vec!["a".into(), "b".into()], port: vec![80, 81], ..Target::default() },
            Target { cgroup: vec!["/c".into()], ..Target::default() },
        ];
        let rules = rules(&targets, &UserNumbers::read(std::path::Path::new("/nowhere"))).unwrap();
        let told: Vec<_> =
            rules.iter().map(|rule| (rule.entry, rule.exe.as_deref(), rule.port.map(u16::from))).collect();
        assert_eq!(
            told,
            [
                (0, Some("a"), Some(80)),
                (0, Some("a"), Some(81)),
                (0, Some("b"), Some(80)),
                (0, Some("b"), Some(81)),
                (1, None, None)
            ]
        );
    }
}
