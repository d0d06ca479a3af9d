use super::{
    Backend, BackendMessage, Chain, Copy, Direction, Frontend, FrontendMessage, Reader, Severity, Step, Tag, Target,
    TransactionStatus, ends_ready,
};
use crate::protocol::{Buffers, Piece};
use proptest::prelude::*;

/// Everything a direction says, as text.
fn read<D: Direction>(reader: &mut Reader<D>, pieces: &[Piece<'_>]) -> Vec<String> {
    let mut buffers = Buffers::default();
    let mut seen = Vec::new();
    for piece in pieces {
        let mut piece = *piece;
        while !piece.is_empty() {
            match reader.next(&mut piece, &mut buffers) {
                Step::Message(message) => seen.push(format!("{message:?}")),
                Step::Missing => seen.push("missing".into()),
                Step::Malformed => seen.push("malformed".into()),
                Step::Partial | Step::Body | Step::Skipped => {}
            }
        }
        reader.end_of_record(&mut buffers);
    }
    seen
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

#[test]
fn a_client_says() {
    use FrontendMessage as M;
    let cases: &[(u8, &[u8], M<'_>)] = &[
        (b'P', b"s1\0SELECT 1\0\0\0", M::Parse { name: Some(b"s1"), sql: b"SELECT 1", truncated: false }),
        (b'P', b"\0SELECT 1, 2 , 3 \0\0\0", M::Parse { name: Some(b""), sql: b"SELECT 1, 2 , 3 ", truncated: false }),
        (b'P', b"\0SELECT 1, 2 , 3 , 4\0\0\0", M::Parse { name: Some(b""), sql: b"SELECT 1, 2 , 3 ", truncated: true }),
        (b'Q', b"SELECT 1, 2 , 3 , 4\0", M::Query { sql: b"SELECT 1, 2 , 3 ", truncated: true }),
        (b'B', b"p\0s\0\0\0\0\x01\0\0\0\x02ab\0\0", M::Bind { portal: Some(b"p"), statement: Some(b"s") }),
        (b'D', b"Ss1\0", M::Describe { target: Target::Statement, name: Some(b"s1") }),
        (b'E', b"\0\0\0\0\0", M::Execute { portal: Some(b"") }),
        (b'C', b"P\0", M::Close { target: Target::Portal, name: Some(b"") }),
        (b'S', b"", M::Sync),
        (b'H', b"", M::Flush),
        (b'd', b"1\t2\n", M::CopyData),
        (b'c', b"", M::CopyDone),
        (b'f', b"why\0", M::CopyFail),
        (b'p', b"secret\0", M::Password),
        (b'F', &[0; 10], M::FunctionCall),
        (b'X', b"", M::Terminate),
    ];
    let mut reader = Reader::<Frontend>::new().with_sql_limit(16);
    for (kind, body, want) in cases {
        let bytes = message(*kind, body);
        assert_eq!(read(&mut reader, &[Piece::Bytes(&bytes)]), [format!("{want:?}")]);
    }
    for (kind, body) in [(b'S', &b"x"[..]), (b'Z', b"I"), (b'P', b""), (b'E', b"\0"), (0, b"")] {
        let bytes = message(kind, body);
        assert_eq!(read(&mut Reader::<Frontend>::new(), &[Piece::Bytes(&bytes)]), ["malformed"]);
    }
}

#[test]
fn a_server_says() {
    use BackendMessage as M;
    let error = |severity, code: &[u8; 5]| M::ErrorResponse { severity, sqlstate: Some(*code) };
    let tag = |rows| M::CommandComplete(Tag { rows, forgets: false });
    let cases: &[(u8, &[u8], M)] = &[
        (b'R', &[0, 0, 0, 10, b'S'], M::Authentication(Some(10))),
        (b'K', &[0; 8], M::BackendKeyData),
        (b'S', b"a\0b\0", M::ParameterStatus { standard_strings: None }),
        (b'S', b"standard_conforming_strings\0on\0", M::ParameterStatus { standard_strings: Some(true) }),
        (b'S', b"standard_conforming_strings\0off\0", M::ParameterStatus { standard_strings: Some(false) }),
        (b'S', b"standard_conforming_strings_x\0off\0", M::ParameterStatus { standard_strings: None }),
        (b'Z', b"T", M::ReadyForQuery(Some(TransactionStatus::InTransaction))),
        (b'Z', b"x", M::ReadyForQuery(None)),
        (b'T', &[0, 0], M::RowDescription),
        (b't', &[0, 0], M::ParameterDescription),
        (b'D', &[0, 0], M::DataRow),
        (b'C', b"SELECT 5\0", tag(Some(5))),
        (b'C', b"INSERT 0 2\0", tag(Some(2))),
        (b'C', b"CREATE TABLE\0", tag(None)),
        (b'C', b"SELECT 99999999999999999999\0", tag(None)),
        (b'C', b"DISCARD ALL\0", M::CommandComplete(Tag { rows: None, forgets: true })),
        (b'E', b"SERROR\0VERROR\0C23505\0Mdetail\0\0", error(Severity::Error, b"23505")),
        (b'E', b"SFEHLER\0VFATAL\0C57P01\0\0", error(Severity::Fatal, b"57P01")),
        (b'E', b"SERROR\0C42P01\0\0", error(Severity::Error, b"42P01")),
        (b'E', b"SERROR\0C4\xff2P\0\0", M::ErrorResponse { severity: Severity::Error, sqlstate: None }),
        (b'E', b"M\0", M::ErrorResponse { severity: Severity::Unknown, sqlstate: None }),
        (b'N', b"SNOTICE\0\0", M::NoticeResponse),
        (b'1', b"", M::ParseComplete),
        (b'2', b"", M::BindComplete),
        (b'3', b"", M::CloseComplete),
        (b'n', b"", M::NoData),
        (b's', b"", M::PortalSuspended),
        (b'I', b"", M::EmptyQueryResponse),
        (b'G', &[0; 3], M::CopyResponse(Copy::In)),
        (b'H', &[0; 3], M::CopyResponse(Copy::Out)),
        (b'W', &[0; 3], M::CopyResponse(Copy::Both)),
        (b'd', b"", M::CopyData),
        (b'c', b"", M::CopyDone),
        (b'A', b"\0\0\0\x01a\0b\0", M::NotificationResponse),
        (b'v', &[0; 8], M::NegotiateProtocolVersion),
        (b'V', &[0; 4], M::FunctionCallResponse),
    ];
    let mut reader = Reader::<Backend>::new();
    for (kind, body, want) in cases {
        let bytes = message(*kind, body);
        assert_eq!(read(&mut reader, &[Piece::Bytes(&bytes)]), [format!("{want:?}")]);
    }
}

#[test]
fn a_start_names_the_database() {
    let cases: &[(&[u8], FrontendMessage<'_>)] = &[
        (b"user\0bob\0database\0shop\0\0", FrontendMessage::Startup { database: b"shop", replication: false }),
        (b"user\0bob\0\0", FrontendMessage::Startup { database: b"bob", replication: false }),
        (b"replication\0database\0user\0bob\0\0", FrontendMessage::Startup { database: b"bob", replication: true }),
        (b"", FrontendMessage::Startup { database: b"", replication: false }),
    ];
    for (body, want) in cases {
        let bytes = [&(body.len() as u32 + 8).to_be_bytes()[..], &[0, 3, 0, 2], body].concat();
        assert_eq!(read(&mut Reader::<Frontend>::starting(), &[Piece::Bytes(&bytes)]), [format!("{want:?}")]);
    }
    for bytes in [&b"\0\0\0\x08\0\x02\0\0"[..], b"\0\0\x80\0\0\x03\0\0", b"GET / HTTP/1.1"] {
        assert_eq!(read(&mut Reader::<Frontend>::starting(), &[Piece::Bytes(bytes)])[0], "malformed");
    }
}

#[test]
fn gaps_inside_a_message_change_nothing() {
    let bind = message(b'B', &[&b"\0s\0"[..], &[1; 1000]].concat());
    let sync = message(b'S', b"");
    let mut reader = Reader::<Frontend>::new();
    let seen = read(&mut reader, &[Piece::Bytes(&bind[..8]), Piece::Gap(bind.len() as u64 - 8), Piece::Bytes(&sync)]);
    let name = Some(&b"s"[..]);
    assert_eq!(seen[0], format!("{:?}", FrontendMessage::Bind { portal: Some(b""), statement: name }));
    assert_eq!(seen[1], "Sync");
    // A name that was not captured; a head that was not.
    let seen =
        read(&mut reader, &[Piece::Bytes(&bind[..6]), Piece::Gap(bind.len() as u64 - 6 + 1), Piece::Bytes(&sync)]);
    assert_eq!(seen, ["Bind { portal: Some([]), statement: None }", "missing"]);
    assert!(reader.is_lost());
    reader.resume();
    assert_eq!(read(&mut reader, &[Piece::Bytes(&sync)]), ["Sync"]);
}

#[test]
fn a_chain_tells_where_messages_begin() {
    let follow = |bytes: &[u8]| Chain::follow::<Frontend>(bytes, b"", bytes.len());
    let pair = [message(b'P', b"\0SELECT 1\0\0\0"), message(b'S', b"")].concat();
    assert_eq!(follow(&pair), Some(Chain { heads: 2, exact: true, broken: false, strong: false }));
    assert!(follow(&pair[..pair.len() - 2]).is_some_and(|chain| chain.heads == 1 && !chain.begins_requests()));
    for none in [&pair[1..], b"Q\0\0\0\x03", b"SELECT 1", b"E\0\0\0\x09abcde", b""] {
        assert_eq!(follow(none), None, "{none:?}");
    }
    // A large Bind that was cut: its head alone, or with the Sync that ends the record.
    let bind = [message(b'B', &[&b"\0s\0"[..], &[1; 1000]].concat()), message(b'S', b"")].concat();
    let chain = Chain::follow::<Frontend>(&bind[..50], &bind[bind.len() - 8..], bind.len());
    assert!(chain.is_some_and(|chain| chain.exact && chain.heads == 2));
    let rows = [message(b'D', &[0; 10]), message(b'D', &[0; 100])].concat();
    let begins =
        |bytes: &[u8]| Chain::follow::<Backend>(bytes, b"", bytes.len()).is_some_and(|chain| chain.begins_answers());
    assert!(begins(&rows) && begins(&[&message(b'2', b"")[..], &rows[..60]].concat()));
    // Inside a row: the end of a value, the length of the next one, and something that looks like another head.
    assert!(!begins(&rows[..60]) && !begins(b"1\0\0\0\x04\0\0\0\x07"));
    assert!(!begins(b"W\0\0\0\x0aProduct 72D  0\0\0 rest"));
    assert_eq!(ends_ready(&message(b'Z', b"E"), b"", 6), Some(TransactionStatus::Failed));
    assert_eq!(ends_ready(b"", b"xxZ\0\0\0\x05I", 100), Some(TransactionStatus::Idle));
    assert_eq!(ends_ready(b"xZ\0\0\0\x05I", b"", 100), None);
}

proptest! {
    #[test]
    fn any_split_reads_the_same(
        bodies in prop::collection::vec((prop::sample::select(&b"PBQSdHp"[..]), prop::collection::vec(0..4u8, 12..60)), 1..6),
        cuts in prop::collection::vec(1..20usize, 1..5),
    ) {
        let bytes: Vec<u8> = bodies
            .iter()
            .flat_map(|(kind, body)| message(*kind, if matches!(kind, b'S' | b'H') { b"" } else { body }))
            .collect();
        let whole = read(&mut Reader::<Frontend>::new().with_sql_limit(20), &[Piece::Bytes(&bytes)]);
        prop_assert_eq!(whole.len(), bodies.len());
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            pieces.push(Piece::Bytes(piece));
            rest = after;
        }
        prop_assert_eq!(read(&mut Reader::<Frontend>::new().with_sql_limit(20), &pieces), whole);
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..100), gap in 0..50u64, kind in any::<u8>()) {
        let pieces = [Piece::Bytes(&[kind, 0, 0]), Piece::Bytes(&bytes), Piece::Gap(gap), Piece::Bytes(&bytes)];
        read(&mut Reader::<Frontend>::new(), &pieces);
        read(&mut Reader::<Frontend>::starting(), &pieces);
        read(&mut Reader::<Backend>::new(), &pieces);
        let _ = Chain::follow::<Frontend>(&bytes, &bytes[bytes.len() / 2..], bytes.len() + gap as usize);
        let _ = Chain::follow::<Backend>(&bytes, b"", bytes.len() / 2);
        let _ = super::begins(&bytes);
    }
}
