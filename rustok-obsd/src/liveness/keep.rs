//! Starts a task anew where that is safe.
//!
//! Reads: a task's end. Yields: the next one. Costs: a task beside it.

use std::time::Duration;

/// Runs what `start` makes, and runs it anew `pause` after it panicked (which the panic hook logs and counts) or returned,
/// for as long as the runtime lives. For a task that keeps nothing half-done.
pub async fn keep<F: Future<Output = ()> + Send + 'static>(pause: Duration, start: impl Fn() -> F) {
    loop {
        // Dropped with the runtime, which drops the task as well.
        let _ = tokio::spawn(start()).await;
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_task_that_panics_is_started_anew() {
        let (runs, (done, mut over)) = (Arc::new(AtomicUsize::new(0)), tokio::sync::mpsc::channel(1));
        let counted = Arc::clone(&runs);
        let kept = keep(Duration::from_millis(1), move || {
            let (runs, done) = (Arc::clone(&counted), done.clone());
            async move {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                assert!(run >= 2, "on purpose, twice");
                let _ = done.send(run).await;
                std::future::pending::<()>().await;
            }
        });
        tokio::select! {
            () = kept => {}
            run = over.recv() => assert_eq!(run, Some(2)),
        }
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }
}
