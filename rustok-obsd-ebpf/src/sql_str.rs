//! The statement that sqlx takes, in each form that it has.
//!
//! sqlx up to 0.8 passes a `&str`: address and length. sqlx 0.9 passes `SqlStr` by pointer, three words: an enum over
//! `&'static str`, `String`, `Box<str>`, `Arc<str>` and `Arc<String>` (sqlx-core/src/sql_str.rs). rustc tells these apart
//! by the one word that a `String` has to spare: a capacity is never above `isize::MAX`, so that a word with the top bit
//! set is the number of another variant. Relied on: that this word is the first one, and that the variants are numbered in the
//! order of their declaration. Checked at each use: an address is larger than any length, reference counts are small and
//! not 0; an unknown number is not read. What does not agree is a statement without text, counted, and never another text:
//! the daemon takes nothing for a statement that does not begin like one.

use aya_ebpf::{helpers::bpf_probe_read_user, programs::ProbeContext};
use rustok_obsd_ebpf::{Counter, IO_UNREADABLE, Point};

use crate::{
    call::{head, tell_text},
    maps::count,
    task::Current,
};

/// The top bit of a word.
const NICHE: u64 = 1 << 63;
/// In the order of their declaration, which is that of their numbers. `Owned` is the one without a number.
const STATIC: u64 = NICHE;
const BOXED: u64 = NICHE + 2;
const ARCED: u64 = NICHE + 3;
const ARC_STRING: u64 = NICHE + 4;
/// More references than this to one text are none.
const MOST_REFERENCES: u64 = 1 << 32;
/// An argument above this is no length.
const MOST_LENGTH: u64 = 1 << 32;

/// Where the text is.
struct Text {
    address: u64,
    len: u64,
    /// Two neighbouring words of the `SqlStr`, by which the driver's account of the statement is known again.
    pair: [u64; 2],
}

/// The driver takes a statement.
#[inline(always)]
pub fn on_query(ctx: &ProbeContext, first: Option<u64>, second: Option<u64>) {
    let (Some(first), Some(second)) = (first, second) else { return };
    let Some(current) = Current::at(ctx) else { return };
    let mut head = head(Point::Query, ctx, &current);
    // The second argument is a length, or the address of the settings.
    if second < MOST_LENGTH {
        return tell_text(&mut head, first, second);
    }
    let Some(text) = read(first) else {
        head.flags |= IO_UNREADABLE;
        count(Counter::Unreadable, 1);
        crate::maps::submit(head.as_bytes());
        return;
    };
    head.words[0] = text.pair[0];
    head.words[1] = text.pair[1];
    tell_text(&mut head, text.address, text.len);
}

#[inline(always)]
fn words<const N: usize>(address: u64) -> Option<[u64; N]> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_user(address as *const [u64; N]) }.ok()
}

/// Address and length, in whichever order.
#[inline(always)]
const fn slice(a: u64, b: u64) -> (u64, u64) {
    if a > b { (a, b) } else { (b, a) }
}

/// Address and length of a `String`: the capacity is at least the length.
#[inline(always)]
const fn string(a: u64, b: u64, c: u64) -> (u64, u64) {
    let (high, low) = slice(a, b);
    let (address, other) = slice(high, c);
    let (_, len) = slice(low, other);
    (address, len)
}

#[inline(always)]
const fn is_count(word: u64) -> bool {
    word != 0 && word < MOST_REFERENCES
}

#[inline(always)]
fn read(address: u64) -> Option<Text> {
    let [a, b, c] = words::<3>(address)?;
    let text = match a {
        STATIC | BOXED => {
            let (address, len) = slice(b, c);
            Text { address, len, pair: [b, c] }
        }
        ARCED => {
            let (inner, len) = slice(b, c);
            let [strong, weak] = words::<2>(inner)?;
            if !is_count(strong) || !is_count(weak) {
                return None;
            }
            // `ArcInner<str>`: two counts, then the text.
            Text { address: inner.wrapping_add(16), len, pair: [b, c] }
        }
        ARC_STRING => {
            // The word behind the address is not initialised.
            let [strong, weak, x, y, z] = words::<5>(b)?;
            if !is_count(strong) || !is_count(weak) {
                return None;
            }
            let (address, len) = string(x, y, z);
            Text { address, len, pair: [a, b] }
        }
        _ if a >= NICHE => return None,
        _ => {
            let (address, len) = string(a, b, c);
            Text { address, len, pair: [b, c] }
        }
    };
    if text.len < MOST_LENGTH && text.address != 0 { Some(text) } else { None }
}
