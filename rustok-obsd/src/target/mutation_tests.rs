//! Damaged files, the same ones in every run: none panics, none leads outside of the file, none costs more than allowed.

use super::*;
use crate::target::elf_fixture::{CODE, Named, RELEASE, executable, split, with_unwind_table};

const FILES: u64 = 12_000;
const SYMBOLS: [Named<'_>; 4] = [
    ("_ZN5tokio7runtime4task4core11TaskIdGuard5enter17hefbe57620a89e0ffE", elf::STT_FUNC, CODE, RELEASE.len() as u64),
    ("_RNvNtNtCs1234_4axum7extract12matched_path28set_matched_path_for_request", elf::STT_FUNC, CODE + 0x70, 8),
    ("_ZN9sqlx_core6logger11QueryLogger3new17h3b291ad85ef9fbe7E", elf::STT_FUNC, CODE + 0x78, 8),
    ("_RNvNCNkNvNtNtCs1234_5tokio7runtime7context7CONTEXT00s_23___RUST_STD_INTERNAL_VAL", elf::STT_TLS, 0, 80),
];

/// SplitMix64 (S. Vigna): a seed gives the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn damage(file: &mut Vec<u8>, numbers: &mut Numbers) {
    let len = file.len() as u64;
    let extremes = [0, 1, len - 1, len, len + 1, 1 << 20, 1 << 32, 1 << 40, i64::MAX as u64, u64::MAX, u64::MAX - 7];
    let word = |file: &[u8], at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let (segments, sections) = (word(file, 0x20) as usize, word(file, 0x28) as usize);
    for _ in 0..=numbers.below(4) {
        match numbers.below(6) {
            // A bit, a byte, anywhere.
            0 => {
                let at = numbers.below(file.len());
                file[at] ^= 1 << numbers.below(8);
            }
            1 => {
                let at = numbers.below(file.len());
                file[at] = numbers.next() as u8;
            }
            // An extreme in a header: the file's, a segment's, a section's.
            kind @ 2..=4 => {
                let (start, size) = [(0, 64), (segments, 56 * 13), (sections, 64 * 31)][kind - 2];
                let at = start.saturating_add(4 * numbers.below(size / 4));
                let value = extremes[numbers.below(extremes.len())].to_le_bytes();
                let width = [2, 4, 8][numbers.below(3)];
                if let Some(field) = file.get_mut(at..at.saturating_add(width)) {
                    field.copy_from_slice(&value[..width]);
                }
            }
            _ => {
                let len = numbers.below(file.len());
                file.truncate(len.max(0x40));
            }
        }
        if file.len() < 0x40 + 8 {
            return;
        }
    }
}

/// Files for the fuzzer to begin with: `RUSTOK_OBSD_SEEDS=fuzz/seeds/elf cargo test seeds -- --ignored`.
#[test]
#[ignore = "writes into the folder that a variable names"]
fn seeds_of_the_fuzzer() {
    let folder = PathBuf::from(std::env::var_os("RUSTOK_OBSD_SEEDS").unwrap());
    let code = [RELEASE, &[0xcc; 64]].concat();
    let (stripped, debug) = split(&code, &SYMBOLS, b"0123456789abcdef");
    let stripped = with_unwind_table(stripped, &[(CODE, RELEASE.len() as u32), (CODE + 0x70, 8)]);
    let whole = executable(&code, &SYMBOLS);
    for (name, file, debug) in [("whole", &whole, &Vec::new()), ("split", &stripped, &debug)] {
        let seed = [&(file.len() as u32).to_le_bytes(), file.as_slice(), debug].concat();
        std::fs::write(folder.join(name), seed).unwrap();
    }
}

#[test]
fn twelve_thousand_damaged_files_are_analysed_within_their_limits() {
    let code = [RELEASE, &[0xcc; 64]].concat();
    let (stripped, debug) = split(&code, &SYMBOLS, b"0123456789abcdef");
    let stripped = with_unwind_table(stripped, &[(CODE, RELEASE.len() as u32), (CODE + 0x70, 8)]);
    let whole = Binary::analyse_bytes(&stripped, Some(&debug), Limits::default());
    assert!(matches!(whole.task_slot, TaskSlot::Known(_)), "{whole:?}");
    assert_eq!(whole.places(ProbePoint::AxumRoute).len(), 1, "{whole:?}");
    let unsplit = executable(&code, &SYMBOLS);
    let real = std::fs::read("/bin/true").unwrap();
    let limits = Limits { section_bytes: 1 << 20, total_bytes: 8 << 20, ..Limits::default() };
    for seed in 0..FILES {
        let mut numbers = Numbers(seed);
        let (mut file, mut other) = match seed % 4 {
            0 => (stripped.clone(), debug.clone()),
            // A program with its symbols.
            1 | 2 => (unsplit.clone(), Vec::new()),
            _ => (real.clone(), Vec::new()),
        };
        match seed % 8 {
            0 => damage(&mut other, &mut numbers),
            _ => damage(&mut file, &mut numbers),
        }
        let budget = Budget::new(limits);
        let binary = Binary::inspect(file.as_slice(), file.len() as u64, &[], &budget, |elf| {
            let agrees = Elf::parse(&other, elf.budget()).map_err(Distrust::from);
            match agrees.and_then(|debug| debug_file::agrees(elf, &debug)) {
                Ok(()) => {
                    Search { found: Some(DebugFile { path: "debug".into(), source: other }), refused: Vec::new() }
                }
                Err(reason) => Search { found: None, refused: vec![("debug".into(), reason)] },
            }
        });
        assert_eq!(binary.probes.len(), ProbePoint::ALL.len(), "{seed}");
        assert!(budget.spent() <= limits.total_bytes + (1 << 20) && binary.bytes() < 256 << 10, "{seed}");
        for place in ProbePoint::ALL.iter().flat_map(|&point| binary.places(point)) {
            let at = place.file_offset as usize;
            assert_eq!(file.get(at..at + place.code.len()), Some(place.code.as_slice()), "{seed}");
            assert!(!place.code.is_empty(), "{seed}");
        }
    }
}
