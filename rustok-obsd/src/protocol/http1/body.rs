//! Where a body ends (RFC 9112, 6 and 7).
//!
//! Reads: pieces of the body. Yields: how much of them belongs to it, how much of that is content, and whether it
//! ended. Costs: constant memory; a pass over chunk framing only.

use super::Piece;

/// What is left of a message's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// That many bytes.
    Length(u64),
    /// Chunks (RFC 9112, 7.1).
    Chunked(Chunk),
    /// Everything until the connection closes.
    UntilClose,
    /// Unknown: framing bytes were not captured. Holds the last bytes seen, so that the last chunk is recognised
    /// where it ends a record.
    Lost(u64),
}

/// Place within chunked framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// In the size; its digits so far.
    Size(u64, u8),
    /// Behind the size, up to the line's end.
    Extension(u64),
    /// In the data; bytes left.
    Data(u64),
    /// Behind the data, before its line end.
    AfterData,
    /// Behind the data and a CR.
    AfterDataCr,
    /// At the start of a trailer line.
    Trailer,
    /// At the start of a trailer line, behind a CR.
    TrailerCr,
    /// In a trailer line.
    TrailerLine,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The body goes on.
    More,
    /// The body ended.
    End,
    /// The framing fell into a gap.
    Lost,
    /// The framing is wrong.
    Malformed,
}

/// `\r\n0\r\n\r\n`: the last chunk of a body without trailers, behind the line end of the chunk before it.
const LAST_CHUNK: u64 = u64::from_be_bytes(*b"\0\r\n0\r\n\r\n");

impl Body {
    /// A chunked body's beginning.
    pub(super) const CHUNKED: Self = Self::Chunked(Chunk::Size(0, 0));

    /// Reads as much of the piece as belongs to the body; returns the content bytes among it.
    pub(super) fn read(&mut self, piece: &mut Piece<'_>) -> (u64, Progress) {
        match self {
            Self::None => (0, Progress::End),
            Self::Length(left) => {
                let taken = (*left).min(piece.len());
                piece.skip(taken);
                *left -= taken;
                (taken, if *left == 0 { Progress::End } else { Progress::More })
            }
            Self::Chunked(chunk) => match piece {
                Piece::Bytes(bytes) => chunk.read(bytes),
                Piece::Gap(gap) => chunk.skip(gap),
            },
            Self::UntilClose => (piece.take_all(), Progress::More),
            Self::Lost(last) => {
                match piece {
                    Piece::Bytes(bytes) => {
                        let recent = &bytes[bytes.len().saturating_sub(8)..];
                        *last = recent.iter().fold(*last, |last, byte| last << 8 | u64::from(*byte));
                    }
                    Piece::Gap(_) => *last = 0,
                }
                (piece.take_all(), Progress::More)
            }
        }
    }

    /// Whether so many bytes that nobody saw lie certainly inside this body.
    pub(super) const fn absorbs(&self, lost: u64) -> bool {
        match self {
            Self::Length(left) => lost <= *left,
            Self::Chunked(Chunk::Data(left)) => lost <= left.saturating_add(2),
            Self::UntilClose => true,
            Self::None | Self::Chunked(_) | Self::Lost(_) => false,
        }
    }

    /// Whether the framing is lost, but the bytes seen last are those that end a chunked body.
    pub(super) const fn ends_with_last_chunk(&self) -> bool {
        matches!(self, Self::Lost(last) if *last & 0x00ff_ffff_ffff_ffff == LAST_CHUNK)
    }
}

impl Chunk {
    fn read(&mut self, bytes: &mut &[u8]) -> (u64, Progress) {
        let mut content = 0;
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Self::Data(left) = self {
                let taken = (*left).min(bytes.len() as u64);
                #[expect(clippy::cast_possible_truncation, reason = "at most the slice's length")]
                let behind = &bytes[taken as usize..];
                *bytes = behind;
                content += taken;
                *left -= taken;
                if *left == 0 {
                    *self = Self::AfterData;
                }
                continue;
            }
            *bytes = rest;
            *self = match (*self, byte) {
                (Self::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if size >> 60 == 0 => {
                    let digit = (byte as char).to_digit(16).unwrap_or(0);
                    Self::Size(size << 4 | u64::from(digit), digits.saturating_add(1))
                }
                (Self::Size(size, 1..) | Self::Extension(size), b'\n') => {
                    if size == 0 {
                        Self::Trailer
                    } else {
                        Self::Data(size)
                    }
                }
                (Self::Size(size, 1..), b';' | b'\r' | b' ' | b'\t') | (Self::Extension(size), _) => {
                    Self::Extension(size)
                }
                (Self::AfterData, b'\r') => Self::AfterDataCr,
                (Self::AfterData | Self::AfterDataCr, b'\n') => Self::Size(0, 0),
                (Self::Trailer | Self::TrailerCr, b'\n') => return (content, Progress::End),
                (Self::Trailer, b'\r') => Self::TrailerCr,
                (Self::TrailerLine, b'\n') => Self::Trailer,
                (Self::Trailer | Self::TrailerCr | Self::TrailerLine, _) => Self::TrailerLine,
                _ => return (content, Progress::Malformed),
            };
        }
        (content, Progress::More)
    }

