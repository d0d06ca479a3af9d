//! An executable and its debug file are analysed within their limits, and no place of a probe is outside of the file.
//!
//! The first four bytes give the length of the executable; the debug file follows it.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use rustok_obsd::target::{Binary, Limits, ProbePoint};

fuzz_target!(|data: &[u8]| {
    let Some((length, files)) = data.split_first_chunk() else {
        return;
    };
    let length = (u32::from_le_bytes(*length) as usize).min(files.len());
    let (executable, debug) = files.split_at(length);
    let limits = Limits {
        time: Duration::from_secs(1),
        section_bytes: 1 << 20,
        total_bytes: 16 << 20,
        ..Limits::default()
    };
    let start = Instant::now();
    let binary = Binary::analyse_bytes(executable, Some(debug), limits);
    // Twice the limit: what a single name or piece may take comes on top.
    assert!(start.elapsed() < 2 * limits.time, "{:?}", start.elapsed());
    assert_eq!(binary.probes.len(), ProbePoint::ALL.len());
    let places = ProbePoint::ALL
        .iter()
        .flat_map(|point| binary.places(*point));
    let mut count = 0;
    for place in places {
        count += 1;
        let at = place.file_offset as usize;
        let found = executable.get(at..at + place.code.len());
        assert_eq!(found, Some(place.code.as_slice()));
    }
    assert!(count <= limits.binary_places);
});
