//! The client: keeps a number of connections busy with requests whose answers it knows.
//!
//! Reads: nothing but the answers. Yields: a [`Summary`] and, if wanted, a log of every request. Costs: one task and
//! one kept connection per slot; the oddities of HTTP open connections of their own.

pub mod kept;
pub mod mix;
pub mod raw;
pub mod report;
pub mod rng;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock::now_ns;
use kept::Kept;
use mix::{Action, Chooser, Mix, Step};
use raw::Raw;
use report::{Log, Logged, Stats, Summary};
use rng::Rng;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub addr: SocketAddr,
    /// Kept connections.
    pub concurrency: u32,
    /// Requests in total.
    pub requests: Option<u64>,
    /// Time in total.
    pub duration: Option<Duration>,
    /// Requests per second in total.
    pub rate: Option<f64>,
    /// For the generator.
    pub seed: u64,
    /// Which traffic.
    pub mix: Mix,
}

/// Runs to the end. SIGTERM brings it on: what was asked is still awaited.
///
/// # Errors
/// If the server cannot be reached at the start, signals not be heard, or the log not be written.
pub async fn run(options: &Options, log: Option<Log>) -> anyhow::Result<Summary> {
    drop(Kept::connect(options.addr).await.context("is the server running?")?);
    let left = Arc::new(AtomicU64::new(options.requests.unwrap_or(u64::MAX)));
    let (mut terminate, rest) = (signal(SignalKind::terminate())?, Arc::clone(&left));
    let ender = tokio::spawn(async move {
        terminate.recv().await;
        rest.store(0, Ordering::Relaxed);
    });
    let start = Instant::now();
    let slots: Vec<_> = (0..options.concurrency)
        .map(|number| {
            let slot = Slot {
                addr: options.addr,
                number,
                chooser: Chooser::new(options.mix, Rng::new(options.seed, u64::from(number))),
                rng: Rng::new(!options.seed, u64::from(number)),
                plain: options.mix.plain(),
                seed: options.seed,
                sent: 0,
                log: log.as_ref().map(Log::sender),
                stats: Stats::default(),
                kept: None,
            };
            let pace = options.rate.map(|rate| Pace::new(start, rate, options.concurrency, number));
            tokio::spawn(slot.run(Arc::clone(&left), options.duration.map(|duration| start + duration), pace))
        })
        .collect();
    let mut stats = Stats::default();
    for slot in slots {
        stats.add(slot.await?);
    }
    let elapsed = start.elapsed();
    ender.abort();
    if let Some(log) = log {
        log.finish()?;
    }
    Ok(stats.summary(elapsed))
}

/// When a slot may send: evenly spaced, the slots one after the other. A late slot does not catch up.
struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    fn new(start: Instant, rate: f64, slots: u32, slot: u32) -> Self {
        let interval = Duration::from_secs_f64(f64::from(slots) / rate);
        Self { next: start + interval * slot / slots, interval }
    }

    async fn wait(&mut self, requests: u32) {
        sleep_until(self.next).await;
        self.next = (self.next + self.interval * requests).max(Instant::now());
    }
}

struct Slot {
    addr: SocketAddr,
    number: u32,
    chooser: Chooser,
    rng: Rng,
    /// No headers of ours, no reconnecting: for measuring saturation.
    plain: bool,
    seed: u64,
    sent: u64,
    log: Option<Sender<Logged>>,
    stats: Stats,
    kept: Option<Kept>,
}

/// Ids of a request.
struct Tag {
    headers: Vec<(&'static str, String)>,
    id: String,
    trace_id: Option<String>,
}

/// What became of a request.
struct Outcome {
    status: Option<u16>,
    start_ns: u64,
    end_ns: u64,
    port: u16,
    aborted: bool,
}

impl Slot {
    async fn run(mut self, left: Arc<AtomicU64>, end: Option<Instant>, mut pace: Option<Pace>) -> Stats {
        while end.is_none_or(|end| Instant::now() < end) {
            let action = self.chooser.choose();
            let wanted = if let Action::Pipeline(steps) = &action { steps.len() as u64 } else { 1 };
            let take = |left: u64| Some(left.saturating_sub(wanted));
            let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or(0);
            let granted = before.min(wanted);
            if granted == 0 {
                break;
            }
            if let Some(pace) = &mut pace {
                // At most eight, the longest pipeline.
                pace.wait(granted as u32).await;
            }
            self.act(action, granted as usize).await;
        }
        self.stats
    }

    async fn act(&mut self, action: Action, granted: usize) {
        match action {
            Action::Request(step) => self.request(&step).await,
            Action::Pipeline(mut steps) => {
                steps.truncate(granted);
                self.pipeline(&steps).await;
            }
            Action::Split(step) => {
                self.special(&step, async |raw, tag, rng| raw.split(&step, &tag.headers, rng).await).await;
            }
            Action::Http10(step) => {
                self.special(&step, async |raw, tag, _| raw.http10(&step, &tag.headers).await).await;
            }
            Action::Expect(step) => {
                self.special(&step, async |raw, tag, _| raw.expect(&step, &tag.headers).await).await;
            }
            Action::WebSocket(step) => self.web_socket(&step).await,
            Action::Abort(abort, step) => self.abort(abort, &step).await,
        }
    }

    async fn request(&mut self, step: &Step) {
        let tag = self.tag();
        let close = !self.plain && self.rng.one_in(300);
        let start_ns = now_ns();
        let port = self.kept.as_ref().map_or(0, |kept| kept.port);
        let answer = timeout(PATIENCE, self.send(step, &tag, close)).await;
        let end_ns = now_ns();
        let port = self.kept.as_ref().map_or(port, |kept| kept.port);
        let mut status = None;
        match answer {
            Ok(Ok(answer)) => {
                status = Some(answer.status);
                if answer.status == 201 {
                    answer.location.into_iter().for_each(|location| self.chooser.created(location));
                }
            }
            Ok(Err(error)) => self.failed(step, &error),
            Err(_) => self.failed(step, &"no answer within 60 s"),
        }
        if status.is_none() || close || (!self.plain && self.rng.one_in(500)) {
            self.kept = None;
        }
        self.note(step, tag, &Outcome { status, start_ns, end_ns, port, aborted: false });
    }

