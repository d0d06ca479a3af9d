//! Analyses of real files and of damaged ones.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::target::elf_fixture::{CODE, RELEASE, executable};
use crate::target::executable::Executable;
use crate::target::report::BinaryReport;

fn analyse(bytes: &[u8]) -> Binary {
    Binary::analyse_bytes(bytes, None, Limits::default())
}

fn analyse_file(path: &Path) -> Binary {
    Binary::analyse(&Executable::open(path).unwrap(), Path::new("/"), &[], Limits::default())
}

fn absence_of(binary: &Binary, point: ProbePoint) -> Option<Absence> {
    match binary.probes.iter().find(|(other, _)| *other == point).map(|(_, presence)| presence) {
        Some(Presence::Absent(absence)) => Some(absence.clone()),
        _ => None,
    }
}

fn skip(name: &str, reason: &str) {
    eprintln!("skipped: {name}: {reason}");
    if let Some(path) = std::env::var_os("RUSTOK_OBSD_SKIPS") {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "skipped: {name}: {reason}").unwrap();
    }
}

#[test]
fn a_c_program_is_not_rust() {
    let report = BinaryReport::new(Path::new("/bin/true")).unwrap();
    assert!(!report.binary.is_rust && !report.is_complete());
    assert_eq!(report.binary.libc, Some(Libc::Glibc));
    assert_eq!(absence_of(&report.binary, ProbePoint::AxumRoute), Some(Absence::NotRust));
    assert!(report.to_string().contains("absent: not a Rust program"), "{report}");
}

#[test]
fn a_script_an_empty_file_and_a_truncated_elf_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    std::fs::write(&path, "#!/bin/sh\nexec true\n").unwrap();
    let report = BinaryReport::new(&path).unwrap();
    assert_eq!(absence_of(&report.binary, ProbePoint::AxumRoute), Some(Absence::NotElf));
    assert!(report.to_string().contains("absent: not an ELF file"), "{report}");
    assert_eq!(absence_of(&analyse(b""), ProbePoint::TokioTaskEnter), Some(Absence::NotElf));
    let whole = std::fs::read("/bin/true").unwrap();
    for len in [5, 6, 63, 64, 200, whole.len() / 2, whole.len() - 1] {
        let absence = absence_of(&analyse(&whole[..len]), ProbePoint::AxumRoute);
        assert!(matches!(absence, Some(Absence::Malformed(_) | Absence::NotElf)), "{len}: {absence:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    for (path, reason) in
        [("/nonexistent/x", "No such file"), ("/dev/null", "not a regular file"), ("/", "not a regular")]
    {
        let error = BinaryReport::new(Path::new(path)).unwrap_err().to_string();
        assert!(error.contains(path) && error.contains(reason), "{error}");
    }
}

#[test]
fn this_program_is_rust_with_tokio_and_its_debug_build_asks_for_calibration() {
    let binary = analyse_file(Path::new("/proc/self/exe"));
    assert!(binary.is_rust && !binary.stripped && binary.rustc.is_some());
    assert!(binary.libraries.iter().any(|(library, _)| *library == Library::Tokio));
    assert_eq!(binary.places(ProbePoint::TokioTaskEnter).len(), 1);
    if cfg!(debug_assertions) {
        assert!(matches!(binary.task_slot, TaskSlot::NeedsCalibration { .. }), "{:?}", binary.task_slot);
    }
    // axum's feature `matched-path` is off here, unless another package of the same build has it on; its router is in.
    if let Some(absence) = absence_of(&binary, ProbePoint::AxumRoute) {
        assert!(matches!(absence, Absence::Inlined("axum") | Absence::NotLinked("axum")), "{absence}");
    } else {
        assert!(!binary.places(ProbePoint::AxumRoute).is_empty());
    }
}

#[test]
fn the_shop_has_its_routes_and_its_task_id() {
    let Some(path) = std::env::var_os("RUSTOK_OBSD_SHOP") else {
        return skip(
            "the_shop_has_its_routes_and_its_task_id",
            "RUSTOK_OBSD_SHOP does not name the shop's release binary; `cargo xtask test` builds it",
        );
    };
    let start = Instant::now();
    let report = BinaryReport::new(Path::new(&path)).unwrap();
    let took = start.elapsed();
    assert!(report.is_complete(), "{report}");
    assert!(matches!(report.binary.task_slot, TaskSlot::Known(_)), "{report}");
    assert!(report.binary.libraries.iter().any(|(library, _)| *library == Library::SeaOrm), "{report}");
    eprintln!("{} bytes in {took:?}", report.binary.size);
}

#[test]
fn a_stripped_copy_takes_its_symbols_from_the_debug_file_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let (stripped, debug) = (folder.path().join("server"), folder.path().join("server.debug"));
    let exe = std::env::current_exe().unwrap();
    let objcopy = |arguments: &[&std::ffi::OsStr]| {
        std::process::Command::new("objcopy").args(arguments).status().is_ok_and(|status| status.success())
    };
    let link = [std::ffi::OsStr::new("--add-gnu-debuglink"), debug.as_os_str()].join(std::ffi::OsStr::new("="));
    if !objcopy(&["--only-keep-debug".as_ref(), exe.as_os_str(), debug.as_os_str()]) {
        return skip("a_stripped_copy_takes_its_symbols_from_the_debug_file_beside_it", "binutils' objcopy is missing");
    }
    assert!(objcopy(&["--strip-all".as_ref(), &link, exe.as_os_str(), stripped.as_os_str()]));
    let (whole, split) = (analyse_file(&exe), analyse_file(&stripped));
    assert!(split.stripped);
    assert_eq!(split.debug_file.as_deref(), Some(debug.as_path()));
    let place = |binary: &Binary| binary.places(ProbePoint::TokioTaskEnter)[0].clone();
    let mut code = place(&whole).code;
    code.fill(0);
    let file = std::fs::File::open(&stripped).unwrap();
    Source::read_exact_at(&file, &mut code, place(&split).file_offset).unwrap();
    assert_eq!(place(&split).code, code, "the offset is the stripped file's own");
    assert_eq!(place(&whole).code, code);
    // One that others may write to does not count, and the reason shows.
    std::fs::set_permissions(&debug, std::fs::Permissions::from_mode(0o664)).unwrap();
    let report = BinaryReport::new(&stripped).unwrap();
    let absence = absence_of(&report.binary, ProbePoint::TokioTaskEnter);
    let refused = Absence::Distrusted { path: debug.clone(), reason: Distrust::Writable(0o664) };
    assert_eq!(absence, Some(refused));
    assert!(report.to_string().contains("may write to it (mode 0664)"), "{report}");
    assert!(report.to_json()["refused_debug_files"][0]["reason"].as_str().unwrap().contains("0664"));
    std::fs::remove_file(&debug).unwrap();
    let bare = analyse_file(&stripped);
    assert_eq!(absence_of(&bare, ProbePoint::TokioTaskEnter), Some(Absence::Stripped));
    assert!(bare.is_rust && bare.libraries.iter().any(|(library, _)| *library == Library::Tokio));
}

