//! Symbols that the code contradicts, and those of real programs, which it does not.

use std::path::Path;

use object::elf;

use super::*;
use crate::target::binary::Binary;
use crate::target::budget::{Budget, Limits};
use crate::target::elf_fixture::{CODE, Named, RELEASE, executable, with_unwind_table};
use crate::target::points::ProbePoint;

const ROUTE: &str = "_ZN4axum7extract12matched_path28set_matched_path_for_request17h3b291ad85ef9fbe7E";
const LENGTH: u64 = RELEASE.len() as u64;

/// The presence of axum's function, whose symbol is this one, among other symbols.
fn route(address: u64, size: u64, others: &[Named<'_>]) -> Presence {
    presence(&executable(&[RELEASE, &[0x90; 16]].concat(), &named(address, size, others)))
}

fn named<'n>(address: u64, size: u64, others: &[Named<'n>]) -> Vec<Named<'n>> {
    [&[(ROUTE, elf::STT_FUNC, address, size)], others].concat()
}

fn presence(bytes: &[u8]) -> Presence {
    let binary = Binary::analyse_bytes(bytes, None, Limits::default());
    binary.presence(ProbePoint::AxumRoute).unwrap().clone()
}

fn doubt(presence: Presence) -> Doubt {
    match presence {
        Presence::Absent(Absence::Refused { first, .. }) => first.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_function_that_code_and_table_agree_on_is_a_place() {
    let Presence::Found { places, refused } = route(CODE, LENGTH, &[]) else { panic!() };
    assert_eq!((places[0].file_offset, places[0].address, refused.len()), (CODE, CODE, 0));
    assert_eq!(places[0].code, RELEASE[..16]);
    let beside = [("f", elf::STT_FUNC, CODE + LENGTH, 16), ("g", elf::STT_FUNC, CODE, LENGTH)];
    assert!(matches!(route(CODE, LENGTH, &beside), Presence::Found { .. }), "a neighbour and an alias");
    let inner = [("f", elf::STT_FUNC, CODE + 2, 1), ("v", elf::STT_OBJECT, CODE + 1, 1)];
    assert!(matches!(route(CODE, LENGTH, &inner), Presence::Found { .. }), "a second entry, and data");
}

#[test]
fn a_place_within_an_instruction_is_refused_by_its_neighbours() {
    // `mov rbx, rdi` has three bytes: its second and third are `mov ebx, edi`, of which nothing is wrong by itself.
    let within = CODE + 5;
    assert!(matches!(route(within, LENGTH - 5, &[]), Presence::Found { .. }));
    let whole = [("f", elf::STT_FUNC, CODE, LENGTH)];
    assert_eq!(doubt(route(within, LENGTH - 5, &whole)), Doubt::Within(CODE));
    // The other way round: another function begins within one of ours.
    assert_eq!(doubt(route(CODE, LENGTH, &[("f", elf::STT_FUNC, within, 2)])), Doubt::Overlap(within));
}

#[test]
fn a_function_around_many_others_is_no_witness_for_them() {
    let others: Vec<Named<'_>> =
        (0..=MAX_AROUND as u64).map(|at| ("f", elf::STT_FUNC, CODE + at, LENGTH - at)).collect();
    let address = CODE + 7;
    assert!(matches!(doubt(route(address, LENGTH - 7, &others)), Doubt::Within(_)));
}

#[test]
fn the_unwind_table_is_a_witness_of_its_own() {
    let code = [RELEASE, &[0x90; 16]].concat();
    let within = executable(&code, &named(CODE + 5, LENGTH - 5, &[]));
    let table = |functions: &[(u64, u32)]| with_unwind_table(within.clone(), functions);
    let function = (CODE, LENGTH as u32);
    assert_eq!(doubt(presence(&table(&[function]))), Doubt::Unwind(CODE));
    assert!(matches!(presence(&table(&[(CODE, 5), (CODE + 5, 90)])), Presence::Found { .. }), "it begins there");
    assert!(matches!(presence(&table(&[(CODE, 5)])), Presence::Found { .. }), "no word about this place");
    assert!(matches!(presence(&table(&[(CODE + 7, 90)])), Presence::Found { .. }));
    let outside = with_unwind_table(executable(&code, &named(CODE, LENGTH, &[])), &[function]);
    assert!(matches!(presence(&outside), Presence::Found { .. }));
}

#[test]
fn copies_that_are_refused_are_listed_beside_the_others() {
    let binary = executable(
        &[RELEASE, RELEASE].concat(),
        &[(ROUTE, elf::STT_FUNC, CODE, LENGTH), (ROUTE, elf::STT_FUNC, CODE + LENGTH, LENGTH - 1)],
    );
    let found = presence(&binary);
    let Presence::Found { places, refused } = &found else { panic!("{found:?}") };
    // The function's last byte is `ret`; without it the code before ends well, at the end of the last `pop`.
    assert_eq!((places.len(), refused.len()), (2, 0));
    let binary = executable(
        &[RELEASE, RELEASE].concat(),
        &[(ROUTE, elf::STT_FUNC, CODE, LENGTH), (ROUTE, elf::STT_FUNC, CODE + LENGTH, LENGTH - 2)],
    );
    assert_eq!(Binary::analyse_bytes(&binary, None, Limits::default()).refused_places(), 1);
    let found = presence(&binary);
    let Presence::Found { places, refused } = &found else { panic!("{found:?}") };
    assert_eq!((places.len(), refused.len()), (1, 1));
    assert!(found.to_string().contains("1 more without a probe"), "{found}");
}

/// Each of these functions as if it were looked for.
fn survey(path: &Path, step: usize) -> (usize, Vec<(u64, Doubt)>) {
    let file = std::fs::File::open(path).unwrap();
    let budget =
        Budget::new(Limits { time: std::time::Duration::from_secs(600), total_bytes: u64::MAX, ..Limits::default() });
    let elf = Elf::parse(&file, &budget).unwrap();
    let mut functions = BTreeMap::<u64, u64>::new();
    symbols::functions(&elf, |address, size| {
        let known = functions.entry(address).or_default();
        *known = size.max(*known);
    })
    .unwrap();
    let functions: Vec<Symbol> = functions
        .into_iter()
        .filter(|(_, size)| *size > 0)
        .step_by(step)
        .map(|(address, size)| Symbol { address, size, names: Vec::new() })
        .collect();
    let mut refused = Vec::new();
    for some in functions.chunks(4096) {
        let mut places = Places::read(&elf, some.iter()).unwrap();
        places.compare(&elf, &elf).unwrap();
        refused.extend(places.checked.into_iter().filter_map(|(address, place)| Some((address, place.code.err()?))));
    }
    (functions.len(), refused)
}

#[test]
fn no_function_of_this_program_is_refused() {
    let (looked_at, refused) = survey(Path::new("/proc/self/exe"), 40);
    assert!(looked_at > 500, "{looked_at}");
    assert_eq!(refused, [], "of {looked_at}");
}

/// For whoever changes the checks: `RUSTOK_OBSD_SURVEY=FILE:FILE… cargo test survey -- --ignored --nocapture`.
#[test]
#[ignore = "looks at all functions of files that a variable names"]
fn survey_of_named_files() {
    for path in std::env::var("RUSTOK_OBSD_SURVEY").unwrap().split(':') {
        let (looked_at, refused) = survey(Path::new(path), 1);
        let some: Vec<String> = refused.iter().take(40).map(|(at, why)| format!("\n  {at:#x} {why}")).collect();
        eprintln!("{path}: {} of {looked_at} functions refused{}", refused.len(), some.concat());
    }
}
