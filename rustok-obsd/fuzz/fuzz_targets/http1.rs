//! The parser reads the same messages from bytes in one piece and from the same bytes in pieces.
//!
//! The first byte gives the size of the pieces, the second the kind of message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustok_obsd::exchange::Method;
use rustok_obsd::protocol::http1::{
    Body, Buffers, Message, Parser, Piece, Request, Response, Step,
};

#[derive(Debug, PartialEq)]
enum Seen {
    Head(String),
    End,
    Lost,
}

/// Heads and ends; a parser that lost the sequence is not asked further.
fn read<M: Message>(
    bytes: &[u8],
    size: usize,
    name: fn(&Step<'_, M>) -> Option<(String, Body)>,
) -> Vec<Seen> {
    let (mut parser, mut buffers, mut seen) = (Parser::<M>::new(), Buffers::default(), Vec::new());
    for record in bytes.chunks(size.max(1)) {
        let mut piece = Piece::Bytes(record);
        while !piece.is_empty() {
            let before = piece.len();
            let step = parser.next(&mut piece, Method::Get, &mut buffers);
            match &step {
                Step::Head(_) => {
                    let (text, body) = name(&step).expect("a head");
                    seen.push(Seen::Head(text));
                    if matches!(body, Body::Lost(_)) {
                        seen.push(Seen::Lost);
                        return seen;
                    }
                }
                Step::End(_) => seen.push(Seen::End),
                Step::FramingLost(_) | Step::Malformed(_) | Step::Missing => {
                    seen.push(Seen::Lost);
                    return seen;
                }
                Step::Body(content) => assert!(*content <= before),
                Step::Blank | Step::Partial | Step::Skipped => {}
            }
            assert!(piece.len() < before, "a step has to read something");
        }
        parser.end_of_record(&mut buffers);
    }
    seen
}

fn compare<M: Message>(
    bytes: &[u8],
    size: usize,
    name: fn(&Step<'_, M>) -> Option<(String, Body)>,
) {
    let (whole, split) = (read(bytes, usize::MAX, name), read(bytes, size, name));
    // What is malformed is told as soon as it shows, which is earlier or later by how it is split.
    let sound = |seen: &[Seen]| {
        seen.iter()
            .position(|seen| *seen == Seen::Lost)
            .unwrap_or(seen.len())
    };
    let common = sound(&whole).min(sound(&split));
    assert_eq!(whole[..common], split[..common]);
}

fuzz_target!(|data: &[u8]| {
    let [size, kind, bytes @ ..] = data else {
        return;
    };
    if kind % 2 == 0 {
        compare::<Request>(bytes, usize::from(*size), |step| match step {
            Step::Head(head) => Some((format!("{head:?}"), head.body)),
            _ => None,
        });
    } else {
        compare::<Response>(bytes, usize::from(*size), |step| match step {
            Step::Head(head) => Some((format!("{head:?}"), head.body)),
            _ => None,
        });
    }
});
