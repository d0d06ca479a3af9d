//! What a scrape of cgroups costs: 1, 100 and 1 000 real ones, made and removed by the benchmark, with the text and gzip.
//! Times are the CPU's, of this process.
//!
//! `cargo bench -p rustok-obsd --bench container`, as root; throughput is in cgroups. Without the right to make cgroups it
//! says so and measures nothing.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustok_obsd::config::Paths;
use rustok_obsd::config::collector::Pattern;
use rustok_obsd::config::container::ContainerOptions;
use rustok_obsd::container::mounts::{Controller, Hierarchies};
use rustok_obsd::container::names::PathNames;
use rustok_obsd::container::{Containers, Settings, limit};
use rustok_obsd::exposition::{Exposition, Format, Part, Scrape, Scratch};
use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Cgroups of this process, removed at its end.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn make(count: usize) -> std::io::Result<Self> {
        let hierarchies = Hierarchies::find(&Paths::default()).map_err(std::io::Error::other)?;
        use Controller::{Cpu, CpuAcct, Io, Memory, Pressure};
        let roots: BTreeSet<PathBuf> = [Cpu, CpuAcct, Memory, Io, Pressure]
            .iter()
            .filter_map(|controller| hierarchies.get(*controller))
            .map(|place| place.root.join(format!("bench-{}", std::process::id())))
            .collect();
        let mut made = Self(Vec::new());
        for root in roots {
            for path in std::iter::once(root.clone()).chain((0..count).map(|i| root.join(format!("c{i}")))) {
                fs::create_dir(&path)?;
                made.0.push(path);
            }
        }
        Ok(made)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.0.iter().rev().for_each(|path| {
            let _ = fs::remove_dir(path);
        });
    }
}

/// CPU time of this process: others may be running.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn scrape(criterion: &mut Criterion) {
    let open_files = limit::raise();
    let mut group = criterion.benchmark_group("scrape");
    group.sample_size(20);
    for count in [1, 100, 1000] {
        let cgroups = match Cgroups::make(count) {
            Ok(cgroups) => cgroups,
            Err(error) => {
                println!("no cgroups can be made ({error}): run as root where cgroups are mounted writable");
                return;
            }
        };
        let id_include = Pattern::parse(&format!("^/bench-{}/", std::process::id())).expect("a pattern");
        let options = ContainerOptions { id_include, ..ContainerOptions::default() };
        let settings = Settings { paths: Paths::default(), options, open_files };
        let containers = Arc::new(Containers::new(&settings, Arc::new(PathNames)).expect("cgroups are there"));
        let exposition = Exposition::new();
        exposition.register(Part::Cadvisor, containers);
        let mut scratch = Scratch::default();
        group.throughput(Throughput::Elements(count as u64));
        for (name, gzip) in [("text", false), ("gzip", true)] {
            group.bench_function(format!("{count} {name}"), |bencher| {
                let wanted = || Scrape { part: Some(Part::Cadvisor), ..Scrape::default() };
                bencher.iter_custom(|rounds| {
                    let start = cpu_time();
                    for _ in 0..rounds {
                        black_box(exposition.render_into(&mut scratch, &wanted(), Format::Text, gzip).len());
                    }
                    cpu_time() - start
                });
            });
        }
        drop(cgroups);
    }
    group.finish();
}

criterion_group!(benches, scrape);
criterion_main!(benches);
