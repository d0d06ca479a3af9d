//! Attaches uprobes by file offset, once per binary, and takes them away in bounded time.
//!
//! Reads: file offsets that the target room found. Yields: links, counted by the processes that use them. Costs: an
//! attached probe about 1 µs per hit; attaching some ms; detaching up to 0.2 s each on new kernels, hence in parallel.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use aya::programs::uprobe::{UProbeAttachLocation, UProbeLink, UProbeScope};
use thiserror::Error;

use super::loader::{LoadError, Programs, chain};

/// A binary: device and inode.
pub type BinaryId = (u64, u64);

/// Why a uprobe is not attached.
#[derive(Debug, Error)]
pub enum UprobeError {
    /// The program cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refuses.
    #[error("uprobe {program} at {path}+{offset:#x}: {reason}{}", hint(reason))]
    Attach {
        /// Program.
        program: &'static str,
        /// Binary.
        path: String,
        /// File offset.
        offset: u64,
        /// Why.
        reason: String,
    },
}

/// What to do about the kernel's answer.
fn hint(reason: &str) -> &'static str {
    if reason.contains("os error 13") {
        "; kernels since July 2025 (CVE-2025-38466) want CAP_SYS_ADMIN for uprobes: grant it, or run as root"
    } else {
        ""
    }
}

#[derive(Default)]
struct Attached {
    links: Vec<UProbeLink>,
    processes: HashSet<u32>,
}

/// The attached uprobes.
#[derive(Default)]
pub struct Uprobes {
    attached: HashMap<(BinaryId, &'static str), Attached>,
}

impl Uprobes {
    /// Attaches `program` to each of `offsets` of the binary behind `path` for `pid`, unless another process of that
    /// binary has it already. The probe fires for every process of the binary; the programs ask who is followed.
    ///
    /// # Errors
    /// One of the offsets could not be attached; then none stays.
    pub fn attach(
        &mut self,
        programs: &mut Programs,
        program: &'static str,
        binary: BinaryId,
        path: &Path,
        offsets: &[u64],
        pid: u32,
    ) -> Result<(), UprobeError> {
        let entry = self.attached.entry((binary, program)).or_default();
        entry.processes.insert(pid);
        if !entry.links.is_empty() {
            return Ok(());
        }
        let mut attach_all = || -> Result<Vec<UProbeLink>, UprobeError> {
            let uprobe = programs.uprobe(program)?;
            let mut links = Vec::with_capacity(offsets.len());
            for &offset in offsets {
                let error = |reason| UprobeError::Attach { program, path: path.display().to_string(), offset, reason };
                let id = uprobe
                    .attach(UProbeAttachLocation::AbsoluteOffset(offset), path, UProbeScope::AllProcesses)
                    .map_err(|source| error(chain(&source)))?;
                links.push(uprobe.take_link(id).map_err(|source| error(chain(&source)))?);
            }
            Ok(links)
        };
        match attach_all() {
            Ok(links) => {
                entry.links = links;
                Ok(())
            }
            Err(error) => {
                self.attached.remove(&(binary, program));
                Err(error)
            }
        }
    }

    /// Whether `program` is attached for `pid`.
    #[must_use]
    pub fn is_attached(&self, program: &'static str, pid: u32) -> bool {
        self.attached.iter().any(|((_, name), attached)| *name == program && attached.processes.contains(&pid))
    }

    /// `pid` ended or no longer needs `program`: detaches what no other process uses, in the background.
    pub fn release(&mut self, pid: u32, program: Option<&'static str>) {
        let mut unused = Vec::new();
        self.attached.retain(|(_, name), attached| {
            if program.is_none_or(|program| program == *name) {
                attached.processes.remove(&pid);
            }
            if attached.processes.is_empty() {
                unused.append(&mut attached.links);
            }
            !attached.processes.is_empty()
        });
        close_in_background(unused);
    }

    /// Detaches all, at most until `deadline`; the kernel finishes the rest when the daemon exits. Returns how many
    /// were still being detached.
    pub fn detach_all(&mut self, deadline: Instant) -> usize {
        let links: Vec<UProbeLink> = self.attached.drain().flat_map(|(_, attached)| attached.links).collect();
        let mut open = links.len();
        let done = close_in_background(links);
        while open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            match done.recv_timeout(left.max(Duration::from_millis(1))) {
                Ok(()) => open -= 1,
                Err(_) => break,
            }
        }
        open
    }
}

/// Closing a perf-event uprobe waits for an RCU grace period: a thread each lets them wait together.
fn close_in_background(links: Vec<UProbeLink>) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::sync_channel(links.len().max(1));
    for link in links {
        let sender = sender.clone();
        let closing = thread::Builder::new().name("detach".into()).spawn(move || {
            drop(link);
            let _ = sender.send(());
        });
        if let Err(error) = closing {
            tracing::debug!("no thread to detach in: {error}");
        }
    }
    receiver
}
