//! ZFS: its caches and intent log, pools and datasets.
//!
//! Reads: the statistics below `/proc/spl/kstat/zfs` (module/os/linux/spl/spl-kstat.c). Yields: a family per statistic, named
//! after it, `node_zfs_zpool_state`. Costs: a file for each of eleven subsystems, kept open, two per pool, one per dataset.

use super::folder::{metric_name, names};
use super::{Bag, CollectError, Collector, Context, KeptFile, Settings, family::gauge, read_once, text};
use crate::contract::{Family, Kind};
use crate::exposition::{Encoder, Value};
use rustc_hash::FxHashMap;
use std::path::PathBuf;

const STATE: Family<'static> = gauge("node_zfs_zpool_state", &["zpool", "state"], "kstat.zfs.misc.state");
const STATES: [&str; 7] = ["online", "degraded", "faulted", "offline", "removed", "unavail", "suspended"];

/// Families are named after statistics but for this one.
pub const FAMILIES: &[Family<'static>] = &[STATE];

/// File, and what the names of its families begin with.
const SUBSYSTEMS: [(&str, &str); 11] = [
    ("abdstats", "node_zfs_abd_"),
    ("arcstats", "node_zfs_arc_"),
    ("dbufstats", "node_zfs_dbuf_"),
    ("dmu_tx", "node_zfs_dmu_tx_"),
    ("dnodestats", "node_zfs_dnode_"),
    ("fm", "node_zfs_fm_"),
    ("vdev_cache_stats", "node_zfs_vdev_cache_"),
    ("vdev_mirror_stats", "node_zfs_vdev_mirror_"),
    ("xuio_stats", "node_zfs_xuio_"),
    ("zfetchstats", "node_zfs_zfetch_"),
    ("zil", "node_zfs_zil_"),
];

/// Families of one file, by the names of its statistics.
#[derive(Default)]
struct Names(FxHashMap<Box<[u8]>, (String, String)>);

impl Names {
    /// Name of the family and its HELP text.
    fn of(&mut self, statistic: &[u8], prefix: &str, file: &str) -> &(String, String) {
        if !self.0.contains_key(statistic) {
            let text = String::from_utf8_lossy(statistic);
            let names = (format!("{prefix}{}", metric_name(&text)), format!("kstat.zfs.misc.{file}.{text}"));
            self.0.insert(statistic.into(), names);
        }
        &self.0[statistic]
    }
}

struct Subsystem {
    file: KeptFile,
    name: &'static str,
    prefix: &'static str,
    names: Names,
}

struct Zfs {
    folder: PathBuf,
    subsystems: Vec<Subsystem>,
    io: Names,
    datasets: Names,
    buffer: Vec<u8>,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let folder = settings.procfs("spl/kstat/zfs");
    let subsystem = |(name, prefix): &(&'static str, &'static str)| Subsystem {
        file: KeptFile::new(folder.join(name)),
        name,
        prefix,
        names: Names::default(),
    };
    let subsystems = SUBSYSTEMS.iter().map(subsystem).collect();
    let (io, datasets) = Default::default();
    Box::new(Zfs { folder, subsystems, io, datasets, buffer: Vec::new(), bag: Bag::default() })
}

/// The numbers of a file `name type data`: types 3 and 4 are whole numbers of 64 bits.
fn numbers(file: &[u8]) -> impl Iterator<Item = (&[u8], Value)> {
    text::lines(file).skip(2).filter_map(|line| {
        let mut words = text::words(line);
        let (name, kind, data) = (words.next()?, words.next()?, words.next()?);
        let value = match kind {
            b"4" => Value::U64(text::u64(data)?),
            b"3" => Value::I64(text::i64(data)?),
            _ => return None,
        };
        Some((name, value))
    })
}

/// The name of a dataset, which may have blanks in it.
fn dataset(file: &[u8]) -> Option<String> {
    let name = text::lines(file).find_map(|line| {
        let rest = line.strip_prefix(b"dataset_name")?.trim_ascii_start();
        Some(rest.strip_prefix(b"7")?.trim_ascii())
    })?;
    Some(String::from_utf8_lossy(name).into_owned())
}

impl Zfs {
    fn pool(&mut self, pool: &str) {
        let folder = self.folder.join(pool);
        for file in names(&folder).unwrap_or_default() {
            let path = folder.join(&file);
            // A pool that is exported takes its files with it.
            let known = file == "io" || file == "state" || file.starts_with("objset-");
            if !known || read_once(&path, &mut self.buffer).is_err() {
                continue;
            }
            if file == "io" {
                // A line of names and one of numbers.
                let mut lines = text::lines(&self.buffer).skip(1);
                let (Some(titles), Some(line)) = (lines.next(), lines.next()) else { continue };
                for (title, word) in text::words(titles).zip(text::words(line)) {
                    let Some(value) = text::u64(word) else { continue };
                    let (family, help) = self.io.of(title, "node_zfs_zpool_", "io");
                    self.bag.put(family, Kind::Untyped, help, &[("zpool", pool)], value);
                }
            } else if file == "state" {
                let state = String::from_utf8_lossy(self.buffer.trim_ascii()).to_lowercase();
                for known in STATES {
                    self.bag.add(&STATE, &[pool, known], u64::from(state == known));
                }
            } else if let Some(dataset) = dataset(&self.buffer) {
                for (name, value) in numbers(&self.buffer) {
                    let (family, help) = self.datasets.of(name, "node_zfs_zpool_dataset_", "objset");
                    let labels = [("zpool", pool), ("dataset", dataset.as_str())];
                    self.bag.put(family, Kind::Untyped, help, &labels, value);
                }
            }
        }
    }
}

impl Collector for Zfs {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let entries = names(&self.folder)?;
        let mut outcome = Ok(());
        for Subsystem { file, name, prefix, names } in &mut self.subsystems {
            // Versions differ in what they have.
            let text = match file.read() {
                Ok(text) => text,
                Err(CollectError::NoData(_)) => continue,
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            };
            for (statistic, value) in numbers(text) {
                let (family, help) = names.of(statistic, prefix, name);
                self.bag.put(family, Kind::Untyped, help, &[], value);
            }
        }
        for entry in &entries {
            if self.folder.join(entry).is_dir() {
                self.pool(entry);
            }
        }
        self.bag.write(out);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_of_datasets_are_read() {
        let file = b"23 1 0x01 7 2160 1 2\nname  type data\ndataset_name  7    a/b  c \nwrites 4 12\nlow 3 -1\nbad 4 -1\nx 7 y\n";
        let found: Vec<_> = numbers(file).collect();
        assert_eq!(found, [(b"writes".as_slice(), Value::U64(12)), (b"low".as_slice(), Value::I64(-1))]);
        assert_eq!((dataset(file).as_deref(), dataset(b"name type data\n")), (Some("a/b  c"), None));
    }
}