    async fn send(&mut self, step: &Step, tag: &Tag, close: bool) -> anyhow::Result<kept::Answer> {
        let kept = match &mut self.kept {
            Some(kept) => kept,
            none => none.insert(Kept::connect(self.addr).await?),
        };
        kept.send(step, &tag.headers, close).await
    }

    async fn pipeline(&mut self, steps: &[Step]) {
        let tags: Vec<Tag> = steps.iter().map(|_| self.tag()).collect();
        let start_ns = now_ns();
        let written = async {
            let mut raw = Raw::connect(self.addr).await?;
            let requests: Vec<_> = steps.iter().zip(&tags).map(|(step, tag)| (step, &*tag.headers)).collect();
            raw.write_all(&requests).await?;
            std::io::Result::Ok(raw)
        };
        let mut raw = written.await;
        for (step, tag) in steps.iter().zip(tags) {
            let read = match &mut raw {
                Ok(raw) => timeout(PATIENCE, raw.read(&step.method)).await.map_err(std::io::Error::from).flatten(),
                Err(error) => Err(std::io::Error::other(error.to_string())),
            };
            let port = raw.as_ref().map_or(0, |raw| raw.port);
            let status = read.inspect_err(|error| self.failed(step, error)).ok();
            self.note(step, tag, &Outcome { status, start_ns, end_ns: now_ns(), port, aborted: false });
        }
    }

    async fn special(&mut self, step: &Step, send: impl AsyncFnOnce(&mut Raw, &Tag, &mut Rng) -> std::io::Result<u16>) {
        let tag = self.tag();
        let start_ns = now_ns();
        let mut port = 0;
        let sent = timeout(PATIENCE, async {
            let mut raw = Raw::connect(self.addr).await?;
            port = raw.port;
            send(&mut raw, &tag, &mut self.rng).await
        });
        let status =
            sent.await.map_err(std::io::Error::from).flatten().inspect_err(|error| self.failed(step, error)).ok();
        self.note(step, tag, &Outcome { status, start_ns, end_ns: now_ns(), port, aborted: false });
    }

    async fn web_socket(&mut self, step: &Step) {
        let tag = self.tag();
        let start_ns = now_ns();
        let mut port = 0;
        let echoed = timeout(PATIENCE, async {
            let raw = Raw::connect(self.addr).await?;
            port = raw.port;
            raw.web_socket(step, &tag.headers, &mut self.rng).await
        });
        let echo =
            echoed.await.map_err(std::io::Error::from).flatten().inspect_err(|error| self.failed(step, error)).ok();
        let (status, end_ns) = echo.map_or((None, now_ns()), |echo| (Some(echo.status), echo.end_ns));
        self.note(step, tag, &Outcome { status, start_ns, end_ns, port, aborted: false });
    }

    async fn abort(&mut self, abort: mix::Abort, step: &Step) {
        let tag = self.tag();
        let start_ns = now_ns();
        let mut port = 0;
        let given_up = timeout(PATIENCE, async {
            let raw = Raw::connect(self.addr).await?;
            port = raw.port;
            raw.abort(abort, step, &tag.headers).await
        });
        let status = given_up.await.map_err(std::io::Error::from).flatten();
        let status = status.inspect_err(|error| self.failed(step, error)).ok().flatten();
        let aborted = status.is_none();
        if aborted {
            self.stats.abort();
        }
        self.note(step, tag, &Outcome { status, start_ns, end_ns: now_ns(), port, aborted });
    }

    fn tag(&mut self) -> Tag {
        let sent = self.sent;
        self.sent += 1;
        if self.plain {
            return Tag { headers: Vec::new(), id: String::new(), trace_id: None };
        }
        let id = format!("{:x}-{}-{sent}", self.seed, self.number);
        let mut headers = vec![("x-request-id", id.clone())];
        let traced = self.chooser.traced() || self.rng.one_in(4);
        let trace_id = traced.then(|| {
            // Not all zero, as Trace Context demands.
            let trace_id = format!("{:016x}{:016x}", self.rng.next_u64() | 1, self.rng.next_u64());
            headers.push(("traceparent", format!("00-{trace_id}-{:016x}-01", self.rng.next_u64() | 1)));
            trace_id
        });
        Tag { headers, id, trace_id }
    }

    fn failed(&mut self, step: &Step, error: &(impl std::fmt::Display + ?Sized)) {
        self.stats.error(|| format!("{} {}: {error:#}", step.method, step.target));
    }

    fn note(&mut self, step: &Step, tag: Tag, outcome: &Outcome) {
        if let Some(status) = outcome.status {
            self.stats.response(status, outcome.end_ns - outcome.start_ns);
            if status != step.status {
                self.stats.error(|| format!("{} {}: {status} instead of {}", step.method, step.target, step.status));
            }
        }
        if let Some(log) = &self.log {
            // Fails only where the writer ended with an error, which `finish` tells.
            let _ = log.send(Logged {
                id: tag.id,
                method: step.method.to_string(),
                path: step.path().to_owned(),
                route: step.route.map(str::to_owned),
                status: outcome.status,
                start_ns: outcome.start_ns,
                end_ns: outcome.end_ns,
                local_port: outcome.port,
                aborted: outcome.aborted,
                trace_id: tag.trace_id,
            });
        }
    }
}
