//! Whatever lies in a target's memory: no panic, no path that is none, and a second look says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustok_obsd::target::{Memory, MemoryError, RouteTable, axum_routes::{MAX_PATH, MAX_ROUTES}};

/// Where the image lies, and the map in it.
const BASE: u64 = 0x1_0000;

struct Image<'a>(&'a [u8]);

impl Memory for Image<'_> {
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

fuzz_target!(|image: &[u8]| {
    let table = RouteTable::read(&Image(image), BASE);
    if let Ok(table) = &table {
        assert!(table.routes.len() <= 2 * MAX_ROUTES);
        for path in table.routes.values() {
            assert!(path.starts_with('/') && path.len() <= MAX_PATH && !path.chars().any(char::is_control));
        }
    }
    assert_eq!(table, RouteTable::read(&Image(image), BASE));
});
