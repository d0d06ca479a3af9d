//! Metrics that scripts left in files.
//!
//! Reads: `*.prom` in the folders of `collector.textfile.directory`. Yields: their families;
//! `node_textfile_{mtime_seconds,scrape_error}`. Costs: listing the folders and a stat(2) per file; a file is read and checked
//! when its time or size changed only.
//!
//! A file with an error is left out whole and said once in the log. Files may add to one family; where they do not agree on its
//! HELP or type the first one, by name, counts, and the others' samples of it are left out.

mod parse;

use super::family::gauge;
use super::{CollectError, Collector, Context, Settings, read_once};
use crate::contract::{Family, Kind, Origin, Stability};
use crate::exposition::{Encoder, Format, Value, WrittenLabels};
use globset::GlobBuilder;
use parse::{ParsedFamily, Sample};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const MTIME: Family<'static> =
    gauge("node_textfile_mtime_seconds", &["file"], "Unixtime mtime of textfiles successfully read.");
const ERROR: Family<'static> =
    gauge("node_textfile_scrape_error", &[], "1 if there was an error opening or reading a file, 0 otherwise");

/// Its families but those of the files.
pub const FAMILIES: &[Family<'static>] = &[MTIME, ERROR];

struct Textfile {
    directories: Vec<String>,
    /// By path.
    files: Vec<File>,
    families: Vec<Merged>,
    /// What was wrong last time, so that each thing is logged once.
    problems: Vec<String>,
    /// Disagreements among the files.
    conflicts: Vec<String>,
}

/// A file as it was read.
struct File {
    path: PathBuf,
    name: String,
    stamp: Stamp,
    content: Result<Vec<ParsedFamily>, String>,
}

/// What changes with a file's content: second and nanosecond of its change, its size, its inode.
type Stamp = (i64, i64, u64, u64);

fn stamp(file: &Metadata) -> Stamp {
    (file.mtime(), file.mtime_nsec(), file.size(), file.ino())
}

/// A family of all files.
struct Merged {
    name: String,
    kind: Option<Kind>,
    help: String,
    samples: Vec<(usize, usize, usize)>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Textfile::new(settings.options.textfile_directory.clone()))
}

impl Collector for Textfile {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.refresh();
        self.write(out);
        Ok(())
    }
}

impl Textfile {
    fn new(directories: Vec<String>) -> Self {
        Self { directories, files: Vec::new(), families: Vec::new(), problems: Vec::new(), conflicts: Vec::new() }
    }

