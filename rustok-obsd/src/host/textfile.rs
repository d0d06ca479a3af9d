//! Metrics that scripts left in files.
//!
//! Reads: `*.prom` in the folders of `collector.textfile.directory`. Yields: their families;
//! `node_textfile_{mtime_seconds,scrape_error}`. Costs: listing the folders and a stat(2) per file; a file is read and checked
//! when its time or size changed only.
//!
//! A file with an error is left out whole and said once in the log. Files may add to one family; where they do not agree on its
//! HELP or type the first one, by name, counts, and the others' samples of it are left out.
//!
//! Users may write to these folders, and the daemon reads what they cannot: so no link is followed, neither a file's nor
//! that of a folder that a pattern found, nothing but regular files is opened for reading, what is wrong is said without a
//! word of the file, and files, their bytes and what is said of them are bounded.

mod parse;

use super::family::gauge;
use super::{CollectError, Collector, Context, Settings};
use crate::contract::{Family, Kind, Origin, Stability};
use crate::exposition::{Encoder, Format, Value, WrittenLabels};
use globset::GlobBuilder;
use parse::{ParsedFamily, Sample};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fs::{self, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const MTIME: Family<'static> =
    gauge("node_textfile_mtime_seconds", &["file"], "Unixtime mtime of textfiles successfully read.");
const ERROR: Family<'static> =
    gauge("node_textfile_scrape_error", &[], "1 if there was an error opening or reading a file, 0 otherwise");

/// Its families but those of the files.
pub const FAMILIES: &[Family<'static>] = &[MTIME, ERROR];

/// Files at most; those beyond, by path, are left out.
const MOST_FILES: usize = 1000;
/// Bytes of one file at most.
const FILE_BYTES: u64 = 4 << 20;
/// Bytes of all files at most; those beyond, by path, are left out.
const ALL_BYTES: u64 = 32 << 20;
/// Problems that are kept, and logged where they are new.
const MOST_PROBLEMS: usize = 20;

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
    /// Within [`ALL_BYTES`].
    fits: bool,
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
        let mut bytes = 0u64;
        for path in self.list(&mut problems) {
            // Both are sorted: those that are passed are gone.
            while old.peek().is_some_and(|file| file.path < path) {
                old.next();
                changed = true;
            }
            let known = old.next_if(|file| file.path == path);
            match fs::symlink_metadata(&path) {
                Ok(data) => {
                    bytes = bytes.saturating_add(data.size());
                    let fits = bytes <= ALL_BYTES;
                    match known {
                        Some(file) if file.stamp == stamp(&data) && file.fits == fits => self.files.push(file),
                        _ => {
                            changed = true;
                            self.files.push(File::read(path, &data, fits));
                        }
                    }
                }
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
        if problems.len() > MOST_PROBLEMS {
            let more = problems.len() - MOST_PROBLEMS;
            problems.truncate(MOST_PROBLEMS);
            problems.push(format!("{more} more problems"));
        }
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
        if files.len() > MOST_FILES {
            problems.push(format!("{} files; those beyond {MOST_FILES} are left out", files.len()));
            files.truncate(MOST_FILES);
        }
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
                        let series = format!("a series of {}{}", family.name, sample.suffix);
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
    /// Reads what `listed` is of.
    fn read(path: PathBuf, listed: &Metadata, fits: bool) -> Self {
        let mut stamp = stamp(listed);
        let content = match fits {
            true => content(&path, listed, &mut stamp),
            false => Err(format!("would make all files more than {ALL_BYTES} bytes; left out")),
        };
        Self { name: path.to_string_lossy().into_owned(), path, stamp, fits, content }
    }
}

/// The families of a file, and its stamp as it was read.
fn content(path: &Path, listed: &Metadata, stamp: &mut Stamp) -> Result<Vec<ParsedFamily>, String> {
    // To open a device can do something; opening a FIFO would wait for its writer.
    regular(listed)?;
    let options = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(options).open(path).map_err(|error| error.to_string())?;
    // Its owner may have put something else there since.
    let data = file.metadata().map_err(|error| error.to_string())?;
    regular(&data)?;
    *stamp = self::stamp(&data);
    let mut text = Vec::new();
    // It may grow meanwhile.
    file.take(FILE_BYTES + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES {
        return Err(format!("is longer than {FILE_BYTES} bytes; left out"));
    }
    parse::parse(&text).map_err(|error| error.to_string())
}

fn regular(data: &Metadata) -> Result<(), String> {
    match data {
        data if data.is_file() => Ok(()),
        data if data.is_symlink() => Err("is a symbolic link, and those are not followed; put a copy there".into()),
        _ => Err("is no file".into()),
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
            // No link: whoever may write there could have the daemon read elsewhere.
            let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.filter(|entry| matcher.is_match(entry.file_name())).map(|entry| path.join(entry.file_name()))
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
        assert!(
            problems.contains("d.prom: is no file") && problems.contains("a series of y is there already"),
            "{problems}"
        );
    }

    #[test]
    fn nothing_but_regular_files_is_read_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("mine/a")).unwrap();
        fs::create_dir(path("theirs")).unwrap();
        fs::write(path("theirs/secret.prom"), "secret 1\n").unwrap();
        fs::write(path("mine/a/good.prom"), "good 1\n").unwrap();
        std::os::unix::fs::symlink(path("theirs/secret.prom"), path("mine/a/link.prom")).unwrap();
        std::os::unix::fs::symlink(path("theirs"), path("mine/b")).unwrap();
        let name = std::ffi::CString::new(path("mine/a/fifo.prom").as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the name is a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        fs::File::create(path("mine/a/long.prom")).unwrap().set_len(FILE_BYTES + 1).unwrap();
        let collector = Alone(RefCell::new(Textfile::new(vec![path("mine/*").display().to_string()])));
        let now = text(&collector);
        assert!(now.contains("\ngood 1\n") && !now.contains("secret"), "{now}");
        let problems = collector.0.borrow().problems.join("\n");
        for part in ["link.prom: is a symbolic link", "fifo.prom: is no file", "long.prom: is longer than"] {
            assert!(problems.contains(part), "no {part} in {problems}");
        }
    }

    #[test]
    fn what_was_swapped_for_a_link_or_a_fifo_after_it_was_listed_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.prom");
        fs::write(&path, "a 1\n").unwrap();
        let listed = fs::symlink_metadata(&path).unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "secret 1\n").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let mut seen = stamp(&listed);
        assert!(content(&path, &listed, &mut seen).is_err());
        fs::remove_file(&path).unwrap();
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the name is a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert_eq!(content(&path, &listed, &mut seen).unwrap_err(), "is no file");
    }

    #[test]
    fn files_bytes_and_problems_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        for at in 0..=MOST_FILES {
            fs::write(folder.path().join(format!("{at:04}.prom")), format!("x{{at=\"{at}\"}} 1\nbad\n")).unwrap();
        }
        let collector = Alone(RefCell::new(Textfile::new(vec![folder.path().display().to_string()])));
        text(&collector);
        let problems = collector.0.borrow().problems.clone();
        assert!(problems[0].contains("1001 files; those beyond 1000"), "{problems:?}");
        assert_eq!((problems.len(), problems[20].as_str()), (21, "981 more problems"));

        let folder = tempfile::tempdir().unwrap();
        // One byte less than the bound.
        let filler = format!("#{}\n", "x".repeat(FILE_BYTES as usize - 8));
        for at in 0..9 {
            fs::write(folder.path().join(format!("{at}.prom")), format!("{filler}x{at} 1\n")).unwrap();
        }
        let collector = Alone(RefCell::new(Textfile::new(vec![folder.path().display().to_string()])));
        text(&collector);
        let problems = collector.0.borrow().problems.join("\n");
        assert!(problems.contains("8.prom: would make all files more than"), "{problems}");
        fs::remove_file(folder.path().join("0.prom")).unwrap();
        text(&collector);
        assert!(!collector.0.borrow().problems.join("\n").contains("would make"));
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
