//! A small executable for tests: one code segment, a thread-local block of 0x120 bytes, symbols as wanted.

use object::elf;

/// Address and file offset of the code.
pub(super) const CODE: u64 = 0x1000;

/// rustc 1.95, release: copy of the argument, `lea`, state byte, registration of the destructor, store.
pub(super) const RELEASE: &[u8] = &[
    0x41, 0x56, 0x53, 0x50, // push r14; push rbx; push rax
    0x48, 0x89, 0xfb, // mov rbx, rdi
    0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, // mov rax, fs:[0]
    0x48, 0x8d, 0x80, 0xe0, 0xfe, 0xff, 0xff, // lea rax, [rax-0x120]
    0x0f, 0xb6, 0x48, 0x48, // movzx ecx, byte [rax+0x48]
    0x83, 0xf9, 0x01, 0x74, 0x24, // cmp ecx, 1; je +0x24
    0x83, 0xf9, 0x02, 0x75, 0x04, // cmp ecx, 2; jne +4
    0x31, 0xc9, 0xeb, 0x23, // xor ecx, ecx; jmp +0x23
    0x48, 0x8d, 0x35, 0xa0, 0x55, 0, 0, // lea rsi, [rip+…]
    0x48, 0x89, 0xc7, 0x49, 0x89, 0xc6, // mov rdi, rax; mov r14, rax
    0xff, 0x15, 0x2c, 0xf2, 0x06, 0, // call [rip+…]
    0x4c, 0x89, 0xf0, // mov rax, r14
    0x41, 0xc6, 0x46, 0x48, 0x01, // mov byte [r14+0x48], 1
    0x48, 0x8b, 0x48, 0x30, // mov rcx, [rax+0x30]
    0x48, 0x89, 0x58, 0x30, // mov [rax+0x30], rbx
    0x48, 0x89, 0xc8, 0x48, 0x83, 0xc4, 0x08, 0x5b, 0x41, 0x5e, 0xc3,
];

/// A symbol: mangled name, type, value, size.
pub(super) type Named<'a> = (&'a str, u8, u64, u64);

pub(super) fn executable(code: &[u8], symbols: &[Named<'_>]) -> Vec<u8> {
    let mut file = vec![0; CODE as usize];
    let mut put = |at: usize, value: &[u8]| file[at..at + value.len()].copy_from_slice(value);
    put(0, b"\x7fELF\x02\x01\x01");
    put(0x10, &elf::ET_DYN.to_le_bytes());
    put(0x12, &elf::EM_X86_64.to_le_bytes());
    put(0x14, &1_u32.to_le_bytes());
    put(0x20, &64_u64.to_le_bytes());
    // Sizes and counts of the headers; section names are in section 3.
    put(0x34, &[64, 0, 56, 0, 2, 0, 64, 0]);
    let mut segment = |at: usize, kind: u32, flags: u32, words: [u64; 6]| {
        put(at, &[kind.to_le_bytes(), flags.to_le_bytes()].concat());
        put(at + 8, &words.map(u64::to_le_bytes).concat());
    };
    let len = code.len() as u64;
    segment(64, elf::PT_LOAD, elf::PF_X, [CODE, CODE, CODE, len, len, 0x1000]);
    segment(120, elf::PT_TLS, 0, [CODE, 0x3000, 0x3000, 0, 0x120, 8]);
    file.extend_from_slice(code);
    if symbols.is_empty() {
        return file;
    }
    let (mut table, mut strings) = (vec![0; 24], vec![0]);
    for &(name, kind, value, size) in symbols {
        table.extend_from_slice(&(strings.len() as u32).to_le_bytes());
        table.extend_from_slice(&[kind, 0, 1, 0]);
        table.extend_from_slice(&[value.to_le_bytes(), size.to_le_bytes()].concat());
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    let names = b"\0.symtab\0.strtab\0.shstrtab\0.comment\0".to_vec();
    let comment = b"rustc version 1.95.0 (59807616e 2026-04-14)\0".to_vec();
    // Name, type, link, bytes.
    let sections = [
        (1, elf::SHT_SYMTAB, 2, table),
        (9, elf::SHT_STRTAB, 0, strings),
        (17, elf::SHT_STRTAB, 0, names),
        (27, elf::SHT_PROGBITS, 0, comment),
    ];
    let mut headers = vec![0; 64];
    for (name, kind, link, bytes) in sections {
        file.resize(file.len().next_multiple_of(8), 0);
        let words = [0, 0, file.len() as u64, bytes.len() as u64].map(u64::to_le_bytes).concat();
        headers.extend_from_slice(&[u32::to_le_bytes(name), kind.to_le_bytes()].concat());
        headers.extend_from_slice(&words);
        headers.extend_from_slice(&[u32::to_le_bytes(link), [0; 4]].concat());
        headers.extend_from_slice(&[8_u64, 24].map(u64::to_le_bytes).concat());
        file.extend_from_slice(&bytes);
    }
    file.resize(file.len().next_multiple_of(8), 0);
    let start = file.len() as u64;
    file[0x28..0x30].copy_from_slice(&start.to_le_bytes());
    file[0x3c..0x40].copy_from_slice(&[5, 0, 3, 0]);
    file.extend_from_slice(&headers);
    file
}
