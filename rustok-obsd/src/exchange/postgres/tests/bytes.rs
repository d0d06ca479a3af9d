//! Messages as sqlx, libpq and PostgreSQL send them.

pub(super) const SYNC: &[u8] = b"S\0\0\0\x04";

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn strings(parts: &[&str]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.bytes().chain([0])).collect()
}

pub(super) fn startup() -> Vec<u8> {
    let body = strings(&["user", "bob", "database", "shop", "client_encoding", "UTF8", ""]);
    let length = (body.len() as u32 + 8).to_be_bytes();
    [&length[..], &[0, 3, 0, 0], &body].concat()
}

pub(super) fn ready_at_start() -> Vec<u8> {
    let key = message(b'K', &[0; 8]);
    [message(b'R', &[0; 4]), message(b'S', b"server_version\x0017.2\0"), key].concat()
}

pub(super) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[strings(&[name, sql]), vec![0, 0]].concat())
}

pub(super) fn describe(target: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[target][..], &strings(&[name])].concat())
}

pub(super) fn bind(portal: &str, statement: &str, value: &[u8]) -> Vec<u8> {
    let length = (value.len() as u32).to_be_bytes();
    message(b'B', &[&strings(&[portal, statement])[..], &[0, 1, 0, 1, 0, 1], &length, value, &[0, 1, 0, 1]].concat())
}

pub(super) fn run(portal: &str) -> Vec<u8> {
    message(b'E', &[strings(&[portal]), vec![0; 4]].concat())
}

pub(super) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &strings(&[sql]))
}

/// sqlx's first round trip for a new statement.
pub(super) fn prepare(name: &str, sql: &str) -> Vec<u8> {
    [parse(name, sql), describe(b'S', name), SYNC.to_vec()].concat()
}

/// sqlx's round trip for a prepared statement.
pub(super) fn execute(name: &str, value: &[u8]) -> Vec<u8> {
    [bind("", name, value), run(""), message(b'C', b"P\0"), SYNC.to_vec()].concat()
}

pub(super) fn done(kind: u8) -> Vec<u8> {
    message(kind, b"")
}

pub(super) fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

pub(super) fn row_description() -> Vec<u8> {
    message(b'T', &[&[0, 1][..], b"id\0", &[0; 18]].concat())
}

pub(super) fn row() -> Vec<u8> {
    message(b'D', &[0, 1, 0, 0, 0, 4, 0, 0, 0, 9])
}

pub(super) fn complete_tag(tag: &str) -> Vec<u8> {
    message(b'C', &strings(&[tag]))
}

pub(super) fn error(code: &str) -> Vec<u8> {
    let code = format!("C{code}");
    message(b'E', &strings(&["SERROR", "VERROR", &code, "Mthe secret text", "Fparse.c", "L1", "Rraise", ""]))
}

pub(super) fn fatal(code: &str) -> Vec<u8> {
    let code = format!("C{code}");
    message(b'E', &strings(&["SSCHWERWIEGEND", "VFATAL", &code, "Mtext", ""]))
}

/// The answer to [`prepare`].
pub(super) fn prepared() -> Vec<u8> {
    [done(b'1'), message(b't', &[0, 1, 0, 0, 0, 23]), row_description(), ready(b'I')].concat()
}

/// The answer to [`execute`].
pub(super) fn executed(tag: &str, rows: usize) -> Vec<u8> {
    [done(b'2'), row().repeat(rows), complete_tag(tag), done(b'3'), ready(b'I')].concat()
}
