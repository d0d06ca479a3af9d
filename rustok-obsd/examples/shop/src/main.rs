//! `shop`: the server's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use shop::server::{App, otel, router, serve};
use shop::truth::Writer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A small RusToK look-alike.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// postgres://USER:PASSWORD@HOST:PORT/DATABASE[?sslmode=…]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Write what each request was, as JSON lines, to this file
    #[arg(long, value_name = "FILE")]
    ground_truth: Option<PathBuf>,
    /// Trace from inside, by tracing-opentelemetry, to this OTLP/gRPC endpoint
    #[arg(long, value_name = "URL")]
    otel: Option<String>,
    /// Tokio worker threads [default: one per CPU]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
    /// Most connections of the database pool
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pool: u32,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        runtime.worker_threads(workers as usize);
    }
    runtime.enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    // Before anything else, so that no signal is missed.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let writer = args.ground_truth.as_deref().map(Writer::create).transpose()?;
    let provider = args.otel.as_deref().map(otel::install).transpose()?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let addr = listener.local_addr()?;
    let app = App::start(&args.database_url, args.pool, addr).await?;
    println!("listening on http://{addr}");
    let served = serve(listener, router(app, writer.as_ref().map(Writer::sink), provider.is_some()), stop).await;
    if let Some(provider) = provider {
        // Blocks until the last batch is sent, which needs the runtime.
        tokio::task::spawn_blocking(move || provider.shutdown()).await?.context("cannot send the last spans")?;
    }
    if let Some(writer) = writer {
        writer.finish()?;
    }
    served
}