    /// Reads what is new.
    fn refresh(&mut self) {
        let (mut problems, mut changed) = (Vec::new(), false);
        let mut old = std::mem::take(&mut self.files).into_iter().peekable();
        for path in self.list(&mut problems) {
            // Both are sorted: those that are passed are gone.
            while old.peek().is_some_and(|file| file.path < path) {
                old.next();
                changed = true;
            }
            let known = old.next_if(|file| file.path == path);
            match fs::metadata(&path) {
                Ok(data) => match known {
                    Some(file) if file.stamp == stamp(&data) => self.files.push(file),
                    _ => {
                        changed = true;
                        self.files.push(File::read(path, &data));
                    }
                },
                Err(error) => {
                    changed |= known.is_some();
                    problems.push(format!("{}: {error}", path.display()));
                }
            }
        }
        if changed || old.next().is_some() {
            self.merge();
        }
        problems.extend(
            self.files.iter().filter_map(|file| Some(format!("{}: {}", file.name, file.content.as_ref().err()?))),
        );
        problems.extend(self.conflicts.iter().cloned());
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!("collector textfile: {problem}");
        }
        self.problems = problems;
    }

    /// The files, sorted.
    fn list(&self, problems: &mut Vec<String>) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for folder in self.directories.iter().flat_map(|pattern| expand(pattern)) {
            match fs::read_dir(&folder) {
                Ok(entries) => {
                    let paths = entries.flatten().map(|entry| entry.path());
                    files.extend(paths.filter(|path| path.as_os_str().as_encoded_bytes().ends_with(b".prom")));
                }
                Err(error) => problems.push(format!("{}: {error}", folder.display())),
            }
        }
        files.sort_unstable();
        files.dedup();
        files
    }

    /// Puts the files' families together.
    fn merge(&mut self) {
        self.families.clear();
        self.conflicts.clear();
        let mut by_name: FxHashMap<&str, usize> = FxHashMap::default();
        let mut sources: Vec<Vec<&str>> = Vec::new();
        let mut seen: FxHashSet<(usize, &str, &[u8])> = FxHashSet::default();
        for (file_at, file) in self.files.iter().enumerate() {
            for (family_at, family) in file.content.iter().flatten().enumerate() {
                let at = *by_name.entry(&family.name).or_insert_with(|| {
                    let (name, help) = (family.name.clone(), family.help.clone());
                    self.families.push(Merged { name, kind: family.kind, help, samples: Vec::new() });
                    sources.push(Vec::new());
                    self.families.len() - 1
                });
                let merged = &mut self.families[at];
                let differs = if family.kind.unwrap_or(Kind::Untyped) != merged.kind.unwrap_or(Kind::Untyped) {
                    "type"
                } else if !family.help.is_empty() && !merged.help.is_empty() && family.help != merged.help {
                    "HELP"
                } else {
                    ""
                };
                if !differs.is_empty() {
                    let (name, first) = (&family.name, sources[at].first().copied().unwrap_or_default());
                    let what = format!("{}: {differs} of {name} is not that of {first}; left out", file.name);
                    self.conflicts.push(what);
                    continue;
                }
                if merged.help.is_empty() {
                    merged.help.clone_from(&family.help);
                }
                sources[at].push(&file.name);
                for (sample_at, sample) in family.samples.iter().enumerate() {
                    if seen.insert((at, sample.suffix, &sample.labels)) {
                        merged.samples.push((file_at, family_at, sample_at));
                    } else {
                        let labels = String::from_utf8_lossy(&sample.labels);
                        let series = format!("{}{}{{{labels}}}", family.name, sample.suffix);
                        self.conflicts.push(format!("{}: {series} is there already; left out", file.name));
                    }
                }
            }
        }
        for (merged, sources) in self.families.iter_mut().zip(sources) {
            if merged.help.is_empty() {
                merged.help = format!("Metric read from {}", sources.join(", "));
            }
        }
    }

    fn write(&self, out: &mut Encoder<'_>) {
        let openmetrics = out.format() == Format::OpenMetrics;
        for merged in &self.families {
            let family = Family {
                name: &merged.name,
                kind: merged.kind.unwrap_or(Kind::Untyped),
                unit: "",
                help: &merged.help,
                labels: &[],
                origin: Origin::Kernel,
                stability: Stability::NodeExporter,
            };
            let mut samples = out.family(&family);
            for (file, family, sample) in &merged.samples {
                let Ok(families) = &self.files[*file].content else { continue };
                let Sample { suffix, labels, openmetrics: other, value, .. } = &families[*family].samples[*sample];
                let labels = other.as_ref().filter(|_| openmetrics).unwrap_or(labels);
                samples.put_part(suffix, WrittenLabels(labels), *value);
            }
        }
        let mut samples = out.family(&MTIME);
        for file in self.files.iter().filter(|file| file.content.is_ok()) {
            let (seconds, nanos, ..) = file.stamp;
            let time = u64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(nanos));
            samples.put([file.name.as_str()], Value::Nanos(time.unwrap_or_default()));
        }
        out.family(&ERROR).put([], u64::from(!self.problems.is_empty()));
    }
}

