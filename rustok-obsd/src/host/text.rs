//! Words and numbers of the kernel's text files, without copies.
//!
//! Reads: bytes. Yields: slices and numbers. Costs: one pass; no allocation.

/// The lines of a text.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(line)
    })
}

/// The words of a line: what stands between blanks and tabs.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty())
}

/// A decimal number that fills the word.
#[must_use]
pub fn u64(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { sum.checked_mul(10)?.checked_add(digit.into()) }
    })
}

/// A decimal number with a sign.
#[must_use]
pub fn i64(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// A hexadecimal number, with or without `0x`.
#[must_use]
pub fn hex(word: &[u8]) -> Option<u64> {
    let word = word.strip_prefix(b"0x").unwrap_or(word);
    u64::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()
}

/// A number with a fraction.
#[must_use]
pub fn f64(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Text as it is, or nothing where it is no UTF-8.
#[must_use]
pub fn utf8(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

/// The lines `name: value…` and `name value…`: the name without its colon, and the rest.
pub fn fields(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(text).filter_map(|line| {
        let line = line.trim_ascii();
        let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t' | b':'))?;
        let rest = line[end..].trim_ascii_start();
        Some((&line[..end], rest.strip_prefix(b":").unwrap_or(rest).trim_ascii_start()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_apart() {
        assert_eq!(lines(b"a b\n\nc").collect::<Vec<_>>(), [b"a b".as_slice(), b"", b"c"]);
        assert_eq!(lines(b"a\n").count(), 1);
        assert_eq!(words(b" a\t bc  ").collect::<Vec<_>>(), [b"a".as_slice(), b"bc"]);
        assert_eq!(
            fields(b"Cached:  12 kB\npgfault 7\nlone\n").collect::<Vec<_>>(),
            [(b"Cached".as_slice(), b"12 kB".as_slice()), (b"pgfault", b"7")]
        );
    }

    #[test]
    fn numbers_are_read_or_refused() {
        assert_eq!(u64(b"18446744073709551615"), Some(u64::MAX));
        for bad in [b"".as_slice(), b"18446744073709551616", b"-1", b"1x", b" 1"] {
            assert_eq!(u64(bad), None);
        }
        assert_eq!((i64(b"-7"), hex(b"0xff"), hex(b"1F"), f64(b"0.25")), (Some(-7), Some(255), Some(31), Some(0.25)));
    }
}
