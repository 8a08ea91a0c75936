//! `[auth]`: who has to say who they are, and what counts as saying so.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Secret;
use super::check::{Checked, ensure};
use crate::auth::{JoinAlgorithm, JwtAlgorithm};

/// The shortest secret that HS256 is safe with (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Whether a token is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Whoever brings none may upload.
    Open,
    /// Whoever brings none may do nothing.
    Required,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Whether a token is needed.
    pub mode: AuthMode,
    /// By how much clocks may differ.
    pub leeway_secs: u64,
    /// How long a link to content is good for at least; at most twice as long.
    pub link_ttl_secs: u64,
    /// How often the catalog is asked for new keys and revocations.
    pub refresh_ms: u64,
    /// The longest token that is read.
    pub max_token_bytes: usize,
    /// How many signed tokens are remembered as verified.
    pub max_verified_tokens: usize,
    /// Tokens for guests.
    pub join: Join,
    /// An application's own tokens.
    pub jwt: Jwt,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::Open,
            leeway_secs: 60,
            link_ttl_secs: 3600,
            refresh_ms: 200,
            max_token_bytes: 8192,
            max_verified_tokens: 8192,
            join: Join::default(),
            jwt: Jwt::default(),
        }
    }
}

/// `[auth.join]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Join {
    /// How they are signed.
    pub algorithm: JoinAlgorithm,
    /// The secret for HS256.
    pub secret: Secret,
    /// The private key for EdDSA, only to mint.
    pub private_key_file: PathBuf,
    /// The public key for EdDSA.
    pub public_key_file: PathBuf,
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audience: String,
}

impl Default for Join {
    fn default() -> Self {
        Self {
            algorithm: JoinAlgorithm::Hs256,
            secret: Secret::default(),
            private_key_file: PathBuf::new(),
            public_key_file: PathBuf::new(),
            issuer: "jumar".to_owned(),
            audience: "jumar".to_owned(),
        }
    }
}

impl Join {
    /// Whether there is a key, so that such tokens are taken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        match self.algorithm {
            JoinAlgorithm::Hs256 => !self.secret.is_empty(),
            JoinAlgorithm::EdDsa => is_set(&self.public_key_file),
        }
    }
}

/// `[auth.jwt]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// `iss`; empty: no such tokens are taken.
    pub issuer: String,
    /// `aud`
    pub audience: String,
    /// How they may be signed.
    pub algorithms: Vec<JwtAlgorithm>,
    /// A JWKS, or a public key in PEM.
    pub keys_file: PathBuf,
    /// Where a JWKS is found.
    pub jwks_url: String,
    /// How often the keys are read again.
    pub refresh_secs: u64,
    /// How long not again after a key was looked for in vain.
    pub min_refresh_secs: u64,
    /// How long getting the keys may take.
    pub fetch_timeout_secs: u64,
    /// The claim that says who it is.
    pub subject_claim: String,
    /// The claim that names the space; empty: the default space.
    pub space_claim: String,
    /// The claim that lists scopes; empty: to upload.
    pub scope_claim: String,
    /// The claim with the largest size of an upload, in bytes; empty: no limit of the token's own.
    pub max_size_claim: String,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            algorithms: vec![
                JwtAlgorithm::Rs256,
                JwtAlgorithm::Es256,
                JwtAlgorithm::EdDsa,
            ],
            keys_file: PathBuf::new(),
            jwks_url: String::new(),
            refresh_secs: 300,
            min_refresh_secs: 10,
            fetch_timeout_secs: 5,
            subject_claim: "sub".to_owned(),
            space_claim: String::new(),
            scope_claim: String::new(),
            max_size_claim: String::new(),
        }
    }
}

impl Jwt {
    /// Whether such tokens are taken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.issuer.is_empty()
    }
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

impl Auth {
    pub(super) fn check(&self) -> Checked {
        ensure(
            self.leeway_secs <= 3600,
            "auth.leeway_secs",
            "has to be at most 3600",
        )?;
        ensure(
            self.refresh_ms >= 10,
            "auth.refresh_ms",
            "has to be at least 10",
        )?;
        ensure(
            self.max_token_bytes >= 1024,
            "auth.max_token_bytes",
            "has to be at least 1024",
        )?;
        self.check_join()?;
        self.check_jwt()
    }

    fn check_join(&self) -> Checked {
        let join = &self.join;
        ensure(
            join.secret.is_empty() || join.secret.reveal().len() >= MIN_SECRET_BYTES,
            "auth.join.secret",
            format!(
                "has to have at least {MIN_SECRET_BYTES} bytes; make one with `openssl rand -base64 48`"
            ),
        )?;
        let (files, secret) = (
            is_set(&join.public_key_file) || is_set(&join.private_key_file),
            !join.secret.is_empty(),
        );
        match join.algorithm {
            JoinAlgorithm::Hs256 => ensure(
                !files,
                "auth.join.algorithm",
                "has to be \"EdDSA\" where keys are in files",
            )?,
            JoinAlgorithm::EdDsa => {
                ensure(
                    !secret,
                    "auth.join.algorithm",
                    "has to be \"HS256\" where there is a secret",
                )?;
                ensure(
                    is_set(&join.public_key_file),
                    "auth.join.public_key_file",
                    "has to be set where auth.join.algorithm is \"EdDSA\"",
                )?;
            }
        }
        for (key, text) in [
            ("auth.join.issuer", &join.issuer),
            ("auth.join.audience", &join.audience),
        ] {
            ensure(!text.is_empty(), key, "has to be set")?;
        }
        Ok(())
    }

    fn check_jwt(&self) -> Checked {
        let jwt = &self.jwt;
        for (key, value) in [
            ("auth.jwt.refresh_secs", jwt.refresh_secs),
            ("auth.jwt.min_refresh_secs", jwt.min_refresh_secs),
            ("auth.jwt.fetch_timeout_secs", jwt.fetch_timeout_secs),
        ] {
            ensure(value >= 1, key, "has to be at least 1")?;
        }
        let (file, url) = (is_set(&jwt.keys_file), !jwt.jwks_url.is_empty());
        ensure(
            jwt.is_on() || !(file || url),
            "auth.jwt.issuer",
            "has to be set, too: the `iss` of the tokens that these keys verify",
        )?;
        if !jwt.is_on() {
            return Ok(());
        }
        ensure(
            file != url,
            "auth.jwt.jwks_url",
            "either this or auth.jwt.keys_file has to be set, and not both",
        )?;
        ensure(
            !url || ["http://", "https://"]
                .iter()
                .any(|scheme| jwt.jwks_url.starts_with(scheme)),
            "auth.jwt.jwks_url",
            "has to begin with http:// or https://",
        )?;
        ensure(
            !jwt.audience.is_empty(),
            "auth.jwt.audience",
            "has to be set, too: tokens of this issuer for others may not be used here",
        )?;
        ensure(
            !jwt.algorithms.is_empty(),
            "auth.jwt.algorithms",
            "has to name at least one",
        )?;
        ensure(
            !jwt.subject_claim.is_empty(),
            "auth.jwt.subject_claim",
            "has to be set",
        )?;
        ensure(
            !self.join.is_on() || jwt.issuer != self.join.issuer,
            "auth.jwt.issuer",
            "has to differ from auth.join.issuer: it decides how a token is verified",
        )
    }
}
