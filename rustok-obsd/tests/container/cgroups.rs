//! Cgroups of the test's own, in every hierarchy, removed at its end.

use rustok_obsd::config::Paths;
use rustok_obsd::config::collector::Pattern;
use rustok_obsd::config::container::ContainerOptions;
use rustok_obsd::container::mounts::{Controller, Hierarchies};
use rustok_obsd::container::names::{Names, PathNames};
use rustok_obsd::container::{Containers, Settings};
use rustok_obsd::exposition::{Format, Scrape, to_text, to_text_of};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use test_support::{Scraped, Skip};

/// All cgroups of this host.
pub fn containers(options: ContainerOptions) -> Result<Arc<Containers>, Skip> {
    containers_named(options, Arc::new(PathNames))
}

fn containers_named(options: ContainerOptions, names: Arc<dyn Names>) -> Result<Arc<Containers>, Skip> {
    let settings = Settings { paths: Paths::default(), options, open_files: 12_000 };
    let made = Containers::new(&settings, names);
    made.map(Arc::new).map_err(|error| Skip::new(error.to_string()))
}

/// A cgroup with others below it.
pub struct Cgroups {
    /// Its `id`.
    pub id: String,
    hierarchies: Hierarchies,
    roots: BTreeSet<PathBuf>,
}

const ALL: [Controller; 5] =
    [Controller::Cpu, Controller::CpuAcct, Controller::Memory, Controller::Io, Controller::Pressure];

impl Cgroups {
    /// Makes it.
    pub fn new(name: &str) -> Result<Self, Skip> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let hierarchies = Hierarchies::find(&Paths::default()).map_err(|error| Skip::new(error.to_string()))?;
        let id = format!("/obsd-{name}-{}-{number}", std::process::id());
        let places = ALL.iter().filter_map(|controller| hierarchies.get(*controller));
        let roots: BTreeSet<PathBuf> = places.map(|place| place.root.clone()).collect();
        let made = Self { id, hierarchies, roots };
        for root in &made.roots {
            let made = fs::create_dir(root.join(&made.id[1..]));
            made.map_err(|error| {
                Skip::new(format!("no cgroup can be made in {}: {error}; run as root", root.display()))
            })?;
        }
        if made.is_v2() {
            let error = made.write("", Controller::Memory, "cgroup.subtree_control", "+cpu +memory +io");
            error.map_err(|error| Skip::new(format!("controllers cannot be delegated: {error}")))?;
        }
        Ok(made)
    }

    /// Whether memory is of cgroup v2.
    pub fn is_v2(&self) -> bool {
        self.hierarchies.get(Controller::Memory).is_some_and(|place| place.v2)
    }

    /// By which number the kernel's events name the hierarchy of memory.
    pub fn memory_number(&self) -> u32 {
        let text = fs::read_to_string("/proc/self/cgroup").expect("the hierarchies");
        let number = |line: &str| {
            let mut parts = line.split(':');
            let number = parts.next()?.parse().ok()?;
            parts.next()?.split(',').any(|name| name == "memory").then_some(number)
        };
        if self.is_v2() { 0 } else { text.lines().find_map(number).expect("memory has a hierarchy") }
    }

    /// Allows a cgroup so many bytes, without swap.
    pub fn limit_memory(&self, child: &str, bytes: u64) {
        let files: &[_] = if self.is_v2() {
            &[("memory.max", bytes), ("memory.swap.max", 0)]
        } else {
            &[("memory.limit_in_bytes", bytes)]
        };
        for (file, bytes) in files {
            self.write(child, Controller::Memory, file, &bytes.to_string()).expect("a limit");
        }
    }

    fn folders(&self, child: &str) -> impl Iterator<Item = PathBuf> {
        let below = format!("{}/{child}", &self.id[1..]);
        self.roots.iter().map(move |root| root.join(below.trim_end_matches('/')))
    }

    /// Makes a cgroup below it. Yields its `id`.
    pub fn make(&self, child: &str) -> String {
        self.folders(child).for_each(|folder| fs::create_dir(&folder).expect("a cgroup"));
        format!("{}/{child}", self.id)
    }

    /// Removes one.
    pub fn remove(&self, child: &str) {
        for folder in self.folders(child) {
            let until = Instant::now() + Duration::from_secs(5);
            // A process that was killed leaves in its own time.
            while let Err(error) = fs::remove_dir(&folder) {
                assert!(Instant::now() < until, "{}: {error}", folder.display());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Where a cgroup below it is in the tree of a controller.
    pub fn folder(&self, child: &str, controller: Controller) -> PathBuf {
        self.hierarchies.get(controller).expect("the controller").root.join(&self.id[1..]).join(child)
    }

    /// Writes one of its files.
    pub fn write(&self, child: &str, controller: Controller, file: &str, text: &str) -> std::io::Result<()> {
        fs::write(self.folder(child, controller).join(file), text)
    }

    /// Runs a shell script in it.
    pub fn run(&self, child: &str, script: &str) -> Running {
        // The shell enters before it does anything else.
        let enter: String = self
            .folders(child)
            .map(|folder| format!("echo $$ > {}/cgroup.procs || exit 99\n", folder.display()))
            .collect();
        let mut command = Command::new("sh");
        command.arg("-c").arg(enter + script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().expect("a shell"))
    }

    /// Tells it and those below it.
    pub fn containers(&self, change: impl FnOnce(&mut ContainerOptions)) -> Arc<Containers> {
        self.containers_named(change, Arc::new(PathNames))
    }

    /// The same, with a runtime.
    pub fn containers_named(
        &self,
        change: impl FnOnce(&mut ContainerOptions),
        names: Arc<dyn Names>,
    ) -> Arc<Containers> {
        let id_include = Pattern::parse(&format!("^{}(/|$)", self.id)).expect("a pattern");
        let mut options = ContainerOptions { id_include, ..ContainerOptions::default() };
        change(&mut options);
        containers_named(options, names).expect("cgroups")
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let below = |folder: &PathBuf| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        for folder in self.folders("") {
            for child in below(&folder).into_iter().chain([folder]) {
                // What the scripts left running is in no other cgroup.
                let until = Instant::now() + Duration::from_secs(2);
                while fs::remove_dir(&child).is_err() && child.is_dir() && Instant::now() < until {
                    let left = fs::read_to_string(child.join("cgroup.procs")).unwrap_or_default();
                    for pid in left.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
                        // SAFETY: takes numbers only.
                        unsafe { libc::kill(pid, libc::SIGKILL) };
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

/// A process that is killed when it goes out of scope.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One scrape.
pub fn scrape(containers: &Containers) -> Scraped {
    Scraped::parse(&to_text(containers, Format::Text)).expect("a body")
}

/// One scrape that ends in time.
pub fn scrape_within(containers: &Containers, time: Duration) -> Scraped {
    let scrape = Scrape { deadline: Instant::now() + time, ..Scrape::default() };
    Scraped::parse(&to_text_of(containers, &scrape, Format::Text)).expect("a body")
}
