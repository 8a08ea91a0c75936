//! Tokens, without HTTP: who brings one, and why it is not taken.

mod api_keys;
mod join;
mod jwt;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jumar::auth::{AuthError, Authenticator, JoinKey, JoinSettings, Refused, Settings};
use jumar::catalog::Tokens;
use jumar::catalog::sqlite::{SqliteCatalog, Synchronous, migrate};
use jumar::clock::Clock;
use jumar::model::{Caller, SpaceName, Timestamp};
use tempfile::TempDir;

use crate::support::tokens::SECRET;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const LEEWAY: Duration = Duration::from_mins(1);

/// An authenticator over a catalog.
struct Kit {
    authenticator: Authenticator,
    clock: Clock,
    folder: TempDir,
}

impl Kit {
    /// One that takes join tokens.
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::try_with(change).await.expect("started")
    }

    async fn try_with(change: impl FnOnce(&mut Settings)) -> Result<Self, AuthError> {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("jumar.db");
        migrate(&path).expect("migrated");
        let clock = Clock::manual(NOW);
        let mut settings = Settings {
            leeway: LEEWAY,
            refresh: Duration::from_millis(10),
            max_token_bytes: 8192,
            max_verified_tokens: 64,
            join: Some(join_settings(JoinKey::Secret(SECRET.into()))),
            jwt: None,
        };
        change(&mut settings);
        let spaces = ["default", "photos"].map(|name| name.parse::<SpaceName>().expect("a name"));
        let authenticator = Authenticator::start(
            Arc::new(open(&path)),
            clock.clone(),
            settings,
            BTreeSet::from(spaces),
        );
        Ok(Self {
            authenticator: authenticator.await?,
            clock,
            folder,
        })
    }

    fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// The catalog as another process has it open.
    fn outsider(&self) -> impl Tokens {
        open(&self.folder.path().join("jumar.db"))
    }

    async fn ask(&self, token: &str) -> Result<Caller, Refused> {
        self.authenticator.authenticate(token).await
    }

    async fn refused(&self, token: &str) -> Refused {
        match self.ask(token).await {
            Err(refused) => refused,
            Ok(caller) => panic!("taken for {caller:?}"),
        }
    }

    /// Waits until a token is taken, or refused.
    async fn until(&self, token: &str, expected: Result<(), Refused>) {
        for _ in 0..1000 {
            if self.ask(token).await.map(drop) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {expected:?}: {:?}", self.ask(token).await);
    }
}

fn open(path: &Path) -> SqliteCatalog {
    SqliteCatalog::open(path, Synchronous::Normal).expect("opened")
}

fn join_settings(key: JoinKey) -> JoinSettings {
    JoinSettings {
        key,
        issuer: "jumar".to_owned(),
        audience: "jumar".to_owned(),
    }
}
