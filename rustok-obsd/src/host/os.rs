//! The distribution.
//!
//! Reads: `etc/os-release`, else `usr/lib/os-release`, below `path.rootfs` (os-release(5)). Yields: `node_os_info`,
//! `node_os_version`, `node_os_support_end_timestamp_seconds`. Costs: an open and a stat; the file is read again
//! when it changed.

use super::{CollectError, Collector, Context, Settings, family::gauge};
use crate::contract::Family;
use crate::exposition::{Encoder, LabelSet};
use crate::target::inside::Root;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Labels; each is the key of the file in small letters.
const KEYS: &[&str] = &[
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];
const INFO: Family<'static> = gauge(
    "node_os_info",
    KEYS,
    "A metric with a constant '1' value labeled by build_id, id, id_like, image_id, image_version, name, pretty_name, \
     variant, variant_id, version, version_codename, version_id.",
);
const VERSION: Family<'static> =
    gauge("node_os_version", &["id", "id_like", "name"], "Metric containing the major.minor part of the OS version.");
const SUPPORT_END: Family<'static> =
    gauge("node_os_support_end_timestamp_seconds", &[], "Metric containing the end-of-life date timestamp of the OS.");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[INFO, VERSION, SUPPORT_END];

/// Where it is, the one that an administrator writes first.
const PLACES: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
/// Bytes of the file.
const MOST: u64 = 64 << 10;

struct Release {
    rootfs: PathBuf,
    read: Option<(SystemTime, Facts)>,
}

struct Facts {
    info: LabelSet,
    identity: LabelSet,
    version: Option<f64>,
    support_end: Option<i64>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Release { rootfs: settings.paths.rootfs.clone(), read: None })
}

impl Collector for Release {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let found = Root::open(&self.rootfs).ok().and_then(|root| {
            PLACES.iter().find_map(|place| {
                let file = root.open_file(Path::new(place)).ok()?;
                let changed = file.metadata().ok()?.modified().ok()?;
                Some((place, file, changed))
            })
        });
        let Some((place, file, changed)) = found else {
            return Err(CollectError::NoData(self.rootfs.join(PLACES[1]).display().to_string()));
        };
        if self.read.as_ref().is_none_or(|(read, _)| *read != changed) {
            let mut text = Vec::new();
            let read = file.take(MOST).read_to_end(&mut text);
            read.map_err(|source| CollectError::read(&self.rootfs.join(place), source))?;
            self.read = Some((changed, Facts::parse(&String::from_utf8_lossy(&text))));
        }
        let Some((_, facts)) = &self.read else { return Ok(()) };
        out.family(&INFO).put(&facts.info, 1u64);
        if let Some(version) = facts.version {
            out.family(&VERSION).put(&facts.identity, version);
        }
        if let Some(end) = facts.support_end {
            out.family(&SUPPORT_END).put([], end);
        }
        Ok(())
    }
}

impl Facts {
    fn parse(text: &str) -> Self {
        let pairs: Vec<(&str, String)> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim(), unquoted(value.trim())))
            .collect();
        let value = |label: &str| {
            let found = pairs.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(label));
            found.map_or("", |(_, value)| value.as_str())
        };
        let labels = |names: &[&'static str]| LabelSet::new(names.iter().map(|name| (*name, value(name))));
        Self {
            info: labels(KEYS),
            identity: labels(VERSION.labels),
            version: major_minor(value("version_id")),
            support_end: day(value("support_end")),
        }
    }
}

/// A value as a shell takes it.
fn unquoted(value: &str) -> String {
    let inner = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let mut out = String::new();
    let mut letters = inner.unwrap_or(value).chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if !value.starts_with('\'') => out.extend(letters.next()),
            letter => out.push(letter),
        }
    }
    out
}

/// `20.04.2` is 20.04.
fn major_minor(version: &str) -> Option<f64> {
    let is_number = |byte: &u8| byte.is_ascii_digit();
    let digits = |text: &str| text.bytes().take_while(is_number).count();
    let major = digits(version);
    let minor = version[major..].strip_prefix('.').map_or(0, |rest| digits(rest) + 1);
    version[..major + if minor > 1 { minor } else { 0 }].parse().ok()
}

/// Midnight (UTC) of a day `YYYY-MM-DD`, in seconds since 1970.
fn day(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // Days from the first of March of year 0 to 1970-01-01.
    Some((days - 719_468) * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_as_a_shell_does() {
        for (value, expected) in
            [("\"a b\"", "a b"), ("'a\\b'", "a\\b"), ("\"a\\\"b\"", "a\"b"), ("plain", "plain"), ("\"", "\"")]
        {
            assert_eq!(unquoted(value), expected);
        }
    }

    #[test]
    fn versions_and_days_are_numbers() {
        for (text, expected) in
            [("20.04.2", Some(20.04)), ("12", Some(12.0)), ("39.x", Some(39.0)), ("rolling", None), ("", None)]
        {
            assert_eq!(major_minor(text), expected, "{text}");
        }
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2024-02-29", Some(1_709_164_800)),
            ("2028-06-30", Some(1_845_936_000)),
            ("soon", None),
        ] {
            assert_eq!(day(text), expected, "{text}");
        }
    }
}
