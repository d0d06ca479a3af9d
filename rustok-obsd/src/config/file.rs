//! The file's layer: TOML with the place of every key.
//!
//! Reads: the text of one file. Yields: fields set and problems, all of them. Costs: once at start.

use super::error::{Problem, nearest};
use super::keys::KEYS;
use super::process::GroupRule;
use super::value::article;
use super::{Config, ProbePoint, Target};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// A file of this length is no configuration.
const MOST_BYTES: u64 = 1 << 20;

/// The file's text. A pipe is taken too; what never ends is not.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB, hence no configuration"));
    }
    Ok(text)
}

/// Applies the file's text to `config`; the problems are added.
pub(super) fn apply(config: &mut Config, path: &Path, text: &str, problems: &mut Vec<Problem>) {
    let at = |offset: usize| {
        let line = 1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count();
        format!("{}:{line}", path.display())
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What was recovered from broken syntax would only yield misleading problems.
        problems.extend(errors.iter().map(|error| Problem {
            place: at(error.span().map_or(0, |span| span.start)),
            key: String::new(),
            message: format!("not TOML: {}", error.message()),
        }));
        return;
    }
    walk(config, "", table.get_ref(), &at, problems);
}

fn walk(
    config: &mut Config,
    prefix: &str,
    table: &DeTable<'_>,
    at: &dyn Fn(usize) -> String,
    problems: &mut Vec<Problem>,
) {
    for (name, value) in table {
        let full = format!("{prefix}{}", name.get_ref());
        let place = || at(name.span().start);
        if let Some(key) = KEYS.iter().find(|key| key.path == full) {
            if let Err(message) = (key.slot)(config).set_toml(value.get_ref()) {
                problems.push(Problem { place: place(), key: full, message });
            }
        } else if full == "targets" {
            config.targets = tables(value.get_ref(), &full, &place(), at, problems, Target::read);
        } else if full == "database.probe" {
            config.database.probe = tables(value.get_ref(), &full, &place(), at, problems, ProbePoint::read);
        } else if full == "process.group" {
            config.process.group = tables(value.get_ref(), &full, &place(), at, problems, GroupRule::read);
        } else if KEYS.iter().any(|key| is_below(key.path, &full)) {
            match value.get_ref() {
                DeValue::Table(inner) => walk(config, &format!("{full}."), inner, at, problems),
                other => {
                    let message = format!("is {}; allowed: a table `[{full}]`", article(other));
                    problems.push(Problem { place: place(), key: full, message });
                }
            }
        } else {
            let message = unknown(prefix, name.get_ref());
            problems.push(Problem { place: place(), key: full, message });
        }
    }
}

/// Whether a key's path lies below a table.
fn is_below(path: &str, table: &str) -> bool {
    path.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

/// Reads one of several tables of the same name.
type Read<T> = fn(&DeTable<'_>, &dyn Fn(usize) -> String, usize, &mut Vec<Problem>) -> T;

fn tables<T>(
    value: &DeValue<'_>,
    key: &str,
    place: &str,
    at: &dyn Fn(usize) -> String,
    problems: &mut Vec<Problem>,
    read: Read<T>,
) -> Vec<T> {
    let wrong = |value: &DeValue<'_>| Problem {
        place: place.to_owned(),
        key: key.to_owned(),
        message: format!("is {}; allowed: tables `[[{key}]]`", article(value)),
    };
    let DeValue::Array(list) = value else {
        problems.push(wrong(value));
        return Vec::new();
    };
    let mut found = Vec::new();
    for item in list {
        if let DeValue::Table(table) = item.get_ref() {
            found.push(read(table, at, item.span().start, problems));
        } else {
            problems.push(wrong(item.get_ref()));
        }
    }
    found
}

/// The message for an unknown key: the nearest known one of its table, or of all, and the table's keys.
fn unknown(prefix: &str, name: &str) -> String {
    let mut siblings: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| key.path.strip_prefix(prefix))
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    match prefix {
        "" => siblings.insert(0, "targets"),
        "database." => siblings.push("probe"),
        "process." => siblings.push("group"),
        _ => {}
    }
    siblings.dedup();
    let hint = nearest(name, siblings.iter().copied())
        .map(|near| format!("{prefix}{near}"))
        .or_else(|| KEYS.iter().find(|key| key.path.rsplit('.').next() == Some(name)).map(|key| key.path.to_owned()))
        .map_or(String::new(), |near| format!(" did you mean `{near}`?"));
    format!("unknown key;{hint} allowed here: {}", siblings.join(", "))
}
