//! Request and response heads (RFC 9112, 2 to 6).
//!
//! Reads: bytes from the first byte of a message on. Yields: the few fields that pairing and naming need, borrowed, and
//! how the body is framed. Costs: one pass line by line with `memchr`; no copy, no allocation.

use super::{Body, Malformed};
use crate::exchange::{Method, TraceParent};
use crate::protocol::traceparent;
use memchr::{memchr, memrchr};

/// What is needed of a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// Method.
    pub method: Method,
    /// Path up to `?`: `*` for the asterisk form, empty for the authority form.
    pub path: &'a [u8],
    /// Authority of the target where it has one, else the value of `Host`, else empty.
    pub host: &'a [u8],
    /// Minor version.
    pub version: u8,
    /// The client waits for 100 before it sends the body (RFC 9110, 10.1.1).
    pub expects_continue: bool,
    /// The caller's trace context.
    pub traceparent: Option<TraceParent>,
    /// The body's framing.
    pub body: Body,
    /// What is wrong with the framing; the fields above still hold.
    pub malformed: Option<Malformed>,
    /// All field lines, with the empty line behind them where it was captured.
    pub fields: &'a [u8],
}

impl<'a> RequestHead<'a> {
    /// Each field line, in order: a second pass over the head, for those who want a field that pairing and naming do
    /// not. Read a line by [`value`].
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let fields = self.fields;
        let mut position = 0;
        std::iter::from_fn(move || match next_line(fields, position) {
            Line::Field(line, next) => {
                position = next;
                Some(line)
            }
            Line::Last(_) | Line::Cut => None,
        })
    }
}

/// What is needed of a response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// The body's framing.
    pub body: Body,
    /// What is wrong with the framing; the fields above still hold.
    pub malformed: Option<Malformed>,
}

/// Result of reading a head.
#[derive(Debug)]
pub enum Parsed<H> {
    /// The head, and its length.
    Head(H, usize),
    /// It is not all there.
    Partial,
    /// It is none.
    Malformed(Malformed),
}

/// Whether bytes begin a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starts {
    /// As far as can be seen.
    Yes,
    /// Too few bytes.
    Perhaps,
    /// They do not.
    No,
}

/// Whether `bytes` begin with a request line: a token, a space, and the beginning of a target (RFC 9112, 3).
/// Where the line is whole, it has to end with the version.
#[must_use]
pub fn starts_request(bytes: &[u8]) -> Starts {
    const LONGEST_METHOD: usize = 20;
    let window = &bytes[..bytes.len().min(LONGEST_METHOD + 1)];
    let Some(length) = window.iter().position(|&byte| !is_token(byte)) else {
        return if bytes.len() > LONGEST_METHOD { Starts::No } else { Starts::Perhaps };
    };
    if length == 0 || bytes[length] != b' ' {
        return Starts::No;
    }
    let target = &bytes[length + 1..];
    let Some(first) = target.first() else {
        return Starts::Perhaps;
    };
    let scheme = target.len().min(4);
    let plausible = matches!(first, b'/' | b'*')
        || target[..scheme].eq_ignore_ascii_case(&b"http"[..scheme])
        || (&bytes[..length] == b"CONNECT" && (first.is_ascii_alphanumeric() || *first == b'['));
    if !plausible {
        return Starts::No;
    }
    match memchr(b'\n', target) {
        Some(end) => match request_line(without_cr(&bytes[..length + 1 + end])) {
            Some(_) => Starts::Yes,
            None => Starts::No,
        },
        None if *first == b'/' || scheme == 4 || *first == b'*' => Starts::Yes,
        None => Starts::Perhaps,
    }
}

/// Whether it is safe to begin anew with `bytes` where the sequence of messages was lost: a request line, or the
/// beginning of one, also behind line ends. Its method has to be one of RFC 9110 or RFC 5789: after lost bytes `T /`
/// may be what is left of `GET /`.
#[must_use]
pub fn may_resume(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"POST ", b"PUT ", b"DELETE ", b"PATCH ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b"TRACE "];
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = &bytes[blank..];
    !bytes.is_empty()
        && METHODS.iter().any(|method| method.starts_with(bytes) || bytes.starts_with(method))
        && starts_request(bytes) != Starts::No
}

/// Whether `bytes`, as far as they go, begin like a status line of HTTP/1.
#[must_use]
pub fn starts_response(bytes: &[u8]) -> bool {
    const START: &[u8] = b"HTTP/1.";
    let seen = bytes.len().min(START.len());
    seen > 0 && bytes[..seen] == START[..seen]
}

