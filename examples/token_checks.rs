//! Measures what checking a token takes: `cargo run --release --example token_checks`.
//!
//! Of each kind a thousand tokens are checked in turns. "First" is the first check of a token, with its signature;
//! "again" is every later one, as for the chunks of an upload.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jumar::auth::{Authenticator, Invitation, JoinKey, JoinSettings, Settings, mint};
use jumar::catalog::sqlite::{SqliteCatalog, Synchronous, migrate};
use jumar::catalog::{ApiKeyRecord, Tokens};
use jumar::clock::Clock;
use jumar::model::{ApiKey, Scope, SpaceName, TokenId};

const TOKENS: usize = 1000;
const ROUNDS: usize = 100;

type Anything<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Anything<()> {
    let folder = std::env::temp_dir().join(format!("jumar-token-checks-{}", std::process::id()));
    let measured = measure_all(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    measured
}

async fn measure_all(folder: &std::path::Path) -> Anything<()> {
    let path = folder.join("jumar.db");
    migrate(&path)?;
    let catalog = Arc::new(SqliteCatalog::open(&path, Synchronous::Normal)?);
    let keys = add_keys(&*catalog).await?;
    println!("{:<8} {:>10} {:>10}", "", "first, µs", "again, µs");
    let secret = JoinKey::Secret(vec![7; 32]);
    measure("API key", &catalog, &secret, keys).await?;
    measure("HS256", &catalog, &secret, mint_many(&secret)?).await?;
    let keys = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/keys");
    let pair = JoinKey::Ed25519 {
        private: Some(keys.join("ed25519.pem")),
        public: keys.join("ed25519.pub.pem"),
    };
    measure("EdDSA", &catalog, &pair, mint_many(&pair)?).await
}

async fn add_keys(catalog: &dyn Tokens) -> Anything<Vec<String>> {
    let now = Clock::system().now();
    let mut keys = Vec::new();
    for _ in 0..TOKENS {
        let key = ApiKey::generate();
        let record = ApiKeyRecord {
            id: TokenId::generate(),
            hash: key.hash(),
            name: "measured".to_owned(),
            scope: Scope::Upload,
            space: None,
            created_at: now,
            expires_at: None,
            revoked_at: None,
        };
        catalog.add_api_key(record).await?;
        keys.push(key.reveal());
    }
    Ok(keys)
}

fn join_settings(key: &JoinKey) -> JoinSettings {
    JoinSettings {
        key: key.clone(),
        issuer: "jumar".to_owned(),
        audience: "jumar".to_owned(),
    }
}

fn mint_many(key: &JoinKey) -> Anything<Vec<String>> {
    let now = Clock::system().now();
    let invitation = Invitation {
        space: SpaceName::default(),
        subject: Some("guest".parse()?),
        scope: Scope::Upload,
        expires_at: now.after(Duration::from_hours(1)),
        max_size: Some(25_000_000),
        max_uploads: Some(100),
        max_bytes: None,
        content_types: vec!["image/*".to_owned(), "video/*".to_owned()],
    };
    (0..TOKENS)
        .map(|_| Ok(mint(&join_settings(key), &invitation, now)?.1))
        .collect()
}

async fn measure(
    what: &str,
    catalog: &Arc<SqliteCatalog>,
    key: &JoinKey,
    tokens: Vec<String>,
) -> Anything<()> {
    let settings = Settings {
        leeway: Duration::from_mins(1),
        refresh: Duration::from_millis(200),
        max_token_bytes: 8192,
        max_verified_tokens: 8192,
        join: Some(join_settings(key)),
        jwt: None,
    };
    let authenticator = Authenticator::start(
        Arc::clone(catalog) as _,
        Clock::system(),
        settings,
        BTreeSet::from([SpaceName::default()]),
    )
    .await?;
    let first = rounds(&authenticator, &tokens, 1).await?;
    let again = rounds(&authenticator, &tokens, ROUNDS).await?;
    println!("{what:<8} {first:>10.1} {again:>10.1}");
    Ok(())
}

/// Microseconds for one check.
async fn rounds(authenticator: &Authenticator, tokens: &[String], rounds: usize) -> Anything<f64> {
    let begun = Instant::now();
    for _ in 0..rounds {
        for token in tokens {
            authenticator.authenticate(token).await?;
        }
    }
    let checks = u32::try_from(rounds * tokens.len())?;
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(checks))
}
