//! Tasks that the target spawns: who asked for which.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_probe_read_user},
    programs::ProbeContext,
};
use rustok_obsd_ebpf::{Counter, Kind, SpawnHit};

use crate::{
    maps::{self, count},
    task::Current,
};

/// `tokio::runtime::task::core::Header::vtable`, behind the state and the queue's link.
const VTABLE: u64 = 0x10;
/// A task's id lies near its header.
const FARTHEST: u64 = 0x1000;

/// A task was made; `header` is its address.
#[inline(always)]
pub fn on_spawn(ctx: &ProbeContext, header: Option<u64>) {
    let Some(header) = header else { return };
    let Some(current) = Current::at(ctx) else { return };
    let place = current.target.place();
    if place == 0 {
        return;
    }
    let Some(child) = id(header, place) else {
        count(Counter::SpawnUnreadable, 1);
        return;
    };
    let hit = SpawnHit {
        kind: Kind::Spawn as u8,
        pad: [0; 3],
        tgid: current.tgid,
        tid: current.tid,
        pad2: 0,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        parent: current.task(),
        child,
    };
    maps::submit(hit.as_bytes());
}

/// The id of the task whose header this is; `place`: where its vtable holds the id's offset.
#[inline(always)]
fn id(header: u64, place: u64) -> Option<u64> {
    // SAFETY: the helper checks each address and fails on a bad one.
    unsafe {
        let vtable = bpf_probe_read_user((header + VTABLE) as *const u64).ok()?;
        let offset = bpf_probe_read_user((vtable + place) as *const u64).ok()?;
        if offset == 0 || offset >= FARTHEST || offset & 7 != 0 {
            return None;
        }
        bpf_probe_read_user((header + offset) as *const u64).ok()
    }
}