pub(super) fn request(bytes: &[u8], truncated: bool) -> Parsed<RequestHead<'_>> {
    let Some(line_end) = memchr(b'\n', bytes) else {
        return Parsed::Partial;
    };
    let Some((method, target, version)) = request_line(without_cr(&bytes[..line_end])) else {
        return Parsed::Malformed(Malformed::RequestLine);
    };
    let mut fields = Fields::default();
    let Some(length) = fields.read(bytes, line_end + 1, truncated) else {
        return Parsed::Partial;
    };
    let (path, authority) = split_target(method, target);
    let (body, malformed) = if truncated { (Body::Lost(0), None) } else { fields.request_body(version) };
    let head = RequestHead {
        method,
        path,
        host: authority.or(fields.host).unwrap_or_default(),
        version,
        expects_continue: fields.expects_continue,
        traceparent: fields.traceparent,
        body,
        malformed,
        fields: &bytes[line_end + 1..length],
    };
    Parsed::Head(head, length)
}

pub(super) fn response(bytes: &[u8], request: Method, truncated: bool) -> Parsed<ResponseHead> {
    let Some(line_end) = memchr(b'\n', bytes) else {
        return Parsed::Partial;
    };
    let Some((version, status)) = status_line(without_cr(&bytes[..line_end])) else {
        return Parsed::Malformed(Malformed::StatusLine);
    };
    let mut fields = Fields::default();
    let Some(length) = fields.read(bytes, line_end + 1, truncated) else {
        return Parsed::Partial;
    };
    // RFC 9112, 6.3, rules 1 and 2: these have no body whatever their fields say.
    let bodyless = status < 200
        || matches!(status, 204 | 304)
        || request == Method::Head
        || (request == Method::Connect && status < 300);
    let (body, malformed) = if truncated {
        (Body::Lost(0), None)
    } else if bodyless {
        (Body::None, None)
    } else {
        fields.response_body(version)
    };
    Parsed::Head(ResponseHead { status, body, malformed }, length)
}

/// Method, target and minor version of a request line without its line end.
fn request_line(line: &[u8]) -> Option<(Method, &[u8], u8)> {
    let line = line.trim_ascii_end();
    let space = memchr(b' ', line)?;
    let last = memrchr(b' ', line)?;
    let version = minor_version(&line[last + 1..])?;
    let token = &line[..space];
    let target = line.get(space + 1..last)?.trim_ascii();
    if token.is_empty() || target.is_empty() || target.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    let method = method(token)?;
    Some((method, target, version))
}

fn minor_version(version: &[u8]) -> Option<u8> {
    match *version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] => Some(minor - b'0'),
        _ => None,
    }
}

fn method(token: &[u8]) -> Option<Method> {
    Some(match token {
        b"GET" => Method::Get,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"PATCH" => Method::Patch,
        b"HEAD" => Method::Head,
        b"OPTIONS" => Method::Options,
        b"CONNECT" => Method::Connect,
        b"TRACE" => Method::Trace,
        _ if token.iter().all(|&byte| is_token(byte)) => Method::Other,
        _ => return None,
    })
}

/// Minor version and status of a status line without its line end.
fn status_line(line: &[u8]) -> Option<(u8, u16)> {
    let (start, rest) = line.split_first_chunk::<8>()?;
    let version = minor_version(start)?;
    let (&[b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'], rest) = rest.split_first_chunk::<4>()? else {
        return None;
    };
    let status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    matches!(rest.first(), None | Some(b' ')).then_some((version, status))
}

/// Path up to `?`, and the authority of the absolute and the authority form (RFC 9112, 3.2).
fn split_target(method: Method, target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (authority, path) = if target[0] == b'/' || target == b"*" {
        (None, target)
    } else if method == Method::Connect {
        (Some(target), &target[target.len()..])
    } else if let Some(colon) = memchr(b':', target).filter(|colon| target[*colon..].starts_with(b"://")) {
        let rest = &target[colon + 3..];
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let host = &rest[..end];
        let host = memrchr(b'@', host).map_or(host, |at| &host[at + 1..]);
        (Some(host), if rest.get(end) == Some(&b'/') { &rest[end..] } else { &b"/"[..] })
    } else {
        (None, target)
    };
    (memchr(b'?', path).map_or(path, |query| &path[..query]), authority)
}

/// What begins at a position behind the first line.
enum Line<'a> {
    /// A field line, and where the next one begins.
    Field(&'a [u8], usize),
    /// The empty line, and the head's length.
    Last(usize),
    /// A line whose end is missing.
    Cut,
}

#[inline]
fn next_line(bytes: &[u8], position: usize) -> Line<'_> {
    let rest = &bytes[position..];
    let Some(mut end) = memchr(b'\n', rest) else { return Line::Cut };
    if end == 0 || (end == 1 && rest[0] == b'\r') {
        return Line::Last(position + end + 1);
    }
    // A line that begins with white space continues the one before (RFC 9112, 5.2).
    while let Some(b' ' | b'\t') = rest.get(end + 1) {
        let Some(next) = memchr(b'\n', &rest[end + 1..]) else { return Line::Cut };
        end += 1 + next;
    }
    Line::Field(&rest[..end], position + end + 1)
}

