//! Files that cost more than real ones: given up with the reason, in a moment.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::*;
use crate::target::elf_fixture::{CODE, executable};
use crate::target::executable::Executable;

const ROUTE: &str = "_ZN4axum7extract12matched_path28set_matched_path_for_request17h3b291ad85ef9fbe7E";
const QUERY: &str = "_ZN9sqlx_core6logger11QueryLogger3new17h3b291ad85ef9fbe7E";

fn absence(binary: &Binary, point: ProbePoint) -> Absence {
    match binary.presence(point) {
        Some(Presence::Absent(absence)) => absence.clone(),
        other => panic!("{other:?}"),
    }
}

/// A file whose section of this index has this size, all zeros.
fn sparse(index: usize, size: u64) -> (tempfile::NamedTempFile, Executable) {
    let mut bytes = executable(&[0x90; 16], &[(ROUTE, elf::STT_FUNC, CODE, 16)]);
    let headers = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap()) as usize;
    let header = headers + 64 * index;
    let start = bytes.len().next_multiple_of(4096) as u64;
    bytes[header + 0x18..header + 0x28].copy_from_slice(&[start, size].map(u64::to_le_bytes).concat());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file.as_file().set_len(start + size).unwrap();
    let executable = Executable::open(file.path()).unwrap();
    (file, executable)
}

#[test]
fn a_table_of_terabytes_is_not_read() {
    // The symbols, their names.
    for (index, name) in [(1, ".symtab"), (2, ".strtab")] {
        let (_file, executable) = sparse(index, 2 << 40);
        let start = Instant::now();
        let binary = Binary::analyse(&executable, Path::new("/"), &[], Limits::default());
        let limit = Limits::default().section_bytes;
        let cost = TooCostly::Section { section: name.to_owned(), bytes: 2 << 40, limit };
        assert_eq!(absence(&binary, ProbePoint::AxumRoute), Absence::TooCostly(cost.clone()));
        assert!(matches!(&binary.task_slot, TaskSlot::Absent { reason } if reason.contains(&cost.to_string())));
        assert!(!binary.is_passing(), "the same file will not become cheaper");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn what_is_read_in_all_and_the_time_for_it_are_bounded() {
    let (_file, executable) = sparse(2, 16 << 20);
    let analyse = |limits| Binary::analyse(&executable, Path::new("/"), &[], limits);
    let few = analyse(Limits { total_bytes: 1 << 20, ..Limits::default() });
    assert_eq!(absence(&few, ProbePoint::AxumRoute), Absence::TooCostly(TooCostly::Bytes(1 << 20)));
    let time = Duration::from_millis(1);
    let hurried = analyse(Limits { time, ..Limits::default() });
    assert_eq!(absence(&hurried, ProbePoint::AxumRoute), Absence::TooCostly(TooCostly::Time(time)));
    assert!(hurried.is_passing(), "a less busy machine may have the time");
}

#[test]
fn a_table_that_lies_outside_of_the_file_is_no_cost() {
    let (file, _) = sparse(2, 1 << 20);
    file.as_file().set_len(64 << 10).unwrap();
    let executable = Executable::open(file.path()).unwrap();
    let binary = Binary::analyse(&executable, Path::new("/"), &[], Limits::default());
    assert!(matches!(absence(&binary, ProbePoint::AxumRoute), Absence::Malformed(_)));
    // The headers themselves.
    file.as_file().write_all_at(&u64::MAX.to_le_bytes(), 0x28).unwrap();
    let executable = Executable::open(file.path()).unwrap();
    let binary = Binary::analyse(&executable, Path::new("/"), &[], Limits::default());
    assert!(matches!(absence(&binary, ProbePoint::AxumRoute), Absence::Malformed(_)));
}

#[test]
fn sections_beyond_a_number_are_not_read() {
    let bytes = executable(&[0x90; 16], &[(ROUTE, elf::STT_FUNC, CODE, 16)]);
    let limits = Limits { sections: 4, ..Limits::default() };
    let binary = Binary::analyse_bytes(&bytes, None, limits);
    let cost = TooCostly::Sections { count: 5, limit: 4 };
    assert_eq!(absence(&binary, ProbePoint::AxumRoute), Absence::TooCostly(cost));
}

#[test]
fn names_that_resemble_wanted_ones_are_tried_up_to_a_number() {
    let names: Vec<String> = (0..200).map(|n| format!("_ZN1a28set_matched_path_for_request17h{n:016x}E")).collect();
    let symbols: Vec<_> = names.iter().map(|name| (name.as_str(), elf::STT_FUNC, CODE, 16)).collect();
    let bytes = executable(&[0x90; 16], &symbols);
    let analyse = |names| Binary::analyse_bytes(&bytes, None, Limits { names, ..Limits::default() });
    assert_eq!(absence(&analyse(199), ProbePoint::AxumRoute), Absence::TooCostly(TooCostly::Names(199)));
    assert!(!matches!(absence(&analyse(200), ProbePoint::AxumRoute), Absence::TooCostly(_)));
}

/// `count` copies of each function, one byte each.
fn copies(counts: &[(&str, u64)]) -> Vec<u8> {
    let mut symbols = Vec::new();
    for (name, count) in counts {
        for _ in 0..*count {
            symbols.push((*name, elf::STT_FUNC, CODE + symbols.len() as u64, 1));
        }
    }
    executable(&vec![0x90; symbols.len()], &symbols)
}

#[test]
fn a_probe_point_with_many_copies_has_no_probe() {
    let analyse = |count| Binary::analyse_bytes(&copies(&[(ROUTE, count)]), None, Limits::default());
    assert_eq!(analyse(64).places(ProbePoint::AxumRoute).len(), 64);
    assert_eq!(absence(&analyse(65), ProbePoint::AxumRoute), Absence::Copies { limit: 64 });
    assert_eq!(absence(&analyse(4000), ProbePoint::AxumRoute), Absence::Copies { limit: 64 });
}

#[test]
fn a_binary_has_places_for_the_points_that_come_first() {
    let bytes = copies(&[(QUERY, 60), (ROUTE, 60)]);
    let limits = |binary_places| Limits { binary_places, ..Limits::default() };
    let binary = Binary::analyse_bytes(&bytes, None, limits(119));
    assert_eq!(binary.places(ProbePoint::AxumRoute).len(), 60);
    assert_eq!(absence(&binary, ProbePoint::SqlxQuery), Absence::Places { limit: 119 });
    let binary = Binary::analyse_bytes(&bytes, None, limits(120));
    assert_eq!(binary.places(ProbePoint::SqlxQuery).len(), 60);
}
