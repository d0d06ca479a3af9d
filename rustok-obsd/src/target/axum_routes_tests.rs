//! The reader against real maps of this process, and against damaged copies of them.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::target::memory::ProcessMemory;

/// Laid out as axum's `RouteId`.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct RouteId(u32);

/// axum's ids begin with 1.
fn map(routes: u32) -> HashMap<RouteId, Arc<str>> {
    (1..=routes).map(|id| (RouteId(id), format!("/api/route/{id}/{{id}}").into())).collect()
}

fn own() -> ProcessMemory {
    ProcessMemory::new(std::process::id())
}

fn expected(map: &HashMap<RouteId, Arc<str>>) -> FxHashMap<u32, Arc<str>> {
    map.iter().map(|(id, path)| (id.0, Arc::clone(path))).collect()
}

#[test]
fn real_maps_of_any_size_are_read_whole() {
    for routes in [0, 1, 2, 3, 4, 7, 8, 14, 15, 28, 29, 227, 5000, 65_000] {
        let map = map(routes);
        let table = RouteTable::read(&own(), std::ptr::from_ref(&map) as u64).unwrap();
        assert_eq!(table.routes, expected(&map), "{routes} routes");
    }
}

#[test]
fn ids_that_could_be_lengths_are_no_lengths() {
    let map: HashMap<_, Arc<str>> =
        [(1, "/aaa"), (2, "/bb"), (3, "/c"), (4, "/")].map(|(id, path)| (RouteId(id), path.into())).into();
    assert_eq!(RouteTable::read(&own(), std::ptr::from_ref(&map) as u64).unwrap().routes, expected(&map));
}

#[test]
fn a_map_with_room_and_removed_routes_is_read() {
    let mut map = map(500);
    map.reserve(1000);
    map.retain(|id, _| id.0 % 3 != 0);
    let table = RouteTable::read(&own(), std::ptr::from_ref(&map) as u64).unwrap();
    assert_eq!(table.routes, expected(&map));
}

#[test]
fn paths_that_are_no_routes_make_the_whole_map_an_error() {
    for path in ["", "api", "/a\nb", "/\u{7f}"] {
        let mut map = map(20);
        map.insert(RouteId(99), path.into());
        let error = RouteTable::read(&own(), std::ptr::from_ref(&map) as u64).unwrap_err();
        assert!(matches!(error, RouteError::Shape { .. }), "{path:?}: {error}");
    }
    let mut map = map(20);
    map.insert(RouteId(99), format!("/{}", "x".repeat(MAX_PATH)).into());
    assert!(RouteTable::read(&own(), std::ptr::from_ref(&map) as u64).is_err());
}

#[test]
fn other_things_are_no_route_maps() {
    let strings: HashMap<RouteId, String> = (0..20).map(|id| (RouteId(id), "/a".to_owned())).collect();
    let numbers = [1_u64, 2, 3, 4, 5, 6, 7, 8];
    for address in [std::ptr::from_ref(&strings) as u64, numbers.as_ptr() as u64] {
        assert!(matches!(RouteTable::read(&own(), address), Err(RouteError::Shape { .. })));
    }
    for address in [0, 8, 0x1_0000, u64::MAX - 7] {
        assert!(matches!(RouteTable::read(&own(), address), Err(RouteError::Memory(_))), "{address:#x}");
    }
}

/// Memory that holds what it was given and nothing else.
#[derive(Clone, Default)]
struct Fake(BTreeMap<u64, Vec<u8>>);

impl Fake {
    fn keep(&mut self, address: u64, len: usize) {
        let mut bytes = vec![0; len];
        own().read(address, &mut bytes).unwrap();
        self.0.insert(address, bytes);
    }
}

impl Memory for Fake {
    fn read_many(&self, ranges: &[(u64, usize)], mut buf: &mut [u8]) -> Result<(), MemoryError> {
        for &(address, len) in ranges {
            let unmapped = MemoryError::Unmapped { address, len };
            let (piece, rest) = std::mem::take(&mut buf).split_at_mut(len);
            buf = rest;
            let (start, bytes) = self.0.range(..=address).next_back().ok_or(unmapped.clone())?;
            let at = (address - start) as usize;
            piece.copy_from_slice(at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or(unmapped)?);
        }
        Ok(())
    }
}

/// A copy of all that belongs to the map.
fn copy(map: &HashMap<RouteId, Arc<str>>) -> (u64, Fake) {
    let address = std::ptr::from_ref(map) as u64;
    let mut fake = Fake::default();
    fake.keep(address, HEAD);
    let shape = shapes(&read_fingerprint(&own(), address).unwrap())
        .into_iter()
        .find(|shape| read_table(&own(), address, *shape).is_ok())
        .unwrap();
    let below = shape.buckets * BUCKET;
    fake.keep(shape.ctrl - below as u64, below + shape.buckets + GROUP);
    for path in map.values() {
        let start = path.as_ptr() as u64 - ARC_HEAD;
        fake.keep(start, ARC_HEAD as usize + path.len());
    }
    (address, fake)
}

