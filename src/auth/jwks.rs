//! The keys of an application: read again and again, and kept when they cannot be read.

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::fetch::{FetchError, Fetcher, MAX_KEYS_BYTES};
use super::jwt::JwtSettings;
use super::{AuthError, Refused};

/// Where keys are found: a JWKS, or one public key in PEM.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At an `http` or `https` URL.
    Url(String),
}

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error("the file cannot be read: {0}")]
    File(#[from] std::io::Error),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("it is longer than {MAX_KEYS_BYTES} bytes")]
    TooLong,
    #[error("it is neither a JWKS nor a public key in PEM")]
    Unreadable,
    #[error("it has no key that could be used")]
    Useless,
}

enum Source {
    File(PathBuf),
    Url(Box<Fetcher>),
}

impl Source {
    async fn read(&self) -> Result<Bytes, KeysError> {
        match self {
            Self::File(path) => Ok(tokio::fs::read(path).await?.into()),
            Self::Url(fetcher) => Ok(fetcher.fetch().await?),
        }
    }
}

/// The keys as they were last read.
pub(super) struct Keys {
    source: Source,
    refresh: Duration,
    min_refresh: Duration,
    current: RwLock<Arc<KeySet>>,
    /// Goes up whenever the keys change.
    generation: AtomicU64,
    /// Held by the one who reads; when one last did so for a key that was not known.
    turn: Arc<Mutex<Option<Instant>>>,
}

impl Keys {
    pub(super) async fn open(settings: &JwtSettings) -> Result<Self, AuthError> {
        let source = match &settings.keys {
            KeySource::File(path) => Source::File(path.clone()),
            KeySource::Url(url) => {
                let fetcher = Fetcher::new(url, settings.fetch_timeout);
                Source::Url(Box::new(fetcher.map_err(|error| keys_error(url, error))?))
            }
        };
        let keys = Self {
            source,
            refresh: settings.refresh,
            min_refresh: settings.min_refresh,
            current: RwLock::default(),
            generation: AtomicU64::new(0),
            turn: Arc::default(),
        };
        match (keys.read().await, &settings.keys) {
            (Err(error), KeySource::File(path)) => {
                Err(keys_error(&path.display().to_string(), error))
            }
            (Err(error), KeySource::Url(_)) => {
                warn(&error);
                Ok(keys)
            }
            (Ok(()), _) => Ok(keys),
        }
    }

    /// Reads the keys again and again; more often as long as there are none.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            let pause = if self.current().0.is_empty() {
                self.min_refresh
            } else {
                self.refresh
            };
            tokio::time::sleep(pause).await;
            let _turn = self.turn.lock().await;
            if let Err(error) = self.read().await {
                warn(&error);
            }
        }
    }

    /// Goes up whenever the keys change, so that what was verified with the old ones is verified again.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The key that a token names. One that is not known is looked for, now and then.
    pub(super) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, Refused> {
        if let Some(key) = self.current().find(id, algorithm) {
            return Ok(key.clone());
        }
        self.look_again().await;
        let current = self.current();
        if current.0.is_empty() {
            return Err(Refused::KeysAway);
        }
        let found = current.find(id, algorithm);
        found.cloned().ok_or(Refused::UnknownKeyId)
    }

    /// Reads once for all who wait, and not again for a while. Its own task, so that a client that goes stops nothing.
    async fn look_again(self: &Arc<Self>) {
        let mut last = Arc::clone(&self.turn).lock_owned().await;
        if last.is_some_and(|last| last.elapsed() < self.min_refresh) {
            return;
        }
        *last = Some(Instant::now());
        let keys = Arc::clone(self);
        let reading = tokio::spawn(async move {
            let _turn = last;
            if let Err(error) = keys.read().await {
                warn(&error);
            }
        });
        drop(reading.await);
    }

    async fn read(&self) -> Result<(), KeysError> {
        let set = KeySet::parse(&self.source.read().await?)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if **current != set {
            *current = Arc::new(set);
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn current(&self) -> Arc<KeySet> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }
}

fn keys_error(place: &str, source: KeysError) -> AuthError {
    AuthError::Keys {
        place: place.to_owned(),
        source: source.into(),
    }
}

fn warn(error: &KeysError) {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    tracing::warn!(%error, %cause, "the keys of auth.jwt cannot be read now; those that are known go on");
}

/// Keys that may verify.
#[derive(Default, PartialEq)]
struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    verifying: DecodingKey,
    /// What it was read from, to see whether it has changed.
    text: String,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl KeySet {
    fn parse(text: &[u8]) -> Result<Self, KeysError> {
        if text.len() > MAX_KEYS_BYTES {
            return Err(KeysError::TooLong);
        }
        let keys: Vec<Key> = match serde_json::from_slice::<Value>(text) {
            Ok(json) => {
                let keys = json.get("keys").and_then(Value::as_array);
                let keys = keys.ok_or(KeysError::Unreadable)?;
                keys.iter().filter_map(from_jwk).collect()
            }
            Err(_) => vec![from_pem(text).ok_or(KeysError::Unreadable)?],
        };
        if keys.is_empty() {
            return Err(KeysError::Useless);
        }
        Ok(Self(keys))
    }

    /// The key of that name that may be used so. Where there is none, or no name, it can only mean a key without a name, and
    /// without a name any, as long as there is just one.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let able = || {
            self.0
                .iter()
                .filter(|key| key.algorithms.contains(&algorithm))
        };
        if let Some(named) = able().find(|key| id.is_some() && key.id.as_deref() == id) {
            return Some(&named.verifying);
        }
        let mut meant = able().filter(|key| id.is_none() || key.id.is_none());
        let first = meant.next()?;
        meant.next().is_none().then_some(&first.verifying)
    }
}

/// A key of a set, unless it is for something else than verifying what we take.
fn from_jwk(json: &Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
    let common = &jwk.common;
    let usage = common.public_key_use.as_ref();
    if usage.is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let able: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[Algorithm::RS256, Algorithm::PS256],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => return None,
    };
    let only = common.key_algorithm;
    let allowed =
        |algorithm: &Algorithm| only.is_none_or(|only| only == KeyAlgorithm::from(*algorithm));
    let algorithms: Vec<Algorithm> = able.iter().copied().filter(allowed).collect();
    if algorithms.is_empty() {
        return None;
    }
    Some(Key {
        id: common.key_id.clone(),
        algorithms,
        verifying: DecodingKey::from_jwk(&jwk).ok()?,
        text: json.to_string(),
    })
}

/// An uncompressed point of P-256, as it stands in a key.
const P256_POINT_BYTES: usize = 65;

fn from_pem(pem: &[u8]) -> Option<Key> {
    let of = |verifying, algorithms: &[Algorithm]| Key {
        id: None,
        algorithms: algorithms.to_vec(),
        verifying,
        text: String::from_utf8_lossy(pem).into_owned(),
    };
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return Some(of(key, &[Algorithm::RS256, Algorithm::PS256]));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let small = key.try_get_as_bytes().ok()?.len() == P256_POINT_BYTES;
        let algorithm = if small {
            Algorithm::ES256
        } else {
            Algorithm::ES384
        };
        return Some(of(key, &[algorithm]));
    }
    let key = DecodingKey::from_ed_pem(pem).ok()?;
    Some(of(key, &[Algorithm::EdDSA]))
}
