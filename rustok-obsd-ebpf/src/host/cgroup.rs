//! Cgroups that are made and removed.

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel_str};
use rustok_obsd_ebpf::host_event::{CGROUP_PATH, CgroupEvent, HostKind};

use crate::{globals, maps, read::Reader};

/// Tells of a `struct cgroup` and its path.
#[inline(always)]
pub fn tell(kind: HostKind, cgroup: u64, path: u64) {
    let mut reader = Reader::new();
    let root = reader.word(cgroup, globals::cgroup_root());
    let mut event = CgroupEvent {
        kind: kind as u8,
        pad: 0,
        path_len: 0,
        hierarchy: reader.int(root, globals::root_hierarchy()),
        level: reader.int(cgroup, globals::cgroup_level()),
        pad2: 0,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        cgroup: reader.cgroup_id(cgroup),
        path: [0; CGROUP_PATH],
    };
    // SAFETY: the helper writes at most as many bytes as the array has, and fails on a bad address.
    let read =
        unsafe { bpf_probe_read_kernel_str(event.path.as_mut_ptr().cast(), CGROUP_PATH as u32, path as *const _) };
    // A full array may be a path that was cut. The length counts the end.
    if read > 0 && read < CGROUP_PATH as i64 {
        event.path_len = (read - 1) as u16;
    }
    reader.finish(kind);
    maps::submit(kind, event.as_bytes(), true);
}
