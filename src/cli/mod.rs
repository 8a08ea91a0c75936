//! The command line: `jumar serve|prune|migrate|check|uploads|token`. Without a command it serves.
//!
//! Exit codes: 0 done, 1 it failed, 2 the configuration or the command line is wrong.

mod check;
mod serve;
mod token;
mod uploads;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use self::token::TokenCommand;

use crate::app::{App, AppError, Inherited};
use crate::catalog::sqlite::migrate;
use crate::config::{Config, ConfigError};
use crate::telemetry::init_log;

/// The exit code of a wrong configuration.
const WRONG_CONFIGURATION: u8 = 2;

/// A resumable chunked upload server.
#[derive(Debug, Parser)]
#[command(name = "jumar", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration [default: config.toml of the working folder, if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Listen where others can reach it, though nobody has to prove who they are
    #[arg(long, global = true)]
    insecure: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Serve uploads (the default)
    Serve,
    /// Clean up once: expire, sweep, abort what was left behind
    Prune {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Bring the catalog's schema up to date
    Migrate,
    /// Look at uploads, and end them
    Uploads {
        #[command(subcommand)]
        command: uploads::Uploads,
    },
    /// Try catalog and store, and say what was found
    Check {
        /// Let the pages of `server.cors_origins` upload to the bucket directly: one rule of its CORS is set, others are kept
        #[arg(long)]
        apply_cors: bool,
    },
    /// Say who may upload, beside a running server
    #[command(subcommand)]
    Token(TokenCommand),
}

/// Runs it.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) if is_configuration(&error) => {
            eprintln!("jumar: {error}");
            ExitCode::from(WRONG_CONFIGURATION)
        }
        Err(error) => {
            eprintln!("jumar: {}", in_full(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether the configuration, or a file that it names, is wrong.
fn is_configuration(error: &anyhow::Error) -> bool {
    error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(AppError::Tls(_)))
}

/// An error with all that it came from, on one line. Some errors print their source too; that is not said twice.
fn in_full(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Threads for hashing and for calls that wait on a disk: enough to keep a disk busy, few enough to bound what their stacks take.
const BLOCKING_THREADS: usize = 16;

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(arguments.config.as_deref())?;
    let command = arguments.command.clone().unwrap_or(Command::Serve);
    let mut inherited = Inherited::default();
    if matches!(command, Command::Serve) {
        inherited = Inherited::take()?;
        config.server.listen = inherited.address().unwrap_or(config.server.listen);
        config.check_exposure(arguments.insecure)?;
    }
    init_log(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("the runtime cannot be started")?;
    let done = runtime.block_on(async {
        match command {
            Command::Serve => serve::serve(config, inherited).await,
            Command::Prune { dry_run } => prune(config, dry_run).await,
            Command::Migrate => migrate_catalog(&config),
            Command::Uploads { command } => uploads::run(config, command).await,
            Command::Check { apply_cors } => check::check(&config, apply_cors).await,
            Command::Token(command) => token::run(&config, command).await,
        }
    });
    // What still runs in the background was told to stop, and nothing that was acknowledged depends on it.
    runtime.shutdown_background();
    done
}

async fn prune(config: Config, dry_run: bool) -> anyhow::Result<ExitCode> {
    let app = App::builder(config).build().await?;
    let report = app.engine().prune(dry_run).await?;
    app.engine().stop().await;
    println!("{}", serde_json::to_string(&report)?);
    Ok(ExitCode::SUCCESS)
}

fn migrate_catalog(config: &Config) -> anyhow::Result<ExitCode> {
    let applied = migrate(&config.catalog.path())?;
    if applied.is_empty() {
        println!("the catalog is up to date");
    }
    for migration in applied {
        println!("applied {migration}");
    }
    Ok(ExitCode::SUCCESS)
}
