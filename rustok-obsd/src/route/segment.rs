//! What a segment of a path is by its form.
//!
//! Reads: one segment that is no word of APIs. Yields: the kind of value that it is, or that its form does not say. Costs:
//! one or two passes over the segment.

/// Kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Id,
    Uuid,
    Hash,
    Locale,
    Date,
    Email,
    File,
    Slug,
    /// Of which nothing is known.
    Param,
}

impl Kind {
    pub(super) const fn template(self) -> &'static str {
        match self {
            Self::Id => "{id}",
            Self::Uuid => "{uuid}",
            Self::Hash => "{hash}",
            Self::Locale => "{locale}",
            Self::Date => "{date}",
            Self::Email => "{email}",
            Self::File => "{file}",
            Self::Slug => "{slug}",
            Self::Param => "{param}",
        }
    }
}

/// The longest segment that can be a word.
const LONGEST_WORD: usize = 40;

/// ISO 639-1 codes, without those that are common words of paths (`id`, `my`, `me`, `am`, `as`, `is`, `no`, `or`,
/// `so`, `to`, `io`, `tv`).
const LANGUAGES: &[u8] = b"af ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fo fr ga gl he hi hr hu hy it \
ja ka kk kn ko ky lt lv mk ml mn mr ms mt nb ne nl nn pa pl pt ro ru sk sl sq sr sv sw ta te th tk tr tt uk ur uz vi zh ";

/// The kind of value that a segment is, `None` where it has the form of a word: it may be a name all the same. `first`: it is the path's first segment.
pub(super) fn classify(segment: &[u8], first: bool) -> Option<Kind> {
    let length = segment.len();
    if segment.iter().all(u8::is_ascii_digit) {
        return Some(Kind::Id);
    }
    if is_uuid(segment) {
        return Some(Kind::Uuid);
    }
    if is_locale(segment, first) {
        return Some(Kind::Locale);
    }
    if is_date(segment) {
        return Some(Kind::Date);
    }
    if segment.iter().any(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~'))) {
        let at = segment.iter().position(|&byte| byte == b'@').filter(|&at| at > 0 && segment[at..].contains(&b'.'));
        return Some(if at.is_some() { Kind::Email } else { Kind::Param });
    }
    if let Some(dot) = segment.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0) {
        return Some(classify_file(&segment[dot + 1..]));
    }
    let digits = segment.iter().filter(|byte| byte.is_ascii_digit()).count();
    if length >= 16 && digits > 0 && segment.iter().all(u8::is_ascii_hexdigit) {
        return Some(Kind::Hash);
    }
    let upper = segment.iter().any(u8::is_ascii_uppercase);
    let lower = segment.iter().any(u8::is_ascii_lowercase);
    let separators = segment.iter().filter(|byte| matches!(byte, b'-' | b'_')).count();
    if length >= 20 && digits > 0 && upper && lower {
        return Some(Kind::Hash);
    }
    if digits > 0 {
        // ULIDs, order numbers, short hashes; with several separators more likely a title.
        return Some(if separators >= 2 { Kind::Slug } else { Kind::Id });
    }
    if separators >= 3 || (length > LONGEST_WORD && separators > 0) {
        return Some(Kind::Slug);
    }
    (length > LONGEST_WORD).then_some(Kind::Param)
}

/// Well-known files (`robots.txt`) are words; any other file's name is its owner's business.
fn classify_file(extension: &[u8]) -> Kind {
    let extends = (1..=8).contains(&extension.len()) && extension.iter().all(u8::is_ascii_alphanumeric);
    if extends { Kind::File } else { Kind::Param }
}

fn is_uuid(segment: &[u8]) -> bool {
    segment.len() == 36
        && segment.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `en` as a first segment, `en-US` and `en_US` everywhere.
fn is_locale(segment: &[u8], first: bool) -> bool {
    let (language, region) = segment.split_at(segment.len().min(2));
    let known = || LANGUAGES.chunks_exact(3).any(|code| code[..2] == *language);
    match region {
        [] => first && language.len() == 2 && known(),
        [b'-' | b'_', a, b] => a.is_ascii_uppercase() && b.is_ascii_uppercase() && known(),
        _ => false,
    }
}

/// `2026-11-23`, also with a time behind it.
fn is_date(segment: &[u8]) -> bool {
    segment.split_at_checked(10).is_some_and(|(date, time)| {
        date.iter().enumerate().all(|(index, byte)| match index {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        }) && matches!(time, [] | [b'T' | b't', ..])
    })
}

#[cfg(test)]
mod tests {
    use super::{Kind, classify};

    #[test]
    fn segments_are_told_apart() {
        for (segment, kind) in [
            ("api", None),
            ("change-password", None),
            ("logout_all", None),
            ("alice7", Some(Kind::Id)),
            ("alice-7", Some(Kind::Id)),
            ("alice.json", Some(Kind::File)),
            ("a.b.c-d", Some(Kind::Param)),
            (".well-known", None),
            ("_health", None),
            ("me", None),
            ("GraphQL", None),
            ("0", Some(Kind::Id)),
            ("184467440737095516150", Some(Kind::Id)),
            ("ORD-20418", Some(Kind::Id)),
            ("a1b2c3d", Some(Kind::Id)),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", Some(Kind::Id)),
            ("550e8400-e29b-41d4-a716-446655440000", Some(Kind::Uuid)),
            ("550E8400-E29B-41D4-A716-446655440000", Some(Kind::Uuid)),
            ("d41d8cd98f00b204e9800998ecf8427e", Some(Kind::Hash)),
            ("dQw4w9WgXcQdQw4w9WgXcQ", Some(Kind::Hash)),
            ("en-US", Some(Kind::Locale)),
            ("pt_BR", Some(Kind::Locale)),
            ("2026-11-23", Some(Kind::Date)),
            ("2026-11-23T10-00-00Z", Some(Kind::Date)),
            ("a.b@example.org", Some(Kind::Email)),
            ("app.3f2a9c1b.js", Some(Kind::File)),
            ("logo.PNG", Some(Kind::File)),
            ("550e8400-e29b-41d4-a716-446655440000.json", Some(Kind::File)),
            ("a-post-about-cats", Some(Kind::Slug)),
            ("10-things-to-know", Some(Kind::Slug)),
            ("caf%C3%A9", Some(Kind::Param)),
            ("{id}", Some(Kind::Param)),
            ("a,b;c=d", Some(Kind::Param)),
            ("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", Some(Kind::Param)),
        ] {
            assert_eq!(classify(segment.as_bytes(), false), kind, "{segment}");
        }
        for (segment, kind) in [("en", Some(Kind::Locale)), ("ru", Some(Kind::Locale)), ("me", None), ("fn", None)] {
            assert_eq!(classify(segment.as_bytes(), true), kind, "{segment}");
        }
        assert_eq!(classify(b"en", false), None);
        assert_eq!(classify(b"\xff\xfe", false), Some(Kind::Param));
    }
}
