//! The slot from code as compilers write it, and from this test program itself.

use std::path::Path;

use super::*;
use crate::target::binary::Binary;
use crate::target::budget::{Budget, Limits};
use crate::target::calibrate::{Calibrator, Progress};
use crate::target::elf_fixture::{CODE, RELEASE, executable};
use crate::target::executable::Executable;
use crate::target::memory::{Memory, ProcessMemory};

fn slot(code: &[u8]) -> TaskSlot {
    let (bytes, budget) = (executable(code, &[]), Budget::default());
    let elf = Elf::parse(bytes.as_slice(), &budget).unwrap();
    let enter = [Symbol { address: CODE, size: code.len() as u64, names: Vec::new() }];
    let context = [Symbol { address: 0, size: 80, names: Vec::new() }];
    find(&elf, &enter, &context)
}

#[test]
fn the_release_code_of_rustc_gives_the_slot() {
    assert_eq!(slot(RELEASE), TaskSlot::Known(-0xf0));
}

#[test]
fn other_shapes_of_the_same_code_give_the_slot() {
    let shapes: [&[u8]; 5] = [
        // opt-level 1 asks again whether there is a pointer: xor eax, eax; jrcxz +16; mov rax, fs:[0];
        // lea rax, [rax-0x120]; test rax, rax; je +4; mov [rax+0x30], rdi; ret
        &[
            0x31, 0xc0, 0xe3, 0x10, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x8d, 0x80, 0xe0, 0xfe, 0xff, 0xff,
            0x48, 0x85, 0xc0, 0x74, 0x04, 0x48, 0x89, 0x78, 0x30, 0xc3,
        ],
        // mov rax, -0x120; add rax, fs:[0]; xchg [rax+0x30], rdi; ret
        &[
            0x48, 0xc7, 0xc0, 0xe0, 0xfe, 0xff, 0xff, 0x64, 0x48, 0x03, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x87, 0x78, 0x30,
            0xc3,
        ],
        // mov fs:[-0xf0], rdi; ret
        &[0x64, 0x48, 0x89, 0x3c, 0x25, 0x10, 0xff, 0xff, 0xff, 0xc3],
        // mov rax, fs:[0]; add rax, -0x120; mov [rax+0x30], rdi; ret
        &[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x05, 0xe0, 0xfe, 0xff, 0xff, 0x48, 0x89, 0x78, 0x30, 0xc3],
        // jmp +1; int3; mov fs:[-0xf0], rdi; ret
        &[0xeb, 0x01, 0xcc, 0x64, 0x48, 0x89, 0x3c, 0x25, 0x10, 0xff, 0xff, 0xff, 0xc3],
    ];
    for shape in shapes {
        assert_eq!(slot(shape), TaskSlot::Known(-0xf0), "{shape:x?}");
    }
}

#[test]
fn code_that_leaves_doubt_is_calibrated_with_the_reason() {
    let doubtful: [(&[u8], &str); 6] = [
        // push rax; mov [rsp], rdi; call [rip]; pop rcx; ret: a debug build.
        (&[0x50, 0x48, 0x89, 0x3c, 0x24, 0xff, 0x15, 0, 0, 0, 0, 0x59, 0xc3], "does not store its argument"),
        // call [rip]; mov [rax], rdi … with rdi kept in rbx: __tls_get_addr.
        (&[0x48, 0x89, 0xfb, 0xff, 0x15, 0, 0, 0, 0, 0x48, 0x89, 0x18, 0xc3], "the code hides"),
        // Two places: mov fs:[-0xf0], rdi; mov fs:[-0xe8], rdi.
        (
            &[
                0x64, 0x48, 0x89, 0x3c, 0x25, 0x10, 0xff, 0xff, 0xff, 0x64, 0x48, 0x89, 0x3c, 0x25, 0x18, 0xff, 0xff,
                0xff, 0xc3,
            ],
            "in 2 places",
        ),
        // Outside of CONTEXT: mov fs:[-8], rdi.
        (&[0x64, 0x48, 0x89, 0x3c, 0x25, 0xf8, 0xff, 0xff, 0xff, 0xc3], "outside of CONTEXT"),
        // The low half only: mov fs:[-0xf0], edi.
        (&[0x64, 0x89, 0x3c, 0x25, 0x10, 0xff, 0xff, 0xff, 0xc3], "does not store its argument"),
        // The argument was changed before: mov edi, edi; mov fs:[-0xf0], rdi.
        (&[0x89, 0xff, 0x64, 0x48, 0x89, 0x3c, 0x25, 0x10, 0xff, 0xff, 0xff, 0xc3], "does not store its argument"),
    ];
    for (code, why) in doubtful {
        let TaskSlot::NeedsCalibration { reason, enter_offsets, areas } = slot(code) else {
            panic!("{code:x?}: {:?}", slot(code))
        };
        assert!(reason.contains(why), "{reason} for {code:x?}");
        assert_eq!((enter_offsets, areas.len(), areas[0].clone()), (vec![0x1000], 1, -0x120..-0xd0));
    }
}

proptest::proptest! {
    #[test]
    fn any_code_is_followed_to_an_end(code in proptest::collection::vec(proptest::num::u8::ANY, 1..400)) {
        slot(&code);
    }

    #[test]
    fn damaged_code_never_gives_a_slot_outside_of_context(at in 0..RELEASE.len(), value in proptest::num::u8::ANY) {
        let mut code = RELEASE.to_vec();
        code[at] = value;
        if let TaskSlot::Known(slot) = slot(&code) {
            proptest::prop_assert!((-0x120..=-0xd0 - 8).contains(&slot));
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn thread_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: the psABI puts the thread pointer itself at %fs:0; the instruction reads it and nothing else.
    unsafe { std::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, readonly, preserves_flags)) };
    pointer
}

/// This program links Tokio: what we find in its file must be where its tasks find their id. A debug build is
/// calibrated, a release build (`cargo test --release`) is read.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_slot_of_this_program_holds_the_id_of_its_tasks() {
    let binary = Binary::analyse(
        &Executable::open(Path::new("/proc/self/exe")).unwrap(),
        Path::new("/"),
        &[],
        Limits::default(),
    );
    let memory = ProcessMemory::new(std::process::id());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let task = || tokio::task::id().to_string().parse::<u64>().unwrap();
    let offset = match binary.task_slot {
        TaskSlot::Known(offset) => offset,
        TaskSlot::NeedsCalibration { areas, .. } => {
            let mut calibrator = Calibrator::new(&areas);
            let mut progress = Progress::Searching;
            for _ in 0..100 {
                let mut taken = calibrator.clone();
                let sample = async move {
                    let progress = taken.sample(&memory, thread_pointer(), task());
                    (taken, progress)
                };
                (calibrator, progress) = runtime.block_on(async { tokio::spawn(sample).await.unwrap() });
            }
            let Progress::Found(offset) = progress else { panic!("{progress:?}") };
            offset
        }
        TaskSlot::Absent { reason } => panic!("{reason}"),
    };
    let word = move || {
        let mut bytes = [0; 8];
        memory.read(thread_pointer().wrapping_add_signed(offset), &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    };
    assert_eq!(word(), 0, "no task outside of the runtime");
    for _ in 0..10 {
        let (read, told) = runtime.block_on(async { tokio::spawn(async move { (word(), task()) }).await.unwrap() });
        assert_eq!(read, told);
    }
}
