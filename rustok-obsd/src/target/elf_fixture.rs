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

/// A section: name, type, flags, address, index of the linked section, bytes, size in memory if it has no bytes.
struct Part {
    name: &'static str,
    kind: u32,
    flags: u32,
    address: u64,
    link: u32,
    bytes: Vec<u8>,
    size: Option<u64>,
}

impl Part {
    fn new(name: &'static str, kind: u32, bytes: Vec<u8>) -> Self {
        Self { name, kind, flags: 0, address: 0, link: 0, bytes, size: None }
    }
}

/// Code and a thread-local block, no sections.
fn frame(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; CODE as usize];
    let mut put = |at: usize, value: &[u8]| file[at..at + value.len()].copy_from_slice(value);
    put(0, b"\x7fELF\x02\x01\x01");
    put(0x10, &elf::ET_DYN.to_le_bytes());
    put(0x12, &elf::EM_X86_64.to_le_bytes());
    put(0x14, &1_u32.to_le_bytes());
    put(0x20, &64_u64.to_le_bytes());
    // Sizes and counts of the headers.
    put(0x34, &[64, 0, 56, 0, 0, 0, 64, 0]);
    file.extend_from_slice(code);
    let len = code.len() as u64;
    segment(&mut file, elf::PT_LOAD, elf::PF_X, [CODE, CODE, CODE, len, len, 0x1000]);
    segment(&mut file, elf::PT_TLS, 0, [CODE, 0x3000, 0x3000, 0, 0x120, 8]);
    file
}

/// Adds a program header; words: offset, address, address, bytes in the file, bytes in memory, alignment.
fn segment(file: &mut [u8], kind: u32, flags: u32, words: [u64; 6]) {
    let at = 64 + 56 * usize::from(file[0x38]);
    file[0x38] += 1;
    let header = [[kind.to_le_bytes(), flags.to_le_bytes()].concat(), words.map(u64::to_le_bytes).concat()].concat();
    file[at..at + 56].copy_from_slice(&header);
}

/// Adds section names and headers.
fn with_sections(mut file: Vec<u8>, mut parts: Vec<Part>) -> Vec<u8> {
    parts.push(Part::new(".shstrtab", elf::SHT_STRTAB, Vec::new()));
    let (mut names, mut offsets) = (vec![0], Vec::new());
    for part in &parts {
        offsets.push(names.len() as u32);
        names.extend_from_slice(part.name.as_bytes());
        names.push(0);
    }
    let last = parts.len() as u16;
    parts[usize::from(last) - 1].bytes = names;
    let mut headers = vec![0; 64];
    for (part, name) in parts.iter().zip(offsets) {
        file.resize(file.len().next_multiple_of(8), 0);
        // The code has its place already.
        let offset = if part.address == CODE { CODE } else { file.len() as u64 };
        let size = part.size.unwrap_or(part.bytes.len() as u64);
        headers.extend_from_slice(&[name.to_le_bytes(), part.kind.to_le_bytes()].concat());
        headers.extend_from_slice(&[u64::from(part.flags), part.address, offset, size].map(u64::to_le_bytes).concat());
        headers.extend_from_slice(&[part.link.to_le_bytes(), [0; 4]].concat());
        headers.extend_from_slice(&[8_u64, 24].map(u64::to_le_bytes).concat());
        file.extend_from_slice(&part.bytes);
    }
    file.resize(file.len().next_multiple_of(8), 0);
    let start = file.len() as u64;
    file[0x28..0x30].copy_from_slice(&start.to_le_bytes());
    file[0x3c..0x3e].copy_from_slice(&(last + 1).to_le_bytes());
    file[0x3e..0x40].copy_from_slice(&last.to_le_bytes());
    file.extend_from_slice(&headers);
    file
}

fn comment() -> Part {
    Part::new(".comment", elf::SHT_PROGBITS, b"rustc version 1.95.0 (59807616e 2026-04-14)\0".to_vec())
}

/// `.symtab`, which will be the section of this index, and `.strtab` behind it.
fn tables(index: u32, symbols: &[Named<'_>]) -> [Part; 2] {
    let (mut table, mut strings) = (vec![0; 24], vec![0]);
    for &(name, kind, value, size) in symbols {
        table.extend_from_slice(&(strings.len() as u32).to_le_bytes());
        table.extend_from_slice(&[kind, 0, 1, 0]);
        table.extend_from_slice(&[value.to_le_bytes(), size.to_le_bytes()].concat());
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    let mut table = Part::new(".symtab", elf::SHT_SYMTAB, table);
    table.link = index + 1;
    [table, Part::new(".strtab", elf::SHT_STRTAB, strings)]
}

pub(super) fn executable(code: &[u8], symbols: &[Named<'_>]) -> Vec<u8> {
    let file = frame(code);
    if symbols.is_empty() {
        return file;
    }
    let mut parts = Vec::from(tables(1, symbols));
    parts.push(comment());
    with_sections(file, parts)
}

/// The note of a build id.
fn note(id: &[u8]) -> Vec<u8> {
    let words = [4, id.len() as u32, elf::NT_GNU_BUILD_ID].map(u32::to_le_bytes).concat();
    [&words[..], b"GNU\0", id].concat()
}

/// A stripped executable and what was split off it.
pub(super) fn split(code: &[u8], symbols: &[Named<'_>], id: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let text = |kind: u32| {
        let mut text = Part::new(".text", kind, Vec::new());
        (text.flags, text.address, text.size) = (elf::SHF_ALLOC | elf::SHF_EXECINSTR, CODE, Some(code.len() as u64));
        text
    };
    let mut build_id = Part::new(".note.gnu.build-id", elf::SHT_NOTE, note(id));
    (build_id.flags, build_id.address) = (elf::SHF_ALLOC, 0x200);
    let mut again = Part::new(".note.gnu.build-id", elf::SHT_NOTE, note(id));
    (again.flags, again.address) = (elf::SHF_ALLOC, 0x200);
    let stripped = with_sections(frame(code), vec![build_id, text(elf::SHT_PROGBITS), comment()]);
    let mut parts = vec![again, text(elf::SHT_NOBITS)];
    parts.extend(tables(3, symbols));
    (stripped, with_sections(frame(&vec![0; code.len()]), parts))
}

/// Adds an unwind table of these functions, address and length, to a file without one.
pub(super) fn with_unwind_table(mut file: Vec<u8>, functions: &[(u64, u32)]) -> Vec<u8> {
    const TABLE: usize = 0x400;
    const RECORDS: usize = 0x800;
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(TABLE, &[1, 0x1b, 0x03, 0x3b, 0, 0, 0, 0]);
    put(TABLE + 8, &(functions.len() as u32).to_le_bytes());
    for (index, (start, len)) in functions.iter().enumerate() {
        let (entry, record) = (TABLE + 12 + 8 * index, RECORDS + 16 * index);
        let from = |base: usize| (*start as i32).wrapping_sub(base as i32).to_le_bytes();
        put(entry, &from(TABLE));
        put(entry + 4, &((record - TABLE) as u32).to_le_bytes());
        put(record + 8, &from(record + 8));
        put(record + 12, &len.to_le_bytes());
    }
    let (table, len) = (TABLE as u64, 12 + 8 * functions.len() as u64);
    segment(&mut file, elf::PT_LOAD, elf::PF_R, [0, 0, 0, CODE, CODE, 0x1000]);
    segment(&mut file, elf::PT_GNU_EH_FRAME, elf::PF_R, [table, table, table, len, len, 4]);
    file
}
