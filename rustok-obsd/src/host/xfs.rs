//! Statistics of XFS, per file system.
//!
//! Reads: `/sys/fs/xfs/DEVICE/stats/stats` (fs/xfs/xfs_stats.c). Yields: `node_xfs_*`. Costs: one file per file system, kept
//! open, and a listing.

use super::family::{counter, families_of};
use super::folder::Folder;
use super::{CollectError, Collector, Context, KeptFile, Settings, text};
use crate::contract::Family;
use crate::exposition::Encoder;

/// Line, which of its numbers, family.
const COUNTERS: &[(&[u8], usize, Family<'static>)] = &[
    (
        b"extent_alloc",
        0,
        counter(
            "node_xfs_extent_allocation_extents_allocated_total",
            &["device"],
            "Number of extents allocated for a filesystem.",
        ),
    ),
    (
        b"extent_alloc",
        1,
        counter(
            "node_xfs_extent_allocation_blocks_allocated_total",
            &["device"],
            "Number of blocks allocated for a filesystem.",
        ),
    ),
    (
        b"extent_alloc",
        2,
        counter(
            "node_xfs_extent_allocation_extents_freed_total",
            &["device"],
            "Number of extents freed for a filesystem.",
        ),
    ),
    (
        b"extent_alloc",
        3,
        counter(
            "node_xfs_extent_allocation_blocks_freed_total",
            &["device"],
            "Number of blocks freed for a filesystem.",
        ),
    ),
    (
        b"abt",
        0,
        counter(
            "node_xfs_allocation_btree_lookups_total",
            &["device"],
            "Number of allocation B-tree lookups for a filesystem.",
        ),
    ),
    (
        b"abt",
        1,
        counter(
            "node_xfs_allocation_btree_compares_total",
            &["device"],
            "Number of allocation B-tree compares for a filesystem.",
        ),
    ),
    (
        b"abt",
        2,
        counter(
            "node_xfs_allocation_btree_records_inserted_total",
            &["device"],
            "Number of allocation B-tree records inserted for a filesystem.",
        ),
    ),
    (
        b"abt",
        3,
        counter(
            "node_xfs_allocation_btree_records_deleted_total",
            &["device"],
            "Number of allocation B-tree records deleted for a filesystem.",
        ),
    ),
    (
        b"blk_map",
        0,
        counter(
            "node_xfs_block_mapping_reads_total",
            &["device"],
            "Number of block map for read operations for a filesystem.",
        ),
    ),
    (
        b"blk_map",
        1,
        counter(
            "node_xfs_block_mapping_writes_total",
            &["device"],
            "Number of block map for write operations for a filesystem.",
        ),
    ),
    (
        b"blk_map",
        2,
        counter(
            "node_xfs_block_mapping_unmaps_total",
            &["device"],
            "Number of block unmaps (deletes) for a filesystem.",
        ),
    ),
    (
        b"blk_map",
        3,
        counter(
            "node_xfs_block_mapping_extent_list_insertions_total",
            &["device"],
            "Number of extent list insertions for a filesystem.",
        ),
    ),
    (
        b"blk_map",
        4,
        counter(
            "node_xfs_block_mapping_extent_list_deletions_total",
            &["device"],
            "Number of extent list deletions for a filesystem.",
        ),
    ),
    (
        b"blk_map",
        5,
        counter(
            "node_xfs_block_mapping_extent_list_lookups_total",
            &["device"],
            "Number of extent list lookups for a filesystem.",
        ),
    ),
    (
        b"blk_map",
        6,
        counter(
            "node_xfs_block_mapping_extent_list_compares_total",
            &["device"],
            "Number of extent list compares for a filesystem.",
        ),
    ),
    (
        b"bmbt",
        0,
        counter(
            "node_xfs_block_map_btree_lookups_total",
            &["device"],
            "Number of block map B-tree lookups for a filesystem.",
        ),
    ),
    (
        b"bmbt",
        1,
        counter(
            "node_xfs_block_map_btree_compares_total",
            &["device"],
            "Number of block map B-tree compares for a filesystem.",
        ),
    ),
    (
        b"bmbt",
        2,
        counter(
            "node_xfs_block_map_btree_records_inserted_total",
            &["device"],
            "Number of block map B-tree records inserted for a filesystem.",
        ),
    ),
    (
        b"bmbt",
        3,
        counter(
            "node_xfs_block_map_btree_records_deleted_total",
            &["device"],
            "Number of block map B-tree records deleted for a filesystem.",
        ),
    ),
    (
        b"dir",
        0,
        counter(
            "node_xfs_directory_operation_lookup_total",
            &["device"],
            "Number of file name directory lookups which miss the operating systems directory name lookup cache.",
        ),
    ),
    (
        b"dir",
        1,
        counter(
            "node_xfs_directory_operation_create_total",
            &["device"],
            "Number of times a new directory entry was created for a filesystem.",
        ),
    ),
    (
        b"dir",
        2,
        counter(
            "node_xfs_directory_operation_remove_total",
            &["device"],
            "Number of times an existing directory entry was created for a filesystem.",
        ),
    ),
    (
        b"dir",
        3,
        counter(
            "node_xfs_directory_operation_getdents_total",
            &["device"],
            "Number of times the directory getdents operation was performed for a filesystem.",
        ),
    ),
    (
        b"ig",
        0,
        counter(
            "node_xfs_inode_operation_attempts_total",
            &["device"],
            "Number of times the OS looked for an XFS inode in the inode cache.",
        ),
    ),
    (
        b"ig",
        1,
        counter(
            "node_xfs_inode_operation_found_total",
            &["device"],
            "Number of times the OS looked for and found an XFS inode in the inode cache.",
        ),
    ),
    (
        b"ig",
        2,
        counter(
            "node_xfs_inode_operation_recycled_total",
            &["device"],
            "Number of times the OS found an XFS inode in the cache, but could not use it as it was being recycled.",
        ),
    ),
    (
        b"ig",
        3,
        counter(
            "node_xfs_inode_operation_missed_total",
            &["device"],
            "Number of times the OS looked for an XFS inode in the cache, but did not find it.",
        ),
    ),
    (
        b"ig",
        4,
        counter(
            "node_xfs_inode_operation_duplicates_total",
            &["device"],
            "Number of times the OS tried to add a missing XFS inode to the inode cache, but found it had already been added by another process.",
        ),
    ),
    (
        b"ig",
        5,
        counter(
            "node_xfs_inode_operation_reclaims_total",
            &["device"],
            "Number of times the OS reclaimed an XFS inode from the inode cache to free memory for another purpose.",
        ),
    ),
    (
        b"ig",
        6,
        counter(
            "node_xfs_inode_operation_attribute_changes_total",
            &["device"],
            "Number of times the OS explicitly changed the attributes of an XFS inode.",
        ),
    ),
    (
        b"rw",
        0,
        counter(
            "node_xfs_write_calls_total",
            &["device"],
            "Number of write(2) system calls made to files in a filesystem.",
        ),
    ),
    (
        b"rw",
        1,
        counter(
            "node_xfs_read_calls_total",
            &["device"],
            "Number of read(2) system calls made to files in a filesystem.",
        ),
    ),
    (
        b"vnodes",
        0,
        counter("node_xfs_vnode_active_total", &["device"], "Number of vnodes not on free lists for a filesystem."),
    ),
    (
        b"vnodes",
        1,
        counter("node_xfs_vnode_allocate_total", &["device"], "Number of times vn_alloc called for a filesystem."),
    ),
    (b"vnodes", 2, counter("node_xfs_vnode_get_total", &["device"], "Number of times vn_get called for a filesystem.")),
    (
        b"vnodes",
        3,
        counter("node_xfs_vnode_hold_total", &["device"], "Number of times vn_hold called for a filesystem."),
    ),
    (
        b"vnodes",
        4,
        counter("node_xfs_vnode_release_total", &["device"], "Number of times vn_rele called for a filesystem."),
    ),
    (
        b"vnodes",
        5,
        counter("node_xfs_vnode_reclaim_total", &["device"], "Number of times vn_reclaim called for a filesystem."),
    ),
    (
        b"vnodes",
        6,
        counter("node_xfs_vnode_remove_total", &["device"], "Number of times vn_remove called for a filesystem."),
    ),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = families_of!(COUNTERS, 2);

struct FileSystem {
    device: String,
    file: KeptFile,
    values: [Option<u64>; COUNTERS.len()],
}

struct Xfs {
    folder: Folder,
    file_systems: Vec<FileSystem>,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Xfs { folder: Folder::new(settings.sysfs("fs/xfs")), file_systems: Vec::new() })
}

impl FileSystem {
    /// Reads what it has.
    fn read(&mut self) -> Result<(), CollectError> {
        self.values.fill(None);
        for line in text::lines(self.file.read()?) {
            let mut words = text::words(line);
            let name = words.next().unwrap_or_default();
            // The table has the numbers of a line side by side.
            let Some(first) = COUNTERS.iter().position(|(line, ..)| *line == name) else { continue };
            let last = COUNTERS[first..].iter().take_while(|(line, ..)| *line == name).count();
            for (value, word) in self.values[first..first + last].iter_mut().zip(words) {
                *value = text::u64(word);
            }
        }
        Ok(())
    }
}

impl Collector for Xfs {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        if self.folder.refresh_if_there()? {
            let folder = |device: &String| self.folder.path().join(device).join("stats");
            let new = |device: &String| FileSystem {
                device: device.clone(),
                file: KeptFile::new(folder(device).join("stats")),
                values: [None; COUNTERS.len()],
            };
            // `stats` (the sums of all) and `debug` beside the devices have no folder of this name.
            let devices = self.folder.names().iter().filter(|device| folder(device).is_dir());
            self.file_systems = devices.map(new).collect();
        }
        let mut outcome = Ok(());
        for file_system in &mut self.file_systems {
            match file_system.read() {
                Ok(()) | Err(CollectError::NoData(_)) => {}
                Err(error) => outcome = Err(error),
            }
        }
        for (at, (.., family)) in COUNTERS.iter().enumerate() {
            let mut samples = out.family(family);
            for file_system in &self.file_systems {
                if let Some(value) = file_system.values[at] {
                    samples.put([file_system.device.as_str()], value);
                }
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use crate::host::testing::Tree;

    #[test]
    fn the_sums_of_all_are_no_device() {
        let tree = Tree::new("xfs", |_| {});
        assert_eq!(tree.scrape(), (String::new(), true));
        tree.write("sys/fs/xfs/stats/stats", "rw 5 6\n");
        assert_eq!(tree.scrape(), (String::new(), true));
        tree.write("sys/fs/xfs/dm-0/stats/stats", "dir 1 x\nrw 28 7\nshort\n");
        let expected = "node_xfs_directory_operation_lookup_total{device=\"dm-0\"} 1\n\
            node_xfs_write_calls_total{device=\"dm-0\"} 28\nnode_xfs_read_calls_total{device=\"dm-0\"} 7\n";
        assert_eq!(tree.scrape(), (expected.to_owned(), true));
    }
}