    /// A gap is harmless where it lies in data whose size is known, up to its line end.
    fn skip(&mut self, gap: &mut u64) -> (u64, Progress) {
        let length = std::mem::take(gap);
        let (data, line_end) = match *self {
            Self::Data(left) => (left.min(length), 0),
            Self::AfterData => (0, 0),
            Self::AfterDataCr => (0, 1),
            _ => return (length, Progress::Lost),
        };
        *self = match (*self, length - data + line_end) {
            (Self::Data(left), 0) if data < left => Self::Data(left - data),
            (_, 0) => Self::AfterData,
            (_, 1) => Self::AfterDataCr,
            (_, 2) => Self::Size(0, 0),
            _ => return (length, Progress::Lost),
        };
        (data, Progress::More)
    }
}

impl Piece<'_> {
    fn skip(&mut self, count: u64) {
        match self {
            Self::Bytes(bytes) => {
                *bytes = &bytes[usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len())..];
            }
            Self::Gap(length) => *length -= count.min(*length),
        }
    }

    fn take_all(&mut self) -> u64 {
        let length = self.len();
        self.skip(length);
        length
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, Chunk, Progress};
    use crate::protocol::http1::Piece;

    fn chunked(bytes: &[u8]) -> (u64, Progress, usize) {
        let mut body = Body::CHUNKED;
        let mut piece = Piece::Bytes(bytes);
        let (content, progress) = body.read(&mut piece);
        (content, progress, usize::try_from(piece.len()).expect("small"))
    }

    #[test]
    fn chunked_bodies_of_rfc_9112_end_where_they_should() {
        for (text, content) in [
            ("0\r\n\r\n", 0),
            ("4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n", 9),
            ("4;ext=1\r\nWiki\r\n0;last\r\n\r\n", 4),
            ("4;q=\"a;b\"\r\nWiki\r\n000\r\n\r\n", 4),
            ("0000000004\r\nWiki\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", 4),
            ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", 20),
            ("4\nWiki\n0\n\n", 4),
            ("4 \r\n\r\n\r\n\r\n0\r\n\r\n", 4),
        ] {
            let whole = format!("{text}GET");
            assert_eq!(chunked(whole.as_bytes()), (content, Progress::End, 3), "{text:?}");
        }
    }

    #[test]
    fn wrong_chunk_framing_is_told() {
        for text in ["\r\n", "x\r\n", ";\r\n", "-1\r\n", "4\r\nWikiX", "4\r\nWiki\rX", "11112222333344445\r\n"] {
            assert_eq!(chunked(text.as_bytes()).1, Progress::Malformed, "{text:?}");
        }
    }

    #[test]
    fn a_gap_inside_a_chunk_keeps_the_framing_and_one_past_it_loses_it() {
        for (gap, want, state) in [
            (0, Progress::More, Chunk::Data(16)),
            (15, Progress::More, Chunk::Data(1)),
            (16, Progress::More, Chunk::AfterData),
            (17, Progress::More, Chunk::AfterDataCr),
            (18, Progress::More, Chunk::Size(0, 0)),
            (19, Progress::Lost, Chunk::Data(16)),
        ] {
            let mut body = Body::CHUNKED;
            body.read(&mut Piece::Bytes(b"10\r\n"));
            assert_eq!(body.read(&mut Piece::Gap(gap)).1, want, "{gap}");
            assert_eq!(body, Body::Chunked(state), "{gap}");
            assert_eq!(Body::Chunked(Chunk::Data(16)).absorbs(gap), want == Progress::More, "{gap}");
        }
    }

    #[test]
    fn the_last_chunk_is_recognised_after_lost_framing_however_it_is_split() {
        let end = b"data\r\n0\r\n\r\n";
        for cut in 0..end.len() {
            let mut body = Body::Lost(0);
            body.read(&mut Piece::Gap(100));
            body.read(&mut Piece::Bytes(&end[..cut]));
            assert!(!body.ends_with_last_chunk());
            body.read(&mut Piece::Bytes(&end[cut..]));
            assert!(body.ends_with_last_chunk(), "{cut}");
        }
        let mut body = Body::Lost(0);
        body.read(&mut Piece::Bytes(b"x0\r\n\r\n"));
        assert!(!body.ends_with_last_chunk());
    }
}
