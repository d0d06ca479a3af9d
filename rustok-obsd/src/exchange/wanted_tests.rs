use super::{Headers, Wanted};
use crate::exchange::Method;
use crate::protocol::http1::{Buffers, Parser, Piece, Request, RequestHead, Step};

fn wanted() -> Wanted {
    Wanted { tenant: "X-Tenant-ID".into(), fields: vec!["x-request-id".into(), "user-agent".into()] }
}

/// The tenant and the values of a head, read in two pieces.
fn gathered(text: &str, split: usize) -> (String, Vec<(usize, String)>) {
    let mut parser = Parser::<Request>::new();
    let mut buffers = Buffers::default();
    for part in [&text.as_bytes()[..split], &text.as_bytes()[split..]] {
        let mut piece = Piece::Bytes(part);
        while !piece.is_empty() {
            if let Step::Head(head) = parser.next(&mut piece, Method::Other, &mut buffers) {
                return of(&head);
            }
        }
    }
    panic!("no head in {text:?}");
}

fn of(head: &RequestHead<'_>) -> (String, Vec<(usize, String)>) {
    let mut text = Vec::new();
    let length = wanted().gather(head, &mut text);
    let (tenant, rest) = text.split_at(length);
    let values = Headers::of(rest).iter().map(|(index, value)| (index, value.to_owned())).collect();
    (String::from_utf8(tenant.to_vec()).unwrap(), values)
}

#[test]
fn wanted_fields_are_found_in_any_case_and_order_and_repeated_wherever_the_head_is_split() {
    let text = "GET /a HTTP/1.1\r\nHost: a\r\nX-REQUEST-ID:one\r\nCookie: secret\r\nx-tenant-id:\t acme-1 \r\n\
                User-Agent: b c\r\nx-request-id: two\r\nX-Tenant-ID: other\r\nContent-Length: 0\r\n\r\n";
    let expected = ("acme-1".to_owned(), vec![(0, "one".to_owned()), (1, "b c".to_owned()), (0, "two".to_owned())]);
    for split in 0..text.len() {
        assert_eq!(gathered(text, split), expected, "{split}");
    }
}

#[test]
fn a_tenant_is_a_uuid_or_a_slug_or_nothing() {
    let longest = "a".repeat(64);
    for good in ["0af76519-16cd-43dd-8448-eb211c80319c", "acme", "acme_1.eu", "A", &longest] {
        assert_eq!(gathered(&format!("GET / HTTP/1.1\r\nX-Tenant-ID: {good}\r\n\r\n"), 0).0, good);
    }
    let long = "a".repeat(65);
    for bad in
        ["", " ", "a b", "a;b", "a\r\n b", "\u{e9}", "a/b", "a@b", "<x>", "a\u{0}", "a\u{7f}", "a\u{1b}[0m", &long]
    {
        let text = format!("GET / HTTP/1.1\r\nX-Tenant-ID: {bad}\r\nX-Tenant-ID: second\r\n\r\n");
        assert_eq!(gathered(&text, 0).0, "", "{bad:?}: nothing else is taken in its place");
    }
}

#[test]
fn a_value_is_taken_whole_or_not_at_all_and_all_of_them_are_bounded() {
    let values = |value: &str| gathered(&format!("GET / HTTP/1.1\r\nX-Request-ID: {value}\r\n\r\n"), 0).1;
    let longest = "v".repeat(Wanted::LONGEST);
    for good in ["", "a", "a\tb", "\u{e9}t\u{e9}", &longest] {
        assert_eq!(values(good), [(0, good.to_owned())]);
    }
    let long = "v".repeat(Wanted::LONGEST + 1);
    for bad in [&long, "a\u{0}b", "a\u{1b}b", "a\r\n folded"] {
        assert_eq!(values(bad), [], "{bad:?}");
    }
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", format!("X-Request-ID: {}\r\n", "v".repeat(100)).repeat(100));
    let found = gathered(&many, 0).1;
    assert!(found.len() == Wanted::TOTAL / 103 && found.iter().all(|(_, value)| value.len() == 100));
}

#[test]
fn nothing_is_looked_for_unless_wanted() {
    let text = "GET / HTTP/1.1\r\nX-Tenant-ID: a\r\nX-Request-ID: b\r\n\r\n";
    let mut parser = Parser::<Request>::new();
    let mut buffers = Buffers::default();
    let mut piece = Piece::Bytes(text.as_bytes());
    let Step::Head(head) = parser.next(&mut piece, Method::Other, &mut buffers) else { panic!("no head") };
    let mut kept = Vec::new();
    assert_eq!((Wanted::default().gather(&head, &mut kept), kept.len()), (0, 0));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic_as_a_view(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
        let view = Headers::of(&bytes);
        proptest::prop_assert!(view.iter().map(|(_, value)| value.len() + 3).sum::<usize>() <= bytes.len());
        let shown = format!("{view:?}");
        proptest::prop_assert!(shown.contains("values"));
    }
}
