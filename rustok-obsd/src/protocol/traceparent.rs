//! The `traceparent` header of W3C Trace Context, <https://www.w3.org/TR/trace-context/#traceparent-header>.
//!
//! Reads: the header's value. Yields: a [`TraceParent`] or nothing: a value that breaks the grammar starts a new trace.
//! Costs: one pass over 55 bytes.

use crate::exchange::TraceParent;

/// Parses a header value, surrounding white space removed.
///
/// Version 00 is 55 bytes long; a later version may go on after another `-`; ff is forbidden, as are upper-case
/// digits and ids that are all zero.
#[must_use]
pub fn parse(value: &[u8]) -> Option<TraceParent> {
    let (head, rest) = value.split_first_chunk::<55>()?;
    let version = byte(head[0], head[1])?;
    if version == 0xff || head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
        return None;
    }
    if !rest.is_empty() && (version == 0 || rest[0] != b'-') {
        return None;
    }
    let mut trace_id = [0; 16];
    hex(&head[3..35], &mut trace_id)?;
    let mut parent_id = [0; 8];
    hex(&head[36..52], &mut parent_id)?;
    let flags = byte(head[53], head[54])?;
    (trace_id != [0; 16] && parent_id != [0; 8]).then_some(TraceParent { trace_id, parent_id, flags })
}

fn hex(text: &[u8], out: &mut [u8]) -> Option<()> {
    for (out, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *out = byte(pair[0], pair[1])?;
    }
    Some(())
}

fn byte(high: u8, low: u8) -> Option<u8> {
    Some(digit(high)? << 4 | digit(low)?)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_value_gives_its_ids_and_flags() {
        let parsed = parse(VALID.as_bytes()).expect("valid");
        assert_eq!(parsed.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(parsed.trace_id[15], 0x9c);
        assert_eq!(parsed.parent_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert_eq!(parsed.flags, 1);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        assert!(parse(VALID.replacen("00", "01", 1).as_bytes()).is_some());
        assert!(parse(format!("{}-what-comes", VALID.replacen("00", "cc", 1)).as_bytes()).is_some());
        assert!(parse(format!("{}.what-comes", VALID.replacen("00", "cc", 1)).as_bytes()).is_none());
        assert!(parse(VALID.replacen("00", "ff", 1).as_bytes()).is_none());
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for bad in [
            "",
            "00",
            &VALID[..54],
            &format!("{VALID}-"),
            &format!("{VALID}0"),
            &VALID.to_uppercase(),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331.01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
