//! Reads axum's `HashMap<RouteId, Arc<str>>` out of a process.
//!
//! Reads: the map at the address that `set_matched_path_for_request` is given. Yields: [`RouteTable`]. Costs: four
//! reads (head, table, strings, head again), once per router. Layout: hashbrown's `RawTableInner` (`ctrl`, `bucket_mask`,
//! `growth_left`, `items`) beside `RandomState`'s two keys; control bytes from `ctrl` up, a full one has its top bit
//! clear; buckets of 24 bytes from `ctrl` down. rustc orders fields as it likes, so that they are told apart by
//! what they hold. Everything is checked, and a table that fails any check is an error: no route is ever guessed.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::memory::{Memory, MemoryError};

/// Routes in one router.
pub const MAX_ROUTES: usize = 65_536;
/// Bytes of one route's path.
pub const MAX_PATH: usize = 4096;
/// Bytes of all paths of one router.
const MAX_PATHS: usize = 8 << 20;

const BUCKET: usize = 24;
const HEAD: usize = 48;
/// `ArcInner`'s two counters stand before the string.
const ARC_HEAD: u64 = 16;
/// hashbrown's `Group::WIDTH`: SSE2 on x86-64, 8 elsewhere.
const GROUP: usize = if cfg!(target_arch = "x86_64") { 16 } else { 8 };
const LOWEST_ADDRESS: u64 = 0x1_0000;
const EMPTY: u8 = 0xff;
const DELETED: u8 = 0x80;

/// Why a map could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What is there is no such map.
    #[error("no axum route map at {address:#x}: {reason}")]
    Shape {
        /// The map's address.
        address: u64,
        /// The check that failed.
        reason: &'static str,
    },
}

/// One router's routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTable {
    /// Path of each route id, as given to `Router::route`, with the prefixes of `nest`.
    pub routes: FxHashMap<u32, Arc<str>>,
    /// The map's first bytes (pointer, sizes, hasher keys): unchanged as long as the map is the same.
    pub fingerprint: Fingerprint,
}

/// See [`RouteTable::fingerprint`].
pub type Fingerprint = [u64; HEAD / 8];

/// hashbrown's four words.
#[derive(Clone, Copy)]
struct Shape {
    ctrl: u64,
    buckets: usize,
    items: usize,
    growth_left: usize,
}

impl RouteTable {
    /// Reads the map at `address`.
    ///
    /// # Errors
    /// [`RouteError`]: unmapped memory, or anything that is not exactly such a map.
    pub fn read<M: Memory + ?Sized>(memory: &M, address: u64) -> Result<Self, RouteError> {
        let shape_error = |reason| RouteError::Shape { address, reason };
        let fingerprint = read_fingerprint(memory, address)?;
        if !address.is_multiple_of(8) || address < LOWEST_ADDRESS {
            return Err(shape_error("the address is none"));
        }
        let mut outcome = Err(shape_error("its words are no hash table"));
        for shape in shapes(&fingerprint) {
            match read_table(memory, address, shape) {
                Ok(routes) => match &outcome {
                    Ok(other) if *other != routes => {
                        return Err(shape_error("it can be read in two ways"));
                    }
                    _ => outcome = Ok(routes),
                },
                Err(error) if outcome.is_err() => outcome = Err(error),
                Err(_) => {}
            }
        }
        let routes = outcome?;
        // Its memory may be given to another map at any time.
        if read_fingerprint(memory, address)? != fingerprint {
            return Err(shape_error("it changed while it was read"));
        }
        Ok(Self { routes, fingerprint })
    }

    /// Bytes of memory that the table takes, about.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.routes.values().map(|path| path.len() + 48).sum::<usize>() + 128
    }
}

/// Reads what tells whether a map is still the one that was read.
///
/// # Errors
/// [`MemoryError`].
pub fn read_fingerprint<M: Memory + ?Sized>(memory: &M, address: u64) -> Result<Fingerprint, MemoryError> {
    let mut bytes = [0; HEAD];
    memory.read(address, &mut bytes)?;
    Ok(std::array::from_fn(|index| word(&bytes, 8 * index)))
}

/// The table's words stand first or after the two keys; among four words one is a pointer, the others are small.
fn shapes(head: &Fingerprint) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for words in [&head[..4], &head[2..]] {
        for ctrl in 0..4 {
            for mask in (0..4).filter(|&mask| mask != ctrl) {
                let mut others = (0..4).filter(|&index| index != ctrl && index != mask).map(|index| words[index]);
                let (Some(a), Some(b)) = (others.next(), others.next()) else {
                    continue;
                };
                for (items, growth_left) in [(a, b), (b, a)] {
                    shapes.extend(Shape::new(words[ctrl], words[mask], items, growth_left));
                }
            }
        }
    }
    shapes
}

impl Shape {
    fn new(ctrl: u64, mask: u64, items: u64, growth_left: u64) -> Option<Self> {
        let limit = 2 * MAX_ROUTES as u64;
        let small = |value: u64| (value <= limit).then_some(value as usize);
        let (buckets, items, growth_left) = (small(mask.checked_add(1)?)?, small(items)?, small(growth_left)?);
        // hashbrown aligns to its group; a table without allocation has one bucket and no room.
        let shape = Self { ctrl, buckets, items, growth_left };
        (buckets.is_power_of_two()
            && ctrl >= LOWEST_ADDRESS
            && ctrl.is_multiple_of(GROUP as u64)
            && items + growth_left <= shape.capacity())
        .then_some(shape)
    }

