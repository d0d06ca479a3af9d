//! The ground truth: one JSON line per request, as the server itself saw it.
//!
//! Reads: [`Record`]s from a bounded channel, and statements that ended after their request. Yields: a file of JSON
//! lines, ended by one [`End`] line: a record as such, a late statement as `{"late":{"request":ID,"query":{…}}}` behind
//! its request's record. Costs: one allocation and a channel send per request on the server's threads; serialising and
//! writing happen on a thread of its own. A full channel drops the line and counts it; the count is in the last line.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Records that may wait for the writer.
const CAPACITY: usize = 64 * 1024;

/// One request. Times are `CLOCK_MONOTONIC` ns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Counts requests from 0, in the order of their arrival at the application.
    pub id: u64,
    /// Value of `x-request-id`.
    pub client_id: Option<String>,
    /// Trace id of the `traceparent` that came, 32 hexadecimal digits.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// The client's end of the connection.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// Tokio task in which the handler ran: the connection's.
    pub task: Option<u64>,
    /// Method.
    pub method: String,
    /// What `MatchedPath` says in the innermost router; `PREFIX/*` where a service nested at PREFIX answered that is
    /// no router, or a router that matched nothing; `null` where the application's fallback answered.
    pub route: Option<String>,
    /// Path as on the wire, without the query string.
    pub path: String,
    /// Status; `null` where the handler was dropped before it answered.
    pub status: Option<u16>,
    /// The head was parsed and routed.
    pub start_ns: u64,
    /// The handler returned the response's head; 0 where it never did.
    pub handler_end_ns: u64,
    /// hyper took the last of the response's body, or dropped handler or body.
    pub end_ns: u64,
    /// The handler or the body was dropped before its end: the client went away.
    pub aborted: bool,
    /// Tenant id that the request was resolved to.
    pub tenant: Option<String>,
    /// Statements in the order of their end, those that ended before the request did.
    pub queries: Vec<Query>,
    /// Statements in the order of their end, those that ended after the request: work that outlives it. In the file
    /// they are lines of their own; [`read`] puts them here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<Query>,
}

impl Record {
    /// All its statements.
    pub fn all_queries(&self) -> impl Iterator<Item = &Query> {
        self.queries.iter().chain(&self.late)
    }
}

/// One statement, around the call of sea-orm or sqlx: includes the wait for a connection of the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// SQL text, or `BEGIN`, `COMMIT`, `ROLLBACK`.
    pub sql: String,
    /// Tokio task that made the call.
    pub task: Option<u64>,
    /// Before the call.
    pub start_ns: u64,
    /// After the call.
    pub end_ns: u64,
    /// Rows returned or affected.
    pub rows: u64,
    /// The call failed.
    pub error: bool,
    /// SQLSTATE, where the database said why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The future or the stream was dropped before its end, at `end_ns`: while it waited for the pool, or while the
    /// database worked (which goes on until it is through).
    #[serde(default, skip_serializing_if = "is_false")]
    pub cancelled: bool,
    /// The `ROLLBACK` of a transaction that was dropped: nobody called. The pool sends it later, in a task of its own;
    /// the times are those of the drop.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_pool: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A line of its own: a statement that ended after its request.
#[derive(Serialize, Deserialize)]
struct LateLine {
    late: Late,
}

#[derive(Serialize, Deserialize)]
struct Late {
    /// [`Record::id`].
    request: u64,
    query: Query,
}

/// The last line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Records written.
    pub records: u64,
    /// Late statements written.
    #[serde(default)]
    pub late: u64,
    /// Records and late statements lost because the channel was full.
    pub dropped: u64,
}

#[derive(Serialize, Deserialize)]
struct EndLine {
    end: End,
}

enum Message {
    Record(Box<Record>),
    Late(Box<LateLine>),
    Stop,
}

/// Where the application hands its records in. Cheap to clone.
#[derive(Clone)]
pub struct Sink {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    next_id: Arc<AtomicU64>,
    open: Arc<AtomicU64>,
}

impl Sink {
    /// The next request's id.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands a record to the writer; never blocks.
    pub fn send(&self, record: Box<Record>) {
        self.hand_in(Message::Record(record));
    }

    /// Hands in a statement that ended after the record of `request` was sent; never blocks.
    pub fn send_late(&self, request: u64, query: Query) {
        self.hand_in(Message::Late(Box::new(LateLine { late: Late { request, query } })));
    }

    fn hand_in(&self, message: Message) {
        if self.sender.try_send(message).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that one more request may hand in.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that nothing of a request is left that could hand in.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Release);
    }

    /// Requests that may still hand in: those that run, and those with work that outlives them.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }
}

/// The thread that writes the file.
pub struct Writer {
    sink: Sink,
    thread: JoinHandle<io::Result<End>>,
}

impl Writer {
    /// Creates (truncates) the file and starts the thread.
    ///
    /// # Errors
    /// If the file cannot be created; the message names it.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create the ground truth {}", path.display()))?;
        let (sender, receiver) = sync_channel(CAPACITY);
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = Sink { sender, dropped: Arc::clone(&dropped), next_id: Arc::default(), open: Arc::default() };
        let thread = std::thread::Builder::new()
            .name("ground-truth".to_owned())
            .spawn(move || write(&receiver, BufWriter::with_capacity(1 << 18, file), &dropped))?;
        Ok(Self { sink, thread })
    }

    /// Where records go in.
    #[must_use]
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// Writes what waits and the last line, and flushes.
    ///
    /// # Errors
    /// If writing failed, now or earlier.
    pub fn finish(self) -> anyhow::Result<End> {
        // Fails only when the thread ended with an error, which the join tells.
        let _ = self.sink.sender.send(Message::Stop);
        let ended = self.thread.join().map_err(|_| anyhow::anyhow!("the ground truth's writer panicked"))?;
        ended.context("cannot write the ground truth")
    }
}

