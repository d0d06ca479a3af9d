//! Tests of the choice of a compiler.

use super::*;

fn llvm(text: &str) -> Llvm {
    Llvm::parse(text).expect("a version")
}

fn distro(version: &str) -> Candidate {
    let call = Call::Rustc { path: "/usr/bin/rustc".into(), build_std: false };
    let compiler = Compiler { call, version: "rustc 1.96.0".into(), llvm: Some(llvm(version)) };
    Candidate { name: "/usr/bin/rustc".into(), found: Ok(compiler) }
}

fn nightly(found: Result<&str, &str>) -> Candidate {
    let call = Call::Rustup("nightly".into());
    let compiler = |version| Compiler { call, version: "rustc 1.97.0-nightly".into(), llvm: Some(llvm(version)) };
    Candidate { name: "rustup nightly".into(), found: found.map(compiler).map_err(str::to_owned) }
}

#[test]
fn a_nightly_with_source_comes_before_the_distribution() {
    let (compiler, passed_over) = choose(vec![nightly(Ok("22.1.4")), distro("22.1.8")], None).expect("a compiler");
    assert_eq!(compiler.call, Call::Rustup("nightly".into()));
    assert!(passed_over.is_empty());
}

#[test]
fn a_nightly_without_source_is_passed_over_with_the_reason() {
    let all = vec![nightly(Err("has no rust-src")), distro("22.1.8")];
    let (compiler, passed_over) = choose(all, Some(llvm("22.1.8"))).expect("a compiler");
    assert_eq!(compiler.version, "rustc 1.96.0");
    assert_eq!(passed_over, ["rustup nightly: has no rust-src"]);
}

#[test]
fn a_compiler_whose_bitcode_is_too_new_is_passed_over() {
    let all = vec![nightly(Ok("23.1.0")), distro("22.1.8")];
    let (compiler, passed_over) = choose(all, Some(llvm("22.1.8"))).expect("a compiler");
    assert_eq!(compiler.version, "rustc 1.96.0");
    assert!(passed_over[0].contains("LLVM 23.1.0"), "{passed_over:?}");
}

#[test]
fn with_no_compiler_left_the_error_names_each_reason_and_the_remedy() {
    let all = vec![nightly(Err("has no rust-src")), distro("23.1.0")];
    let error = choose(all, Some(llvm("22.1.8"))).expect_err("none fits").to_string();
    for part in ["has no rust-src", "LLVM 23.1.0", "bpf-linker's LLVM 22.1.8", "cargo xtask setup", OVERRIDE] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn llvm_reads_its_own_version_and_older_ones() {
    assert!(llvm("22.1.8").reads(llvm("22.1.8")));
    assert!(llvm("22.1.8").reads(llvm("22.1.2")));
    assert!(llvm("23.0.1").reads(llvm("22.1.8")));
    assert!(!llvm("22.1.2").reads(llvm("22.1.8")));
    assert!(!llvm("22.0.9").reads(llvm("22.1.0")));
    assert!(!llvm("21.1.8").reads(llvm("22.1.2")));
    assert!(llvm("22").reads(llvm("22.1.8")), "what is not known is taken to fit");
}

#[test]
fn versions_are_read_with_anything_behind() {
    assert_eq!(llvm("22.1.8-rust-1.97.0-nightly").to_string(), "22.1.8");
    assert_eq!(llvm("22.1git\n").to_string(), "22.1");
    assert_eq!(Llvm::parse("git"), None);
    let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
    let (version, written) = parse_verbose_version(text);
    assert_eq!((version.as_str(), written), ("rustc 1.96.0 (ac68faa20 2026-05-25)", Some(llvm("22.1.8"))));
}

#[test]
fn the_linkers_llvm_is_read_from_the_name_of_its_library() {
    assert_eq!(llvm_library(b"\0libgcc_s.so.1\0libLLVM.so.22.1\0"), Some(llvm("22.1")));
    assert_eq!(llvm_library(b"\0libLLVM-19.so.1\0"), Some(llvm("19")));
    assert_eq!(llvm_library(b"uses libLLVM of some kind\0libc.so.6\0"), None);
}

#[test]
fn the_linkers_llvm_is_read_from_cargos_notes_where_it_is_linked_statically() {
    let notes = r#"{"installs":{"other 1.0.0 (registry)":{"features":["llvm-19"]},
        "bpf-linker 0.13.0 (registry)":{"features":["llvm-22"]}}}"#;
    assert_eq!(installed_feature(notes), Some(llvm("22")));
    assert_eq!(installed_feature("{}"), None);
}
