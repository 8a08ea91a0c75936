//! `jumar serve`: until it is told to end.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, Inherited};
use crate::config::Config;

/// The exit code when a second signal cuts the end short.
const CUT_SHORT: i32 = 1;

pub(super) async fn serve(config: Config, inherited: Inherited) -> anyhow::Result<ExitCode> {
    // Before anything listens, so that no signal comes too early to be heard.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be heard")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be heard")?;
    let builder = App::builder(config).inherited(inherited);
    let running = builder.build().await?.serve().await?;
    either(&mut terminate, &mut interrupt).await;
    running.drain();
    tokio::select! {
        () = running.finished() => Ok(ExitCode::SUCCESS),
        () = either(&mut terminate, &mut interrupt) => {
            tracing::warn!("told twice to end: leaving at once");
            std::process::exit(CUT_SHORT)
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
