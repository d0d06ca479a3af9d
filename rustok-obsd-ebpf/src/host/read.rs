//! Reads fields of kernel structures, and remembers whether one could not be read.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use rustok_obsd_ebpf::host_event::{COMM, HostKind};

use crate::{globals, maps};

/// A reader of one record's fields.
pub struct Reader {
    failed: bool,
}

impl Reader {
    #[inline(always)]
    pub const fn new() -> Self {
        Self { failed: false }
    }

    /// The field at an offset of a structure; zero where it cannot be read.
    #[inline(always)]
    fn at<T: Copy>(&mut self, structure: u64, offset: u32, zero: T) -> T {
        // SAFETY: the helper checks the address and fails on a bad one; the types read are plain integers and arrays of
        // them.
        match unsafe { bpf_probe_read_kernel((structure + u64::from(offset)) as *const T) } {
            Ok(value) => value,
            Err(_) => {
                self.failed = true;
                zero
            }
        }
    }

    #[inline(always)]
    pub fn word(&mut self, structure: u64, offset: u32) -> u64 {
        self.at(structure, offset, 0)
    }

    /// Two fields, in one reading where they lie side by side.
    #[inline(always)]
    pub fn pair(&mut self, structure: u64, first: u32, second: u32) -> [u64; 2] {
        if second == first + 8 {
            self.at(structure, first, [0; 2])
        } else {
            [self.word(structure, first), self.word(structure, second)]
        }
    }

    /// The same, zeros where the kernel has no such fields.
    #[inline(always)]
    pub fn optional_pair(&mut self, structure: u64, first: u32, second: u32) -> [u64; 2] {
        if first == 0 || second == 0 { [0; 2] } else { self.pair(structure, first, second) }
    }

    #[inline(always)]
    pub fn int(&mut self, structure: u64, offset: u32) -> u32 {
        self.at(structure, offset, 0)
    }

    #[inline(always)]
    pub fn comm(&mut self, task: u64) -> [u8; COMM] {
        self.at(task, globals::task_comm(), [0; COMM])
    }

    /// Inode of a cgroup's directory.
    #[inline(always)]
    pub fn cgroup_id(&mut self, cgroup: u64) -> u64 {
        let node = self.word(cgroup, globals::cgroup_kn());
        self.word(node, globals::kn_id())
    }

    /// Counts a record that lacks something.
    #[inline(always)]
    pub fn finish(self, kind: HostKind) {
        if self.failed {
            maps::count_incomplete(kind);
        }
    }
}