proptest! {
    #[test]
    fn damage_gives_an_error_or_well_formed_routes(
        routes in 1_u32..40,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let map = map(routes);
        let (address, mut fake) = copy(&map);
        prop_assert_eq!(&RouteTable::read(&fake, address).unwrap().routes, &expected(&map));
        for (region, byte, value) in damage {
            let bytes = fake.0.values_mut().nth(region.index(routes as usize + 2)).unwrap();
            let at = byte.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(table) = RouteTable::read(&fake, address) {
            prop_assert_eq!(table.routes.len(), map.len());
            prop_assert!(table.routes.values().all(|path| path.starts_with('/') && path.len() <= MAX_PATH));
        }
    }

    #[test]
    fn a_damaged_head_is_never_read_as_other_routes(word in 0_usize..6, value in any::<u64>()) {
        let map = map(33);
        let (address, mut fake) = copy(&map);
        fake.0.get_mut(&address).unwrap()[8 * word..8 * word + 8].copy_from_slice(&value.to_le_bytes());
        if let Ok(table) = RouteTable::read(&fake, address) {
            prop_assert_eq!(table.routes, expected(&map));
        }
    }
}

/// Where the image of [`image`] lies.
const BASE: u64 = 0x1_0000;

/// Memory that is one piece; the same as of the fuzz target `route_table`.
struct Image(Vec<u8>);

impl Memory for Image {
    fn read_many(&self, ranges: &[(u64, usize)], mut buf: &mut [u8]) -> Result<(), MemoryError> {
        for &(address, len) in ranges {
            let (piece, rest) = std::mem::take(&mut buf).split_at_mut(len);
            buf = rest;
            let at = usize::try_from(address.wrapping_sub(BASE)).unwrap_or(usize::MAX);
            let bytes = at.checked_add(len).and_then(|end| self.0.get(at..end));
            piece.copy_from_slice(bytes.ok_or(MemoryError::Unmapped { address, len })?);
        }
        Ok(())
    }
}

/// A map as hashbrown lays it out, with all that belongs to it behind each other: head, paths, buckets, control bytes.
fn image(buckets: usize, paths: &[&str]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    let mut entries = Vec::new();
    for (id, path) in (1_u64..).zip(paths) {
        entries.push([BASE + bytes.len() as u64, path.len() as u64, id]);
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0].repeat(2));
        bytes.extend_from_slice(path.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(16), 0);
    }
    let start = bytes.len();
    bytes.resize((start + buckets * BUCKET).next_multiple_of(GROUP), 0);
    let ctrl = bytes.len();
    let mut control = vec![EMPTY; buckets + GROUP];
    for (index, entry) in entries.iter().enumerate() {
        let at = ctrl - (index + 1) * BUCKET;
        // A wide pointer, then the id.
        for (word, place) in entry.iter().zip([0, 8, 16]) {
            bytes[at + place..at + place + 8].copy_from_slice(&word.to_le_bytes());
        }
        control[index] = index as u8;
        if index < GROUP {
            control[buckets.max(GROUP) + index] = index as u8;
        }
    }
    bytes.extend_from_slice(&control);
    let room = buckets / 8 * 7 - entries.len();
    let head = [BASE + ctrl as u64, buckets as u64 - 1, room as u64, entries.len() as u64, 0x1234_5678_9abc_def0, 77];
    for (word, place) in head.iter().zip(bytes.chunks_exact_mut(8)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// As small as a generator can be (xorshift64).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn twelve_thousand_damaged_images_give_an_error_or_well_formed_routes() {
    let paths = ["/", "/api/{id}", "/api/users/{name}/orders", "/files/{*path}", "/a"];
    let whole = image(16, &paths);
    let read = |bytes: &[u8]| RouteTable::read(&Image(bytes.to_vec()), BASE);
    let table = read(&whole).expect("the image is a map");
    assert_eq!(table.routes.len(), paths.len());
    assert!((1..).zip(paths).all(|(id, path)| &*table.routes[&id] == path));
    let (mut state, mut read_all) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    for round in 0..12_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(&mut state) % 3 {
            let at = random(&mut state) as usize % bytes.len();
            match random(&mut state) % 4 {
                0 => bytes[at] = random(&mut state) as u8,
                1 => bytes[at] ^= 1 << (random(&mut state) % 8),
                2 => {
                    // A word, among them such as are near the ends of what can be.
                    let word = random(&mut state) >> (random(&mut state) % 64);
                    let word = if round % 5 == 0 { u64::MAX - word % 64 } else { word };
                    let at = at / 8 * 8;
                    let end = bytes.len().min(at + 8);
                    bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        if let Ok(table) = read(&bytes) {
            read_all += 1;
            assert!(table.routes.len() <= paths.len());
            for path in table.routes.values() {
                assert!(path.starts_with('/') && path.len() <= MAX_PATH && !path.chars().any(char::is_control));
            }
        }
    }
    assert!((100..11_000).contains(&read_all), "damage that is none, and damage that is: {read_all} were read");
}

#[test]
fn a_map_that_changes_while_it_is_read_is_an_error() {
    /// Its hasher's keys are others at the second look.
    struct Changing(Image, std::cell::Cell<bool>);
    impl Memory for Changing {
        fn read_many(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<(), MemoryError> {
            self.0.read_many(ranges, buf)?;
            if ranges == [(BASE, HEAD)] && self.1.replace(true) {
                buf[HEAD - 1] ^= 1;
            }
            Ok(())
        }
    }
    let memory = Changing(Image(image(8, &["/a"])), false.into());
    let error = RouteTable::read(&memory, BASE).unwrap_err();
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}