fn write(receiver: &Receiver<Message>, mut file: BufWriter<File>, dropped: &AtomicU64) -> io::Result<End> {
    let (mut records, mut late) = (0, 0);
    loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(Message::Record(record)) => {
                serde_json::to_writer(&mut file, &record)?;
                file.write_all(b"\n")?;
                records += 1;
            }
            Ok(Message::Late(line)) => {
                serde_json::to_writer(&mut file, &line)?;
                file.write_all(b"\n")?;
                late += 1;
            }
            // A reader that follows the file is at most this far behind when the server is idle.
            Err(RecvTimeoutError::Timeout) => file.flush()?,
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                let end = End { records, late, dropped: dropped.load(Ordering::Relaxed) };
                serde_json::to_writer(&mut file, &EndLine { end })?;
                file.write_all(b"\n")?;
                file.flush()?;
                return Ok(end);
            }
        }
    }
}

/// Reads a ground truth back, with late statements in [`Record::late`] of their request.
///
/// # Errors
/// If the file cannot be read, a line is malformed, a late statement has no request though none was lost, or the last
/// line is missing because the server was killed; the message names file and line.
pub fn read(path: &Path) -> anyhow::Result<(Vec<Record>, End)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut records: Vec<Record> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut orphan: Option<String> = None;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        let place = || format!("{}:{}", path.display(), number + 1);
        if line.starts_with("{\"end\":") {
            let end = serde_json::from_str::<EndLine>(&line).with_context(place)?.end;
            anyhow::ensure!(end.dropped > 0 || orphan.is_none(), orphan.unwrap_or_default());
            return Ok((records, end));
        }
        if line.starts_with("{\"late\":") {
            let Late { request, query } = serde_json::from_str::<LateLine>(&line).with_context(place)?.late;
            match places.get(&request) {
                Some(&request) => records[request].late.push(query),
                None => orphan = Some(format!("{}: late, and request {request} is not there", place())),
            }
            continue;
        }
        let record: Record = serde_json::from_str(&line).with_context(place)?;
        places.insert(record.id, records.len());
        records.push(record);
    }
    anyhow::bail!("{}: no last line: the server did not end in order", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64) -> Box<Record> {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        Box::new(Record {
            id,
            client_id: Some(format!("c-{id}")),
            trace_id: None,
            peer: addr,
            local: addr,
            task: None,
            method: "GET".to_owned(),
            route: None,
            path: "/".to_owned(),
            status: Some(404),
            start_ns: 1,
            handler_end_ns: 2,
            end_ns: 3,
            aborted: false,
            tenant: None,
            queries: Vec::new(),
            late: Vec::new(),
        })
    }

    fn query(sql: &str) -> Query {
        Query { sql: sql.to_owned(), start_ns: 4, end_ns: 5, cancelled: true, ..Query::default() }
    }

    #[test]
    fn what_was_written_is_read_back_with_its_last_line() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("truth.jsonl");
        let writer = Writer::create(&path).expect("create");
        let sink = writer.sink();
        for _ in 0..3 {
            sink.send(record(sink.next_id()));
        }
        sink.send_late(1, query("SELECT 1"));
        sink.send_late(0, query("SELECT 2"));
        sink.send_late(1, query("SELECT 3"));
        let end = writer.finish().expect("finish");
        assert_eq!(end, End { records: 3, late: 3, dropped: 0 });
        let (records, read_end) = read(&path).expect("read");
        assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(read_end, end);
        assert_eq!(records[0].late, [query("SELECT 2")]);
        assert_eq!(records[1].late, [query("SELECT 1"), query("SELECT 3")]);
        assert!(records[2].late.is_empty() && records[1].queries.is_empty());
    }

    #[test]
    fn records_after_the_end_and_beyond_the_capacity_are_counted() {
        let (sender, receiver) = sync_channel(1);
        let sink = Sink { sender, dropped: Arc::default(), next_id: Arc::default(), open: Arc::default() };
        sink.send(record(0));
        sink.send(record(1));
        assert_eq!(sink.dropped.load(Ordering::Relaxed), 1);
        drop(receiver);
        sink.send(record(2));
        assert_eq!(sink.dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_late_statement_without_its_request_is_refused_unless_records_were_lost() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("truth.jsonl");
        let writer = Writer::create(&path).expect("create");
        writer.sink().send_late(7, query("SELECT 1"));
        writer.finish().expect("finish");
        let error = read(&path).expect_err("an orphan").to_string();
        assert!(error.contains("truth.jsonl:1") && error.contains("request 7"), "{error}");
        let text = std::fs::read_to_string(&path).expect("text").replace("\"dropped\":0", "\"dropped\":1");
        std::fs::write(&path, text).expect("write");
        assert!(read(&path).expect("records were lost").0.is_empty());
    }

    #[test]
    fn a_file_without_its_last_line_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("truth.jsonl");
        std::fs::write(&path, serde_json::to_string(&record(0)).expect("json") + "\n").expect("write");
        let error = read(&path).expect_err("killed").to_string();
        assert!(error.contains("truth.jsonl") && error.contains("last line"), "{error}");
    }
}
