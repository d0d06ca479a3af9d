//! The ground truth: one JSON line per request, as the server itself saw it.
//!
//! Reads: [`Record`]s from a bounded channel. Yields: a file of JSON lines, ended by one [`End`] line. Costs: one
//! allocation and a channel send per request on the server's threads; serialising and writing happen on a thread of
//! its own. A full channel drops the record and counts it; the count is in the last line.

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
    /// Statements in the order of their end.
    pub queries: Vec<Query>,
}

/// One statement, around the call of sea-orm: includes the wait for a connection of the pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
}

/// The last line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Records written.
    pub records: u64,
    /// Records lost because the channel was full.
    pub dropped: u64,
}

#[derive(Serialize, Deserialize)]
struct EndLine {
    end: End,
}

enum Message {
    Record(Box<Record>),
    Stop,
}

/// Where the application hands its records in. Cheap to clone.
#[derive(Clone)]
pub struct Sink {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    next_id: Arc<AtomicU64>,
}

impl Sink {
    /// The next request's id.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Hands a record to the writer; never blocks.
    pub fn send(&self, record: Box<Record>) {
        if self.sender.try_send(Message::Record(record)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
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
        let sink = Sink { sender, dropped: Arc::clone(&dropped), next_id: Arc::default() };
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
    let mut records = 0;
    loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(Message::Record(record)) => {
                serde_json::to_writer(&mut file, &record)?;
                file.write_all(b"\n")?;
                records += 1;
            }
            // A reader that follows the file is at most this far behind when the server is idle.
            Err(RecvTimeoutError::Timeout) => file.flush()?,
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                let end = End { records, dropped: dropped.load(Ordering::Relaxed) };
                serde_json::to_writer(&mut file, &EndLine { end })?;
                file.write_all(b"\n")?;
                file.flush()?;
                return Ok(end);
            }
        }
    }
}

/// Reads a ground truth back.
///
/// # Errors
/// If the file cannot be read, a line is malformed, or the last line is missing because the server was killed; the
/// message names file and line.
pub fn read(path: &Path) -> anyhow::Result<(Vec<Record>, End)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut records = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        let place = || format!("{}:{}", path.display(), number + 1);
        if line.starts_with("{\"end\":") {
            return Ok((records, serde_json::from_str::<EndLine>(&line).with_context(place)?.end));
        }
        records.push(serde_json::from_str(&line).with_context(place)?);
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
        })
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
        let end = writer.finish().expect("finish");
        assert_eq!(end, End { records: 3, dropped: 0 });
        let (records, read_end) = read(&path).expect("read");
        assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(read_end, end);
    }

    #[test]
    fn records_after_the_end_and_beyond_the_capacity_are_counted() {
        let (sender, receiver) = sync_channel(1);
        let sink = Sink { sender, dropped: Arc::default(), next_id: Arc::default() };
        sink.send(record(0));
        sink.send(record(1));
        assert_eq!(sink.dropped.load(Ordering::Relaxed), 1);
        drop(receiver);
        sink.send(record(2));
        assert_eq!(sink.dropped.load(Ordering::Relaxed), 2);
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
