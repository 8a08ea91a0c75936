//! The log.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};

/// Libraries whose everyday news are no news to an operator.
const QUIET: &str = "tokio_cron_scheduler=warn";

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `RUST_LOG` or `log.level` is no filter.
    #[error("the log's filter cannot be read: {0}")]
    Filter(String),
    /// The process has a log already.
    #[error("the log is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Whether `level` can be used as a filter, and if not, why.
pub fn check_filter(level: &str) -> Result<(), String> {
    parse(level).map(|_| ())
}

fn parse(level: &str) -> Result<EnvFilter, String> {
    // A lone unknown word would be taken as the name of a target, and nothing would ever be logged.
    let word = level.trim();
    if !word.contains(['=', ',', ':', '['])
        && !matches!(
            word.to_ascii_lowercase().as_str(),
            "off" | "error" | "warn" | "info" | "debug" | "trace"
        )
    {
        return Err(format!("{word:?} is no level"));
    }
    EnvFilter::try_new(level).map_err(|error| error.to_string())
}

/// Starts logging to the standard error. `RUST_LOG` comes before the configuration.
pub fn init_log(config: &Log) -> Result<(), LogError> {
    let level = std::env::var("RUST_LOG")
        .ok()
        .filter(|level| !level.is_empty())
        .unwrap_or_else(|| config.level.clone());
    // What is asked for comes last, so that it wins.
    let directives = format!("{QUIET},{level}");
    let filter =
        EnvFilter::try_new(&directives).map_err(|error| LogError::Filter(error.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_writer(std::io::stderr),
            )
            .try_init()?,
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false)
                    .with_writer(std::io::stderr),
            )
            .try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_checked() {
        for good in ["info", "WARN", "info,jumar=debug", "jumar::engine=trace"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["loud", "", "jumar=loud"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }
}