impl File {
    fn read(path: PathBuf, data: &Metadata) -> Self {
        let mut text = Vec::new();
        let content = if data.is_file() {
            let read = read_once(&path, &mut text).map_err(|error| error.to_string());
            read.and_then(|()| parse::parse(&text).map_err(|error| error.to_string()))
        } else {
            // Opening a FIFO would wait for its writer.
            Err("is no file".into())
        };
        Self { name: path.to_string_lossy().into_owned(), path, stamp: stamp(data), content }
    }
}

/// The folders that a pattern names, sorted; itself where it has none of `*?[` or names nothing.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in Path::new(pattern) {
        let text = part.to_string_lossy();
        let glob = text.contains(['*', '?', '[']).then(|| GlobBuilder::new(&text).literal_separator(true).build());
        let Some(Ok(glob)) = glob else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let matcher = glob.compile_matcher();
        let below = found.iter().flat_map(|path| {
            let folder = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter(|entry| matcher.is_match(entry.file_name())).map(|entry| path.join(entry.file_name()))
        });
        found = below.collect();
    }
    found.retain(|path| path.exists());
    found.sort_unstable();
    if found.is_empty() { vec![pattern.into()] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::{Scrape, to_text_of};
    use std::cell::RefCell;

    /// Writes the collector alone.
    struct Alone(RefCell<Textfile>);

    impl crate::exposition::Collect for Alone {
        fn collect(&self, out: &mut Encoder<'_>) {
            self.0.borrow_mut().refresh();
            self.0.borrow().write(out);
        }
    }

    fn text(collector: &Alone) -> String {
        to_text_of(collector, &Scrape::default(), Format::Text)
    }

    #[test]
    fn only_what_changed_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let collector = Alone(RefCell::new(Textfile::new(vec![folder.path().display().to_string()])));
        assert_eq!(
            text(&collector).lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(),
            ["node_textfile_scrape_error 0"]
        );
        fs::write(path("a.prom"), "x 1\n").unwrap();
        fs::write(path("b.prom"), "y 1\n").unwrap();
        assert!(text(&collector).contains("\nx 1\n"));
        let kept = |at: usize| collector.0.borrow().files[at].content.as_ref().map_or(std::ptr::null(), Vec::as_ptr);
        let before = [kept(0), kept(1)];
        fs::write(path("b.prom"), "y 22\n").unwrap();
        let now = text(&collector);
        assert!(now.contains("\nx 1\n") && now.contains("\ny 22\n"), "{now}");
        assert_eq!(kept(0), before[0]);
        fs::remove_file(path("a.prom")).unwrap();
        fs::write(path("c.prom"), "y 3\nz 4\n").unwrap();
        fs::create_dir(path("d.prom")).unwrap();
        let now = text(&collector);
        assert!(!now.contains("\nx 1\n") && now.contains("\ny 22\n") && now.contains("\nz 4\n"), "{now}");
        assert!(!now.contains("\ny 3\n") && now.contains("node_textfile_scrape_error 1"), "{now}");
        let problems = collector.0.borrow().problems.join("\n");
        assert!(problems.contains("d.prom: is no file") && problems.contains("y{} is there already"), "{problems}");
    }

    #[test]
    fn bounds_are_canonical_in_openmetrics() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("a.prom"),
            "# TYPE h histogram\nh_bucket{le=\"1e6\"} 1\nh_bucket{le=\"2\"} 0\nh_sum 5\nh_count 1\n",
        )
        .unwrap();
        let collector =
            Alone(RefCell::new(Textfile::new(vec![folder.path().join("*").parent().unwrap().display().to_string()])));
        assert!(
            text(&collector).contains(
                "h_bucket{le=\"1e+06\"} 1\nh_bucket{le=\"2\"} 0\nh_bucket{le=\"+Inf\"} 1\nh_sum 5\nh_count 1\n"
            )
        );
        let openmetrics = to_text_of(&collector, &Scrape::default(), Format::OpenMetrics);
        assert!(openmetrics.contains("h_bucket{le=\"2.0\"} 0\n"), "{openmetrics}");
    }
}
