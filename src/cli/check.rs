//! `jumar check`: a line for everything that was tried.

use std::process::ExitCode;
use std::time::Duration;

use super::in_full;
use crate::app::{open_catalog, open_store, open_tls};
use crate::catalog::Catalog as _;
use crate::config::Config;
use crate::store::Store;
use crate::store::check::{Finding, Outcome};

/// How long the catalog has for a small commit.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn check(config: &Config, apply_cors: bool) -> anyhow::Result<ExitCode> {
    let mut sound = tell("catalog", &catalog(config).await);
    if config.tls.is_on() {
        sound &= tell("tls", &certificate(config).await);
    }
    match open_store(config).await {
        Ok(store) => {
            if apply_cors {
                sound &= tell("store", &allow_browsers(config, &*store).await);
            }
            for finding in store.check().await {
                sound &= tell("store", &finding);
            }
            if let Some(direct) = store.direct() {
                let finding = direct.check_browsers(&config.server.cors_origins).await;
                sound &= tell("store", &finding);
            }
        }
        Err(error) => {
            let outcome = Outcome::Broken(in_full(&error.into()));
            sound &= tell(
                "store",
                &Finding {
                    what: "open",
                    outcome,
                },
            );
        }
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn allow_browsers(config: &Config, store: &dyn Store) -> Finding {
    let outcome = match store.direct() {
        None => Outcome::Without("there are no direct uploads to this store".into()),
        Some(direct) => match direct.allow_browsers(&config.server.cors_origins).await {
            Ok(done) => Outcome::Works(done),
            Err(error) => Outcome::Broken(format!(
                "{error}; see the permissions to get and put the bucket's CORS"
            )),
        },
    };
    Finding {
        what: "apply CORS",
        outcome,
    }
}

async fn catalog(config: &Config) -> Finding {
    let outcome = match open_catalog(config) {
        Err(error) => Outcome::Broken(in_full(&error.into())),
        Ok(catalog) => match catalog.ping(COMMIT_WITHIN).await {
            Ok(()) => Outcome::Works(String::new()),
            Err(error) => Outcome::Broken(error.to_string()),
        },
    };
    Finding {
        what: "open and commit",
        outcome,
    }
}

async fn certificate(config: &Config) -> Finding {
    let outcome = match open_tls(config).await {
        Ok(_) => Outcome::Works(String::new()),
        Err(error) => Outcome::Broken(error.to_string()),
    };
    Finding {
        what: "read the certificate and its key",
        outcome,
    }
}

/// Prints a finding; whether the server can work with it.
fn tell(part: &str, finding: &Finding) -> bool {
    let (word, text, sound) = match &finding.outcome {
        Outcome::Works(text) => ("ok", text, true),
        Outcome::Without(text) => ("without", text, true),
        Outcome::Broken(text) => ("BROKEN", text, false),
    };
    let separator = if text.is_empty() { "" } else { ": " };
    println!("{word:<8} {part}: {}{separator}{text}", finding.what);
    sound
}
