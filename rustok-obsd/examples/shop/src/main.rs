//! `shop`: the server's command line.

mod server;

use anyhow::Context as _;
use clap::Parser;
use example_common::serve::ServeArgs;
use server::{App, otel, router};

/// A small RusToK look-alike.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    serve: ServeArgs,
    /// Trace from inside, by tracing-opentelemetry, to this OTLP/gRPC endpoint
    #[arg(long, value_name = "URL")]
    otel: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.serve.runtime()?.block_on(run(&args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let provider = args.otel.as_deref().map(otel::install).transpose()?;
    let otel = provider.is_some();
    let served = args
        .serve
        .serve(async |addr, sink| {
            let app = App::start(&args.serve.database_url, args.serve.pool, addr).await?;
            Ok(router(app, sink, otel))
        })
        .await;
    if let Some(provider) = provider {
        // Blocks until the last batch is sent, which needs the runtime.
        tokio::task::spawn_blocking(move || provider.shutdown()).await?.context("cannot send the last spans")?;
    }
    served
}