const ENTER: &str = "_ZN5tokio7runtime4task4core11TaskIdGuard5enter17hefbe57620a89e0ffE";
const ROUTE: &str = "_ZN4axum7extract12matched_path28set_matched_path_for_request17h3b291ad85ef9fbe7E";
const ROUTE_V0: &str = "_RNvNtNtCs1234_4axum7extract12matched_path28set_matched_path_for_request";
const CONTEXT_V0: &str = "_RNvNCNkNvNtNtCs1234_5tokio7runtime7context7CONTEXT00s_23___RUST_STD_INTERNAL_VAL";
const LENGTH: u64 = RELEASE.len() as u64;

/// Two copies of one function, one of them under two names, and things that look alike.
fn server() -> Vec<u8> {
    let code = [RELEASE, &[0xcc; 64]].concat();
    executable(
        &code,
        &[
            (ENTER, elf::STT_FUNC, CODE, LENGTH),
            (ROUTE, elf::STT_FUNC, CODE + 0x70, 8),
            (ROUTE_V0, elf::STT_FUNC, CODE + 0x70, 8),
            (ROUTE_V0, elf::STT_FUNC, CODE + 0x78, 8),
            (ROUTE, elf::STT_FUNC, CODE + 0x80, 0),
            (ROUTE, elf::STT_OBJECT, CODE + 0x88, 8),
            ("set_matched_path_for_request", elf::STT_FUNC, CODE + 0x90, 8),
            (CONTEXT_V0, elf::STT_TLS, 0, 80),
        ],
    )
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_copy_is_found_and_folded_names_count_once() {
    let binary = analyse(&server());
    let places = binary.places(ProbePoint::AxumRoute);
    assert_eq!(places.iter().map(|place| place.file_offset).collect::<Vec<_>>(), [CODE + 0x70, CODE + 0x78]);
    assert_eq!(places[0].names, [ROUTE.into(), ROUTE_V0.into()] as [Arc<str>; 2]);
    assert_eq!(binary.task_slot, TaskSlot::Known(-0xf0));
    let mut aarch64 = server();
    aarch64[0x12] = elf::EM_AARCH64.to_le_bytes()[0];
    assert_eq!(absence_of(&analyse(&aarch64), ProbePoint::AxumRoute), Some(Absence::OtherMachine("aarch64")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn damaged_files_never_panic_and_never_lead_outside_of_the_file(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        head in proptest::collection::vec((0_usize..176, any::<u8>()), 0..4),
        sections in proptest::collection::vec((1_usize..320, any::<u8>()), 0..4),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        // The page before the code is padding: damage there says nothing.
        let mut bytes = server();
        let len = bytes.len();
        let body = CODE as usize;
        for (at, value) in damage {
            bytes[body + at.index(len - body)] = value;
        }
        for (at, value) in head {
            bytes[at] = value;
        }
        for (at, value) in sections {
            bytes[len - at] = value;
        }
        let bytes = &bytes[..cut.map_or(len, |cut| cut.index(len))];
        let binary = analyse(bytes);
        prop_assert_eq!(binary.probes.len(), ProbePoint::ALL.len());
        for place in ProbePoint::ALL.iter().flat_map(|&point| binary.places(point)) {
            prop_assert!(place.file_offset < bytes.len() as u64 && !place.names.is_empty());
        }
        let report = BinaryReport { path: "x".into(), binary };
        prop_assert!(report.to_string().contains("tokio's task id"));
    }
}