/// The fields that matter. A further field is one more arm in [`Fields::line`].
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    length_malformed: bool,
    coded: bool,
    chunked: bool,
    expects_continue: bool,
    traceparent: Option<TraceParent>,
    traceparent_seen: bool,
}

impl<'a> Fields<'a> {
    /// Reads field lines from `position` up to the empty line; returns the head's length. `truncated`: the end is
    /// missing and nothing more comes, so read whole lines and call all of it the head.
    fn read(&mut self, bytes: &'a [u8], mut position: usize, truncated: bool) -> Option<usize> {
        loop {
            match next_line(bytes, position) {
                Line::Field(line, next) => {
                    self.line(line);
                    position = next;
                }
                Line::Last(length) => return Some(length),
                Line::Cut => return truncated.then_some(bytes.len()),
            }
        }
    }

    fn line(&mut self, line: &'a [u8]) {
        // The first letter rules out most fields of a browser's request at the cost of one comparison.
        match line[0] | 0x20 {
            b'h' => {
                if let Some(host) = value(line, b"host") {
                    self.host.get_or_insert(host);
                }
            }
            b'c' => {
                if let Some(list) = value(line, b"content-length") {
                    self.content_length(list);
                }
            }
            b't' => {
                if let Some(list) = value(line, b"transfer-encoding") {
                    let last = memrchr(b',', list).map_or(list, |comma| &list[comma + 1..]);
                    let coding = memchr(b';', last).map_or(last, |parameters| &last[..parameters]);
                    self.coded = true;
                    self.chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
                } else if let Some(text) = value(line, b"traceparent") {
                    // Two of them are none (Trace Context, 3.2: the header is single).
                    self.traceparent = traceparent::parse(text).filter(|_| !self.traceparent_seen);
                    self.traceparent_seen = true;
                }
            }
            b'e' => {
                if let Some(expected) = value(line, b"expect") {
                    self.expects_continue |= expected.eq_ignore_ascii_case(b"100-continue");
                }
            }
            _ => {}
        }
    }

    /// Repeated equal lengths count as one (RFC 9112, 6.3, rule 5).
    fn content_length(&mut self, list: &[u8]) {
        for item in list.split(|&byte| byte == b',') {
            let digits = item.trim_ascii();
            let number = (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
                .then(|| std::str::from_utf8(digits).ok()?.parse::<u64>().ok())
                .flatten();
            match (number, self.length) {
                (Some(number), None) => self.length = Some(number),
                (Some(number), Some(known)) if number == known => {}
                _ => self.length_malformed = true,
            }
        }
    }

    fn request_body(&self, version: u8) -> (Body, Option<Malformed>) {
        match (self.coded, self.length) {
            (true, _) if !self.chunked || version == 0 => (Body::Lost(0), Some(Malformed::TransferEncoding)),
            (true, _) => (Body::CHUNKED, None),
            _ if self.length_malformed => (Body::Lost(0), Some(Malformed::ContentLength)),
            (false, None | Some(0)) => (Body::None, None),
            (false, Some(length)) => (Body::Length(length), None),
        }
    }

    fn response_body(&self, version: u8) -> (Body, Option<Malformed>) {
        match (self.coded, self.length) {
            (true, _) if !self.chunked || version == 0 => (Body::UntilClose, None),
            (true, _) => (Body::CHUNKED, None),
            _ if self.length_malformed => (Body::Lost(0), Some(Malformed::ContentLength)),
            (false, None) => (Body::UntilClose, None),
            (false, Some(0)) => (Body::None, None),
            (false, Some(length)) => (Body::Length(length), None),
        }
    }
}

/// The value, without white space around it, where the field line has that name, in any case.
#[must_use]
pub fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let (b':', rest) = rest.split_first().map(|(colon, rest)| (*colon, rest))? else {
        return None;
    };
    start.eq_ignore_ascii_case(name).then(|| rest.trim_ascii())
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// `tchar` of RFC 9110, 5.6.2.
const fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0_u8;
        while byte < 128 {
            table[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"!#$%&'*+-.^_`|~";
        let mut index = 0;
        while index < others.len() {
            table[others[index] as usize] = true;
            index += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