    /// `bucket_mask_to_capacity`.
    const fn capacity(self) -> usize {
        match self.buckets {
            1 => 0,
            buckets @ 2..8 => buckets - 1,
            buckets => buckets / 8 * 7,
        }
    }
}

fn read_table<M: Memory + ?Sized>(
    memory: &M,
    address: u64,
    shape: Shape,
) -> Result<FxHashMap<u32, Arc<str>>, RouteError> {
    let error = |reason| RouteError::Shape { address, reason };
    let Shape { ctrl, buckets, items, growth_left } = shape;
    if buckets == 1 {
        // The shared static group of an empty table: no buckets below it.
        let mut bytes = [0; GROUP];
        memory.read(ctrl, &mut bytes)?;
        return if bytes == [EMPTY; GROUP] {
            Ok(FxHashMap::default())
        } else {
            Err(error("an empty table is not empty"))
        };
    }
    let below = buckets * BUCKET;
    let start = ctrl.checked_sub(below as u64).ok_or_else(|| error("its buckets begin before memory"))?;
    // Control bytes first: they are few and tell whether the buckets are worth reading.
    let mut control = vec![0; buckets + GROUP];
    memory.read(ctrl, &mut control)?;
    check_control(&control, shape).map_err(error)?;
    let mut data = vec![0; below];
    memory.read(start, &mut data)?;
    let entries = (0..buckets)
        .filter(|&index| control[index] & DELETED == 0)
        .map(|index| &data[below - (index + 1) * BUCKET..below - index * BUCKET]);
    debug_assert!(items + growth_left <= shape.capacity());
    // (id, pointer, length) at these offsets. A wide pointer is always pointer, then length; with the other order an
    // id could pass for a length.
    let layouts = [(16, 0, 8), (0, 8, 16)];
    let entries = layouts.into_iter().find_map(|layout| decode(entries.clone(), layout));
    read_paths(memory, address, &entries.ok_or_else(|| error("its buckets hold no strings"))?)
}

fn check_control(control: &[u8], shape: Shape) -> Result<(), &'static str> {
    let Shape { buckets, items, growth_left, .. } = shape;
    let full = control[..buckets].iter().filter(|&&byte| byte & DELETED == 0).count();
    let deleted = control[..buckets].iter().filter(|&&byte| byte == DELETED).count();
    let empty = control[..buckets].iter().filter(|&&byte| byte == EMPTY).count();
    if full + deleted + empty != buckets {
        return Err("its control bytes are none");
    }
    if full != items {
        return Err("its control bytes do not add up to its items");
    }
    if items + growth_left + deleted != shape.capacity() {
        return Err("its room does not add up");
    }
    // The first group is repeated behind the last bucket (`set_ctrl`).
    let mirror = buckets.max(GROUP);
    let repeated = (0..buckets.min(GROUP)).all(|index| control[mirror + index] == control[index]);
    if !repeated || control[buckets..mirror].iter().any(|&byte| byte != EMPTY) {
        return Err("its control bytes are not repeated behind the end");
    }
    Ok(())
}

type Entry = (u32, u64, usize);

fn decode<'b>(buckets: impl Iterator<Item = &'b [u8]>, layout: (usize, usize, usize)) -> Option<Vec<Entry>> {
    buckets
        .map(|bucket| {
            let id = u32::from_le_bytes(bucket[layout.0..layout.0 + 4].try_into().ok()?);
            let (pointer, len) = (word(bucket, layout.1), word(bucket, layout.2));
            let sane = pointer >= LOWEST_ADDRESS
                && pointer.is_multiple_of(8)
                && pointer < u64::MAX / 2
                && (1..=MAX_PATH as u64).contains(&len);
            sane.then_some((id, pointer, len as usize))
        })
        .collect()
}

fn read_paths<M: Memory + ?Sized>(
    memory: &M,
    address: u64,
    entries: &[Entry],
) -> Result<FxHashMap<u32, Arc<str>>, RouteError> {
    let error = |reason| RouteError::Shape { address, reason };
    if entries.len() > MAX_ROUTES || entries.iter().map(|entry| entry.2).sum::<usize>() > MAX_PATHS {
        return Err(error("it is larger than any router"));
    }
    let mut routes = FxHashMap::default();
    routes.reserve(entries.len());
    // A few hundred at a time: one system call each, and a bounded buffer.
    for batch in entries.chunks(256) {
        let ranges: Vec<_> = batch.iter().map(|&(_, pointer, len)| (pointer, ARC_HEAD as usize + len)).collect();
        let mut bytes = vec![0; ranges.iter().map(|range| range.1).sum()];
        memory.read_many(&ranges, &mut bytes)?;
        let mut rest = bytes.as_slice();
        for &(id, _, len) in batch {
            let (entry, after) = rest.split_at(ARC_HEAD as usize + len);
            rest = after;
            let (head, path) = entry.split_at(ARC_HEAD as usize);
            let counted = |count: u64| (1..i64::MAX as u64).contains(&count);
            if !counted(word(head, 0)) || !counted(word(head, 8)) {
                return Err(error("a path's reference counts are none"));
            }
            let path = std::str::from_utf8(path).map_err(|_| error("a path is not UTF-8"))?;
            if !path.starts_with('/') || path.chars().any(char::is_control) {
                return Err(error("a path does not begin with '/' or holds control characters"));
            }
            if routes.insert(id, Arc::from(path)).is_some() {
                return Err(error("a route id comes twice"));
            }
        }
    }
    Ok(routes)
}

/// The little-endian word at `at`; the callers pass offsets within `bytes`.
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
#[path = "axum_routes_tests.rs"]
mod tests;
