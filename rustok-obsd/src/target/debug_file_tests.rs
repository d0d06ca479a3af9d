//! Whose symbols count.

use test_support::{Fuse, Served, Skip, fuse, skip};

use super::*;
use crate::target::budget::Budget;
use crate::target::elf_fixture::{CODE, RELEASE, split};
use crate::target::mounts::Mounts;

const ID: &[u8] = b"0123456789abcdef";

fn compare(stripped: &[u8], debug: &[u8]) -> Result<(), Distrust> {
    let budget = Budget::default();
    agrees(&Elf::parse(stripped, &budget).unwrap(), &Elf::parse(debug, &budget).unwrap())
}

fn pair(code: &[u8], id: &[u8]) -> (Vec<u8>, Vec<u8>) {
    split(code, &[("a", elf::STT_FUNC, CODE, code.len() as u64)], id)
}

#[test]
fn only_root_and_the_owner_of_the_executable_vouch_for_symbols() {
    let owned = |uid: u32| Owner { uid, gid: uid, mode: 0o644 };
    assert_eq!(may_vouch(owned(0), owned(0)), Ok(()));
    assert_eq!(may_vouch(owned(0), owned(1000)), Ok(()));
    assert_eq!(may_vouch(owned(1000), owned(1000)), Ok(()), "a developer's own build");
    for (debug, executable) in [(1000, 0), (1001, 1000), (NOBODY, NOBODY)] {
        let refused = Err(Distrust::Owner { owner: debug, executable });
        assert_eq!(may_vouch(owned(debug), owned(executable)), refused);
    }
    for mode in [0o664, 0o646, 0o666, 0o4620] {
        assert_eq!(may_vouch(Owner { mode, ..owned(0) }, owned(0)), Err(Distrust::Writable(mode)));
    }
}

#[test]
fn build_id_and_layout_show_what_a_debug_file_was_split_off() {
    let (stripped, debug) = pair(RELEASE, ID);
    assert_eq!(compare(&stripped, &debug), Ok(()));
    // The build id alone can be copied.
    let (_, longer) = pair(&[RELEASE, &[0xcc]].concat(), ID);
    assert!(matches!(compare(&stripped, &longer), Err(Distrust::Layout(why)) if why.contains(".text")));
    let (_, other) = pair(RELEASE, b"fedcba9876543210");
    assert_eq!(compare(&stripped, &other), Err(Distrust::BuildId));
    let mut elsewhere = debug.clone();
    elsewhere[0x12] = elf::EM_AARCH64.to_le_bytes()[0];
    assert!(matches!(compare(&stripped, &elsewhere), Err(Distrust::Layout(_))));
    assert_eq!(compare(&stripped, &stripped), Err(Distrust::NoSymbols));
}

#[test]
fn without_a_build_id_nothing_shows_it() {
    let (stripped, debug) = pair(RELEASE, ID);
    // Shorter than any id, hence none.
    let (unnamed, nameless) = pair(RELEASE, b"0123");
    assert_eq!(compare(&unnamed, &debug), Err(Distrust::NoBuildId("the executable")));
    assert_eq!(compare(&stripped, &nameless), Err(Distrust::NoBuildId("it")));
}

#[test]
fn a_file_without_sections_in_memory_agrees_with_nothing() {
    let (stripped, debug) = pair(RELEASE, ID);
    let budget = Budget::default();
    let mut bare = Elf::parse(stripped.as_slice(), &budget).unwrap();
    bare.sections.retain(|section| section.kind == elf::SHT_NOTE);
    bare.sections.iter_mut().for_each(|section| section.flags = 0);
    let debug = Elf::parse(debug.as_slice(), &budget).unwrap();
    assert!(matches!(agrees(&bare, &debug), Err(Distrust::Layout(why)) if why.contains("no section headers")));
}

#[test]
fn a_debug_file_below_a_root_is_found_and_what_leads_out_of_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let (stripped, debug) = pair(RELEASE, ID);
    let path = folder.path().join("server");
    std::fs::write(&path, &stripped).unwrap();
    let executable = Executable::open(&path).unwrap();
    let budget = Budget::default();
    let elf = Elf::parse(stripped.as_slice(), &budget).unwrap();
    let hex: String = ID.iter().map(|byte| format!("{byte:02x}")).collect();
    let place = root.join(format!("{DEBUG}/.build-id/{}/{}.debug", &hex[..2], &hex[2..]));
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    let find = || search(&elf, &executable, &root);
    assert!(find().found.is_none() && find().refused.is_empty());

    std::fs::write(folder.path().join("outside.debug"), &debug).unwrap();
    let outside = folder.path().join("outside.debug");
    std::os::unix::fs::symlink(&outside, &place).unwrap();
    assert!(find().found.is_none(), "an absolute link leads to a place below the root, where nothing is");

    std::fs::remove_file(&place).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &place, rustix::fs::Mode::RWXU).unwrap();
    let refused = find().refused;
    assert_eq!(refused, [(place.clone(), Distrust::Unopened("not a regular file but a FIFO".to_owned()))]);

    std::fs::remove_file(&place).unwrap();
    std::fs::write(&place, "no ELF file").unwrap();
    assert_eq!(find().refused, [(place.clone(), Distrust::Elf(ElfError::NotElf))]);

    std::fs::write(&place, &debug).unwrap();
    assert_eq!(find().found.map(|found| found.path), Some(place));
}

#[test]
fn a_folder_of_debug_files_that_a_program_serves_is_not_asked() {
    let body = || -> Result<(), Skip> {
        let folder = tempfile::tempdir().unwrap();
        let (stripped, _) = pair(RELEASE, ID);
        let path = folder.path().join("server");
        std::fs::write(&path, &stripped).unwrap();
        let mounts = Mounts::of(Path::new("/proc"), std::process::id());
        let executable = Executable::of_process(&path, mounts).unwrap().unwrap();
        let budget = Budget::default();
        let elf = Elf::parse(stripped.as_slice(), &budget).unwrap();
        let root = folder.path().join("root");
        let served = root.join(DEBUG);
        std::fs::create_dir_all(&served).unwrap();
        // The folder, and then the whole root.
        let mut mounted = Vec::new();
        for refused in [&served, &root] {
            mounted.insert(0, Fuse::mount(refused, Served::Folder)?);
            let search = search(&elf, &executable, &root);
            assert!(search.found.is_none());
            let [(path, reason)] = &*search.refused else { panic!("{:?}", search.refused) };
            assert!(path.starts_with(refused), "{path:?}");
            assert_eq!(*reason, Distrust::Unasked(Unasked::Served("fuse".into())));
            assert!(mounted.iter().all(|fuse| fuse.asked() == 0));
        }
        Ok(())
    };
    if let Err(reason) = fuse::apart(0, body) {
        skip("a_folder_of_debug_files_that_a_program_serves_is_not_asked", reason);
    }
}
