//! Runtimes that answer, and runtimes that do not: real ones where they are, servers with each fault otherwise.

mod cri;
mod docker;
mod facts;
mod fake;
mod real_cri;
mod real_docker;
mod store;

use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Facts, Lookup, RuntimeSettings, Runtimes};

/// An id of 64 times this digit.
pub fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

pub fn docker_at(socket: PathBuf) -> Runtimes {
    let settings = RuntimeSettings { cri: Vec::new(), docker: vec![socket], rootfs: "/".into() };
    Runtimes::start(&settings).unwrap()
}

pub fn cri_at(socket: PathBuf) -> Runtimes {
    let settings = RuntimeSettings { cri: vec![socket], docker: Vec::new(), rootfs: "/".into() };
    Runtimes::start(&settings).unwrap()
}

/// Waits until a condition holds; the answer is what made it hold.
pub fn eventually<T>(what: &str, within: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub const SOON: Duration = Duration::from_secs(20);

pub fn known(runtimes: &Runtimes, id: &str) -> Arc<Facts> {
    eventually("the container is known", SOON, || match runtimes.lookup(id) {
        Lookup::Known(facts) => Some(facts),
        _ => None,
    })
}
