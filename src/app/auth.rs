//! What the configuration says of tokens, for those who check and make them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::auth::{JoinAlgorithm, JoinKey, JoinSettings, JwtSettings, KeySource, Settings};
use crate::config::{Auth, Config};

/// Which tokens a server takes.
#[must_use]
pub fn auth_settings(config: &Config) -> Settings {
    let auth = &config.auth;
    Settings {
        leeway: Duration::from_secs(auth.leeway_secs),
        refresh: auth_refresh(config),
        max_token_bytes: auth.max_token_bytes,
        max_verified_tokens: auth.max_verified_tokens,
        join: join_settings(config),
        jwt: jwt_settings(auth),
    }
}

/// How often servers look for what has changed.
#[must_use]
pub fn auth_refresh(config: &Config) -> Duration {
    Duration::from_millis(config.auth.refresh_ms)
}

/// Which join tokens are taken, and what they are made with; `None` without a key.
#[must_use]
pub fn join_settings(config: &Config) -> Option<JoinSettings> {
    let join = &config.auth.join;
    join.is_on().then(|| JoinSettings {
        key: match join.algorithm {
            JoinAlgorithm::Hs256 => JoinKey::Secret(join.secret.reveal().into()),
            JoinAlgorithm::EdDsa => JoinKey::Ed25519 {
                private: given_path(&join.private_key_file),
                public: join.public_key_file.clone(),
            },
        },
        issuer: join.issuer.clone(),
        audience: join.audience.clone(),
    })
}

fn jwt_settings(auth: &Auth) -> Option<JwtSettings> {
    let jwt = &auth.jwt;
    jwt.is_on().then(|| JwtSettings {
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
        algorithms: jwt.algorithms.clone(),
        keys: match given_path(&jwt.keys_file) {
            Some(file) => KeySource::File(file),
            None => KeySource::Url(jwt.jwks_url.clone()),
        },
        refresh: Duration::from_secs(jwt.refresh_secs),
        min_refresh: Duration::from_secs(jwt.min_refresh_secs),
        fetch_timeout: Duration::from_secs(jwt.fetch_timeout_secs),
        subject_claim: jwt.subject_claim.clone(),
        space_claim: given(&jwt.space_claim),
        scope_claim: given(&jwt.scope_claim),
        max_size_claim: given(&jwt.max_size_claim),
    })
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn given_path(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}
