//! When a batch leaves, to the span: the clock stands still until a test moves it, and the collector answers when the
//! test says so.

use super::*;
use crate::trace::tests::{addresses, exchange};
use crate::trace::{REPEATED, SpanCounts, TargetKey, Tracer, Tracing};
use opentelemetry_sdk::error::OTelSdkResult;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const DELAY: Duration = Duration::from_secs(5);
const BATCH: usize = 50;
const QUEUE: usize = 100;

/// A collector that notes each export and answers as often as it may.
#[derive(Clone, Debug)]
struct Collector(Arc<(Mutex<Vec<usize>>, Semaphore)>);

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.0.lock().unwrap().push(batch.len());
        self.0.1.acquire().await.unwrap().forget();
        Ok(())
    }
}

struct Bench {
    collector: Collector,
    tracing: Tracing,
    tracer: Tracer,
    worker: JoinHandle<()>,
}

impl Bench {
    fn start() -> Self {
        // The time for one export is no bound here, but where a test says so.
        let hour = Duration::from_secs(3600);
        let settings = Traces {
            queue_size: QUEUE,
            batch_size: BATCH,
            schedule_delay: DELAY,
            export_timeout: hour,
            ..Traces::default()
        };
        let (queue, waiting) = sync_channel(2 * QUEUE);
        let shared = Arc::new(Shared::new(BATCH, QUEUE));
        let (stop, stopped) = watch::channel(None);
        let collector = Collector(Arc::new((Mutex::default(), Semaphore::new(0))));
        let worker = Worker {
            exporter: collector.clone(),
            clock: Clock::new(),
            conventions: Conventions::new(&[]),
            url: String::new(),
            down: false,
            settings: settings.clone(),
            queue: waiting,
            shared: Arc::clone(&shared),
            stopped,
        };
        let worker = tokio::spawn(worker.run());
        let (_, done) = sync_channel(1);
        let tracing = Tracing { exporter: Handle { stop, done }, queue, shared, settings, repeated: REPEATED };
        Self { collector, tracer: tracing.tracer(), tracing, worker }
    }

    fn offer(&mut self, spans: usize) {
        for _ in 0..spans {
            self.tracer.offer(TargetKey(1), &exchange(), None, addresses());
        }
    }

    /// The sizes of all exports so far, once nothing more happens by itself: a clock that stands still goes on only then.
    async fn exports(&self) -> Vec<usize> {
        sleep(Duration::from_millis(1)).await;
        self.collector.0.0.lock().unwrap().clone()
    }

    fn answer(&self, exports: usize) {
        self.collector.0.1.add_permits(exports);
    }

    fn counts(&self) -> SpanCounts {
        self.tracing.counters().read()
    }

    /// Asks for the end, and waits for it.
    async fn end(self, within: Duration) -> (Vec<usize>, SpanCounts) {
        self.tracing.exporter.stop.send(Some(Instant::now() + within)).unwrap();
        self.worker.await.unwrap();
        let exports = self.collector.0.0.lock().unwrap().clone();
        (exports, self.tracing.counters().read())
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_leaves_at_once_also_after_the_queue_was_full() {
    let mut bench = Bench::start();
    bench.offer(49);
    assert_eq!(bench.exports().await, [0; 0], "one short of a batch waits for the last");
    bench.offer(1);
    assert_eq!(bench.exports().await, [50]);
    // While the collector takes its time, the queue fills up, and what does not fit is dropped.
    bench.offer(170);
    assert_eq!((bench.exports().await.len(), bench.counts().dropped_queue_full), (1, 70));
    bench.answer(1);
    assert_eq!(bench.exports().await, [50; 2]);
    bench.answer(2);
    assert_eq!((bench.exports().await, bench.counts().exported), (vec![50; 3], 150));
    // As before.
    bench.offer(49);
    assert_eq!(bench.exports().await.len(), 3);
    bench.offer(1);
    bench.answer(1);
    assert_eq!((bench.exports().await, bench.counts().exported), (vec![50; 4], 200));
    assert_eq!(bench.counts().dropped(), 70);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_behind_a_full_batch_waits_for_a_batch_of_its_own() {
    let mut bench = Bench::start();
    bench.answer(3);
    bench.offer(70);
    assert_eq!(bench.exports().await, [50]);
    bench.offer(29);
    assert_eq!(bench.exports().await, [50]);
    bench.offer(1);
    assert_eq!(bench.exports().await, [50, 50]);
    assert_eq!(bench.counts().exported, 100);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_batch_leaves_when_the_delay_is_over() {
    let mut bench = Bench::start();
    bench.answer(3);
    bench.offer(3);
    sleep(DELAY - Duration::from_millis(2)).await;
    assert_eq!(bench.exports().await, [0; 0]);
    sleep(Duration::from_millis(2)).await;
    assert_eq!(bench.exports().await, [3]);
    // A full batch on the way begins the delay anew for what it leaves behind.
    sleep(DELAY / 2).await;
    bench.offer(57);
    assert_eq!(bench.exports().await, [3, 50]);
    sleep(DELAY - Duration::from_millis(10)).await;
    assert_eq!(bench.exports().await, [3, 50]);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(bench.exports().await, [3, 50, 7]);
    assert_eq!((bench.counts().exports, bench.counts().exported, bench.counts().offered), (3, 60, 60));
}

#[tokio::test(start_paused = true)]
async fn the_end_exports_everything_that_waits_not_one_batch_only() {
    let mut bench = Bench::start();
    bench.offer(90);
    assert_eq!(bench.exports().await, [50], "on its way, and the collector takes its time");
    bench.offer(50);
    bench.answer(3);
    let (exports, counts) = bench.end(DELAY).await;
    assert_eq!((exports, counts.exported, counts.dropped()), (vec![50, 50, 40], 140, 0), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_comes_in_time_whatever_the_collector_does_and_the_rest_is_counted() {
    let mut bench = Bench::start();
    bench.offer(90);
    assert_eq!(bench.exports().await, [50]);
    bench.offer(50);
    let asked = Instant::now();
    let (exports, counts) = bench.end(DELAY).await;
    assert_eq!(Instant::now(), asked + DELAY);
    assert_eq!((exports, counts.exported, counts.dropped_shutdown), (vec![50], 0, 140), "{counts:?}");
}
