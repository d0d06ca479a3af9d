//! Unpacks node_exporter's `ttar` archives: a tree of files as one readable text.
//!
//! Reads: blocks between lines `# ttar - -`: `Directory: P`, or `Path: P` with `SymlinkTo: T` or `Lines: N` and N lines; then
//! `Mode: M`. `NULLBYTE` is a zero byte, a last line that ends in `EOF` has no line feed, a backslash escapes either. Yields: the tree. Costs: a
//! second.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// Unpacks the archive `text` into the folder `into`.
///
/// # Errors
/// A file cannot be written, or the archive has another form.
pub fn unpack(text: &str, into: &Path) -> io::Result<()> {
    let mut lines = text.lines();
    let mut modes = Vec::new();
    let mut path = None;
    while let Some(line) = lines.next() {
        let Some((key, value)) = line.split_once(": ") else { continue };
        match key {
            _ if line.starts_with('#') => {}
            "Directory" => {
                let folder = into.join(value);
                fs::create_dir_all(&folder)?;
                path = Some(folder);
            }
            "Path" => {
                let file = into.join(value);
                file.parent().map_or(Ok(()), fs::create_dir_all)?;
                path = Some(file);
            }
            "SymlinkTo" => symlink(value, path.take().ok_or(io::ErrorKind::InvalidData)?)?,
            "Lines" => {
                let count: usize = value.parse().map_err(|_| io::ErrorKind::InvalidData)?;
                let mut content = String::new();
                for _ in 0..count {
                    content += lines.next().ok_or(io::ErrorKind::UnexpectedEof)?;
                    content.push('\n');
                }
                let file = path.as_ref().ok_or(io::ErrorKind::InvalidData)?;
                fs::write(file, decode(&content))?;
            }
            "Mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| io::ErrorKind::InvalidData)?;
                modes.extend(path.take().map(|path| (path, mode)));
            }
            _ => {}
        }
    }
    // Last, for a folder may be read-only.
    for (path, mode) in modes.into_iter().rev() {
        if !path.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

fn decode(content: &str) -> Vec<u8> {
    let content = match content.strip_suffix("EOF\n") {
        Some(rest) if !rest.ends_with('\\') => rest,
        _ => content,
    };
    let zeroed = content.replace("\\NULLBYTE", "\u{1}").replace("NULLBYTE", "\0").replace('\u{1}', "NULLBYTE");
    zeroed.replace("\\EOF", "EOF").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_comes_out_as_it_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let text = "# Archive created by ttar\nDirectory: a\nMode: 755\n# ttar - - - - - -\nPath: a/b\nLines: 2\none\ntwoEOF\nMode: 644\n\
                    # ttar - - -\nPath: a/c\nLines: 1\nNULLBYTE\\NULLBYTE: x\nMode: 400\n# ttar\nPath: a/link\nSymlinkTo: b\n";
        unpack(text, folder.path()).unwrap();
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert_eq!(read("a/link"), b"one\ntwo");
        assert_eq!(read("a/c"), b"\0NULLBYTE: x\n");
    }
}
