use super::{Parsed, RequestHead, ResponseHead, Starts, request, response, starts_request};
use crate::exchange::Method;
use crate::protocol::http1::{Body, Malformed};

fn head(text: &str) -> RequestHead<'_> {
    match request(text.as_bytes(), false) {
        Parsed::Head(head, length) => {
            assert_eq!(length, text.len(), "{text:?}");
            head
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

fn answer(text: &str, method: Method) -> ResponseHead {
    match response(text.as_bytes(), method, false) {
        Parsed::Head(head, length) => {
            assert_eq!(length, text.len(), "{text:?}");
            head
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn every_form_of_target_gives_path_and_host() {
    for (line, method, path, host) in [
        ("GET / HTTP/1.1", Method::Get, "/", "a.example"),
        ("GET /where?q=now HTTP/1.1", Method::Get, "/where", "a.example"),
        ("GET http://www.example.org/pub/WWW/?x=/ HTTP/1.1", Method::Get, "/pub/WWW/", "www.example.org"),
        ("GET http://user:pw@www.example.org:8080 HTTP/1.1", Method::Get, "/", "www.example.org:8080"),
        ("GET https://www.example.org?q HTTP/1.1", Method::Get, "/", "www.example.org"),
        ("CONNECT www.example.com:80 HTTP/1.1", Method::Connect, "", "www.example.com:80"),
        ("CONNECT [::1]:443 HTTP/1.1", Method::Connect, "", "[::1]:443"),
        ("OPTIONS * HTTP/1.1", Method::Options, "*", "a.example"),
        ("PROPFIND /dav HTTP/1.1", Method::Other, "/dav", "a.example"),
        ("get / HTTP/1.0", Method::Other, "/", "a.example"),
        ("PATCH /%2e%2E/\u{e9} HTTP/1.1", Method::Patch, "/%2e%2E/\u{e9}", "a.example"),
        ("TRACE //double//slash HTTP/1.1", Method::Trace, "//double//slash", "a.example"),
        ("GET  /spaces   HTTP/1.1 ", Method::Get, "/spaces", "a.example"),
    ] {
        for end in ["\r\n", "\n"] {
            let text = format!("{line}{end}User-Agent: x{end}HOST:\t a.example {end}{end}");
            let head = head(&text);
            assert_eq!(head.method, method, "{line}");
            assert_eq!(head.path, path.as_bytes(), "{line}");
            assert_eq!(head.host, host.as_bytes(), "{line}");
            assert_eq!(head.body, Body::None, "{line}");
            assert_eq!(u8::from(!line.contains("/1.0")), head.version);
        }
    }
}

#[test]
fn lines_that_are_no_request_line_are_malformed() {
    for line in [
        "GET",
        "GET /",
        "GET / HTTP/2.0",
        "GET / http/1.1",
        "GET / HTTP/1.",
        "GET / HTTP/1.10",
        "GET /a b HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET HTTP/1.1",
        " GET / HTTP/1.1",
        "G(T / HTTP/1.1",
        "\u{0}\u{1} / HTTP/1.1",
        "",
    ] {
        let text = format!("{line}\r\n\r\n");
        assert!(matches!(request(text.as_bytes(), false), Parsed::Malformed(Malformed::RequestLine)), "{line:?}");
    }
}

#[test]
fn a_requests_body_is_framed_as_rfc_9112_section_6_says() {
    let ok = [
        ("HTTP/1.1", "", Body::None),
        ("HTTP/1.1", "Content-Length: 0", Body::None),
        ("HTTP/1.1", "content-length:42", Body::Length(42)),
        ("HTTP/1.0", "CONTENT-LENGTH: \t42 ", Body::Length(42)),
        ("HTTP/1.1", "Content-Length: 7\r\nContent-Length: 7", Body::Length(7)),
        ("HTTP/1.1", "Content-Length: 7, 7", Body::Length(7)),
        ("HTTP/1.1", "Content-Length:\r\n 7", Body::Length(7)),
        ("HTTP/1.1", "Content-Length: 18446744073709551615", Body::Length(u64::MAX)),
        ("HTTP/1.1", "Content-Length : 7", Body::None),
        ("HTTP/1.1", "X-Content-Length: 7", Body::None),
        ("HTTP/1.1", "X: folded\r\n Content-Length: 7", Body::None),
        ("HTTP/1.1", "Transfer-Encoding: chunked", Body::CHUNKED),
        ("HTTP/1.1", "Transfer-Encoding: gzip, Chunked", Body::CHUNKED),
        ("HTTP/1.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", Body::CHUNKED),
        ("HTTP/1.1", "Transfer-Encoding: gzip,\r\n\tchunked", Body::CHUNKED),
        ("HTTP/1.1", "Transfer-Encoding: chunked\r\nContent-Length: 7", Body::CHUNKED),
        ("HTTP/1.1", "Content-Length: 7\r\nTransfer-Encoding: chunked", Body::CHUNKED),
    ];
    for (version, fields, body) in ok {
        let text =
            format!("POST / {version}\r\nHost: a\r\n{fields}{}\r\n", if fields.is_empty() { "" } else { "\r\n" });
        assert_eq!(head(&text).body, body, "{fields:?}");
        assert_eq!(head(&text).malformed, None, "{fields:?}");
    }
    let bad = [
        ("HTTP/1.1", "Content-Length: 7\r\nContent-Length: 8", Malformed::ContentLength),
        ("HTTP/1.1", "Content-Length: 7, 8", Malformed::ContentLength),
        ("HTTP/1.1", "Content-Length: 7,", Malformed::ContentLength),
        ("HTTP/1.1", "Content-Length: +7", Malformed::ContentLength),
        ("HTTP/1.1", "Content-Length: -7", Malformed::ContentLength),
        ("HTTP/1.1", "Content-Length: 0x7", Malformed::ContentLength),
        ("HTTP/1.1", "Content-Length:", Malformed::ContentLength),
        ("HTTP/1.1", "Content-Length: 18446744073709551616", Malformed::ContentLength),
        ("HTTP/1.1", "Transfer-Encoding: gzip", Malformed::TransferEncoding),
        ("HTTP/1.1", "Transfer-Encoding: chunked, gzip", Malformed::TransferEncoding),
        ("HTTP/1.1", "Transfer-Encoding: xchunked", Malformed::TransferEncoding),
        ("HTTP/1.0", "Transfer-Encoding: chunked", Malformed::TransferEncoding),
    ];
    for (version, fields, reason) in bad {
        let text = format!("POST / {version}\r\n{fields}\r\n\r\n");
        assert_eq!(head(&text).malformed, Some(reason), "{fields:?}");
        assert_eq!(head(&text).body, Body::Lost(0), "{fields:?}");
    }
}

#[test]
fn a_responses_body_is_framed_as_rfc_9112_section_6_says() {
    for (method, line, fields, status, body) in [
        (Method::Get, "HTTP/1.1 200 OK", "Content-Length: 5", 200, Body::Length(5)),
        (Method::Get, "HTTP/1.1 200", "Content-Length: 5", 200, Body::Length(5)),
        (Method::Get, "HTTP/1.1 200 ", "Content-Length: 0", 200, Body::None),
        (Method::Get, "HTTP/1.1 404 Not \u{a0} Found", "X: y", 404, Body::UntilClose),
        (Method::Get, "HTTP/1.1 200 OK", "Transfer-Encoding: chunked\r\nContent-Length: 5", 200, Body::CHUNKED),
        (Method::Get, "HTTP/1.1 200 OK", "Transfer-Encoding: gzip", 200, Body::UntilClose),
        (Method::Get, "HTTP/1.0 200 OK", "Transfer-Encoding: chunked", 200, Body::UntilClose),
        (Method::Head, "HTTP/1.1 200 OK", "Content-Length: 5", 200, Body::None),
        (Method::Head, "HTTP/1.1 200 OK", "Transfer-Encoding: chunked", 200, Body::None),
        (Method::Get, "HTTP/1.1 204 No Content", "Content-Length: 5", 204, Body::None),
        (Method::Get, "HTTP/1.1 304 Not Modified", "Content-Length: 5", 304, Body::None),
        (Method::Post, "HTTP/1.1 100 Continue", "X: y", 100, Body::None),
        (Method::Get, "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", 101, Body::None),
        (Method::Connect, "HTTP/1.1 200 Established", "Content-Length: 5", 200, Body::None),
        (Method::Connect, "HTTP/1.1 407 No", "Content-Length: 5", 407, Body::Length(5)),
        (Method::Get, "HTTP/1.1 999 Odd", "Content-Length: 5", 999, Body::Length(5)),
    ] {
        let head = answer(&format!("{line}\r\n{fields}\r\n\r\n"), method);
        assert_eq!((head.status, head.body, head.malformed), (status, body, None), "{line} {fields}");
    }
    let head = answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Method::Get);
    assert_eq!((head.body, head.malformed), (Body::Lost(0), Some(Malformed::ContentLength)));
}

#[test]
fn lines_that_are_no_status_line_are_malformed() {
    for line in ["HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 099 X", "HTTP/1.1  200", "HTTP/2 200", "ok"] {
        let text = format!("{line}\r\n\r\n");
        let parsed = response(text.as_bytes(), Method::Get, false);
        assert!(matches!(parsed, Parsed::Malformed(Malformed::StatusLine)), "{line:?}");
    }
}

#[test]
fn the_trace_context_and_the_expectation_are_read() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let text = format!("PUT / HTTP/1.1\r\nTraceParent:{PARENT}\r\nEXPECT: 100-Continue\r\n\r\n");
    assert!(head(&text).expects_continue);
    assert_eq!(head(&text).traceparent.expect("valid").flags, 1);
    let twice = format!("PUT / HTTP/1.1\r\ntraceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n\r\n");
    assert_eq!(head(&twice).traceparent, None);
    assert_eq!(head("PUT / HTTP/1.1\r\ntraceparent: nonsense\r\n\r\n").traceparent, None);
}

#[test]
fn a_head_without_its_end_is_partial_at_every_length() {
    let text = "POST /a HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\nContent-Length: 3\r\n\r\n";
    for length in 0..text.len() {
        assert!(matches!(request(&text.as_bytes()[..length], false), Parsed::Partial), "{length}");
        assert_ne!(starts_request(&text.as_bytes()[..length]), Starts::No, "{length}");
    }
    let Parsed::Head(head, 40) = request(&text.as_bytes()[..40], true) else { panic!("the line is there") };
    assert_eq!((head.path, head.host, head.body), (&b"/a"[..], &b"a"[..], Body::Lost(0)));
}
