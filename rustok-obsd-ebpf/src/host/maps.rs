//! The ring and the counters.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
};
use rustok_obsd_ebpf::host_event::{HOST_COUNTERS, HOST_KINDS, HostKind};

use crate::globals;

/// The records. The daemon sets the size.
#[map]
pub static HOST_EVENTS: RingBuf = RingBuf::with_byte_size(256 << 10, 0);

/// See [`HOST_COUNTERS`].
#[map]
pub static HOST_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(HOST_COUNTERS, 0);

/// Processes whose end was told, by tgid and start: two last threads that end at once both find that none is left. Asked
/// only where the kernel does not tell which one was the last; an entry is of use for microseconds.
#[map]
pub static HOST_ENDED: LruHashMap<[u64; 2], u8> = LruHashMap::with_max_entries(1024, 0);

/// Whether this process's end is told for the first time.
#[inline(always)]
pub fn first_end(tgid: u32, start: u64) -> bool {
    const EEXIST: i32 = -17;
    HOST_ENDED.insert(&[u64::from(tgid), start], &0, u64::from(BPF_NOEXIST)).err() != Some(EEXIST)
}

#[inline(always)]
fn count(index: u32) {
    if let Some(slot) = HOST_COUNTS.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's slot of a map value, checked for null.
        unsafe { *slot += 1 };
    }
}

/// A record lacks a field that could not be read.
#[inline(always)]
pub fn count_incomplete(kind: HostKind) {
    count(HOST_KINDS + kind as u32 - 1);
}

/// Writes a record; the daemon is woken when enough of them wait, or `now`.
#[inline(always)]
pub fn submit(kind: HostKind, record: &[u8], now: bool) {
    let wake = now || HOST_EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) >= globals::wakeup_bytes();
    let flags = u64::from(if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP });
    if HOST_EVENTS.output::<[u8]>(record, flags).is_err() {
        count(kind as u32 - 1);
    }
}
