//! A server's command line, start and end.
//!
//! Reads: the command line and signals. Yields: a served router, and a ground truth that is whole when the server ends
//! in order: it waits for open requests, then for what outlives them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::observe;
use crate::truth::{Sink, Writer};

/// How long open requests may take after a signal, and then what outlives them.
const DRAIN: Duration = Duration::from_secs(10);

/// The command line that all servers have.
#[derive(clap::Args, Debug)]
pub struct ServeArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:3000")]
    pub listen: SocketAddr,
    /// postgres://USER:PASSWORD@HOST:PORT/DATABASE[?sslmode=…]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Write what each request was, as JSON lines, to this file
    #[arg(long, value_name = "FILE")]
    pub ground_truth: Option<PathBuf>,
    /// Tokio worker threads [default: one per CPU]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
    /// Most connections of the database pool
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub pool: u32,
}

impl ServeArgs {
    /// The runtime that is asked for.
    ///
    /// # Errors
    /// If its threads cannot be started.
    pub fn runtime(&self) -> anyhow::Result<tokio::runtime::Runtime> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(workers) = self.workers {
            runtime.worker_threads(workers as usize);
        }
        Ok(runtime.enable_all().build()?)
    }

    /// Listens, has the router made for that address, and serves until SIGTERM or SIGINT. The router adds
    /// [`observe::record`] where it is given a sink.
    ///
    /// # Errors
    /// If the address or the ground truth cannot be used, the router not be made, or accepting fails for good.
    pub async fn serve(
        &self,
        router: impl AsyncFnOnce(SocketAddr, Option<Sink>) -> anyhow::Result<Router>,
    ) -> anyhow::Result<()> {
        // Before anything else, so that no signal is missed.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let writer = self.ground_truth.as_deref().map(Writer::create).transpose()?;
        let listener =
            TcpListener::bind(self.listen).await.with_context(|| format!("cannot listen on {}", self.listen))?;
        let addr = listener.local_addr()?;
        let router = router(addr, writer.as_ref().map(Writer::sink)).await?;
        println!("listening on http://{addr}");
        let served = serve(listener, router, stop).await;
        if let Some(writer) = writer {
            let (sink, end) = (writer.sink(), Instant::now() + DRAIN);
            while sink.open() > 0 && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            writer.finish()?;
        }
        served
    }
}

/// Serves until `stop` is ready; then lets open requests end, for 10 s at most.
async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let (stopping, mut stopped) = tokio::sync::watch::channel(false);
    let service = router.into_make_service_with_connect_info::<observe::Ends>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        stop.await;
        stopping.send_replace(true);
    });
    let too_long = async {
        // The sender is kept until it has sent.
        let _ = stopped.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = too_long => Ok(()),
    }
}
