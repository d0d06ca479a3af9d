//! The maps. Sizes of the larger ones are set by the daemon.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use rustok_obsd_ebpf::{COUNTERS, Counter, Layout, MAX_FOLLOWED, MAX_TARGETS, PlaceKey, Target};

use crate::{globals, payload::Scratch, socket::SocketState};

/// Processes to follow, by tgid.
#[map]
pub static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(MAX_FOLLOWED, BPF_F_NO_PREALLOC);

/// Children that were ever followed for a target, by its tgid. The daemon makes and removes the entries; the programs
/// only add to them.
#[map]
pub static FORKED: HashMap<u32, u64> = HashMap::with_max_entries(MAX_TARGETS, BPF_F_NO_PREALLOC);

/// Of those, how many the programs follow no more. Only the daemon writes it, so that neither side overwrites the other.
#[map]
pub static RELEASED: HashMap<u32, u64> = HashMap::with_max_entries(MAX_TARGETS, BPF_F_NO_PREALLOC);

/// Ports on which targets listen, so that a connection is known from its handshake on.
#[map]
pub static PORTS: HashMap<u16, u8> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Followed sockets, by address of their `struct sock`.
#[map]
pub static SOCKETS: LruHashMap<u64, SocketState> = LruHashMap::with_max_entries(32768, 0);

/// Where the functions that take statements hold them.
#[map]
pub static LAYOUTS: HashMap<PlaceKey, Layout> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// What the daemon decided about a connection ([`rustok_obsd_ebpf::Capture`]), by its id.
#[map]
pub static VERDICTS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(8192, 0);

/// Room to build a record, two for each CPU: for sends, then for receives (the kernel does not run one program twice at a
/// time on a CPU, but may interrupt one by another). No per-CPU map: their values are bounded by 32 KiB
/// (`PCPU_MIN_UNIT_SIZE`). The daemon sets the number.
#[map]
pub static SCRATCH: Array<Scratch> = Array::with_max_entries(2, 0);

/// This CPU's room.
#[inline(always)]
pub fn scratch(receive: bool) -> Option<*mut Scratch> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    SCRATCH.get_ptr_mut(2 * cpu + u32::from(receive))
}

/// [`Counter`]s.
#[map]
pub static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// Next connection id per CPU.
#[map]
pub static CONNECTIONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The records.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Adds to a counter.
#[inline(always)]
pub fn count(counter: Counter, n: u64) {
    if let Some(slot) = COUNTS.get_ptr_mut(counter as u32) {
        // SAFETY: the pointer is to this CPU's slot of a map value, checked for null.
        unsafe { *slot += n };
    }
}

/// Writes a record; the daemon is woken only when enough of them wait. False, and counted, if the ring was full.
#[inline(always)]
pub fn submit(record: &[u8]) -> bool {
    output(record, wake_flags())
}

/// How a record of now should wake the daemon.
#[inline(always)]
pub fn wake_flags() -> u64 {
    let waiting = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    u64::from(if waiting >= globals::wakeup_bytes() { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

/// Writes a record that should be seen at once.
#[inline(always)]
pub fn submit_now(record: &[u8]) -> bool {
    output(record, u64::from(BPF_RB_FORCE_WAKEUP))
}

#[inline(always)]
fn output(record: &[u8], flags: u64) -> bool {
    let written = EVENTS.output::<[u8]>(record, flags).is_ok();
    count(if written { Counter::Submitted } else { Counter::RingFull }, 1);
    written
}
