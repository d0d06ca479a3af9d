//! What a scrape of groups of processes costs, at 150 and 2 000 real processes that sleep, and where descriptors cannot be
//! kept, as CPU time. Throughput is in processes.
//!
//! `cargo bench -p rustok-obsd --bench process`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustok_obsd::config::Config;
use rustok_obsd::exposition::{Exposition, Format, Part, Scrape, Scratch};
use rustok_obsd::process::{ProcessGroups, files};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// Processes that sleep until they are dropped.
struct Sleepers(Vec<libc::pid_t>);

impl Sleepers {
    fn grow_to(&mut self, count: usize) {
        while self.0.len() < count {
            // SAFETY: the child calls nothing but these two.
            let pid = unsafe {
                let pid = libc::fork();
                if pid == 0 {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    loop {
                        libc::pause();
                    }
                }
                pid
            };
            assert!(pid > 0, "no more processes: raise ulimit -u");
            self.0.push(pid);
        }
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for pid in &self.0 {
            // SAFETY: a child of ours that was not waited for yet.
            unsafe {
                libc::kill(*pid, libc::SIGKILL);
                libc::waitpid(*pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// CPU time of this thread, the kernel's part included: what else runs on the machine does not count.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a pointer to a value of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn scrapes(criterion: &mut Criterion) {
    files::raise_descriptors();
    let mut sleepers = Sleepers(Vec::new());
    let mut group = criterion.benchmark_group("processes");
    for count in [150, 2000] {
        sleepers.grow_to(count);
        group.throughput(Throughput::Elements(count as u64));
        for kept in [true, false] {
            let groups = Arc::new(ProcessGroups::new(&Config::default()).expect("there is a procfs"));
            if !kept {
                groups.with_table(|table| table.set_most_kept(0));
            }
            let exposition = Exposition::new();
            exposition.register(Part::Process, Arc::clone(&groups) as _);
            let mut scratch = Scratch::default();
            let scrape = || Scrape { part: Some(Part::Process), ..Scrape::default() };
            let name = format!("{count}/{}", if kept { "kept" } else { "opened" });
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    let start = cpu_time();
                    for _ in 0..iterations {
                        black_box(exposition.render_into(&mut scratch, &scrape(), Format::Text, true).len());
                    }
                    cpu_time() - start
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = scrapes
}
criterion_main!(benches);
