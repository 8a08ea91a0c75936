//! An application's own tokens, with its claims mapped to ours.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use sha2::{Digest as _, Sha256};

use super::claims::{Claims, missing};
use super::jwks::{KeySource, Keys};
use super::jws::Jws;
use super::{AuthError, Refused};
use crate::model::caller::Grant;
use crate::model::{Caller, Length, Scope, SpaceName, Subject, TokenId};

/// How an application's tokens may be signed: with a key of which only the application has the private half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum JwtAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384.
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl From<JwtAlgorithm> for Algorithm {
    fn from(algorithm: JwtAlgorithm) -> Self {
        match algorithm {
            JwtAlgorithm::Rs256 => Self::RS256,
            JwtAlgorithm::Ps256 => Self::PS256,
            JwtAlgorithm::Es256 => Self::ES256,
            JwtAlgorithm::Es384 => Self::ES384,
            JwtAlgorithm::EdDsa => Self::EdDSA,
        }
    }
}

/// Which tokens of an application are taken, and what they mean.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audience: String,
    /// How they may be signed.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Where the keys are found.
    pub keys: KeySource,
    /// How often they are looked for.
    pub refresh: Duration,
    /// How long not again after a key was looked for that is not among them.
    pub min_refresh: Duration,
    /// How long getting them may take.
    pub fetch_timeout: Duration,
    /// The claim that says who it is.
    pub subject_claim: String,
    /// The claim that names the space; `None`: the default space.
    pub space_claim: Option<String>,
    /// The claim that lists scopes; `None`: the scope is to upload.
    pub scope_claim: Option<String>,
    /// The claim that limits the size of an upload, in bytes.
    pub max_size_claim: Option<String>,
}

/// Verifies an application's tokens.
pub(super) struct Jwt {
    settings: JwtSettings,
    keys: Arc<Keys>,
}

impl Jwt {
    /// Gets the keys for the first time. That a URL is away is no error: it is tried again.
    pub(super) async fn open(settings: JwtSettings) -> Result<Self, AuthError> {
        let keys = Keys::open(&settings).await?;
        Ok(Self {
            settings,
            keys: Arc::new(keys),
        })
    }

    pub(super) fn is_issuer(&self, issuer: &str) -> bool {
        self.settings.issuer == issuer
    }

    pub(super) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Who brings a token that was signed with one of the application's keys.
    pub(super) async fn verify(&self, jws: &Jws<'_>) -> Result<Caller, Refused> {
        let algorithm = jws.header.algorithm()?;
        let mut taken = self.settings.algorithms.iter().copied();
        if !taken.any(|taken| Algorithm::from(taken) == algorithm) {
            return Err(Refused::WrongAlgorithm);
        }
        let key = self
            .keys
            .find(jws.header.key_id.as_deref(), algorithm)
            .await?;
        jws.verify(&key, algorithm)?;
        jws.claims.check_audience(&self.settings.audience)?;
        self.caller(&jws.claims)
    }

    fn caller(&self, claims: &Claims) -> Result<Caller, Refused> {
        let settings = &self.settings;
        let subject_claim = settings.subject_claim.as_str();
        let subject =
            super::subject(claims, subject_claim)?.ok_or_else(|| missing(subject_claim))?;
        let token = match claims.word("jti")? {
            Some(id) => id,
            None => id_of(&subject),
        };
        let space = match settings.space_claim.as_deref() {
            Some(name) => claims.word(name)?.ok_or_else(|| missing(name))?,
            None => SpaceName::default(),
        };
        let scopes = match settings.scope_claim.as_deref() {
            // Words of others, like `openid`, stand beside ours.
            Some(name) => {
                let names = claims.words(name)?.unwrap_or_default();
                names.iter().filter_map(|name| name.parse().ok()).collect()
            }
            None => [Scope::Upload].into_iter().collect(),
        };
        let max_size = match settings.max_size_claim.as_deref() {
            Some(name) => claims.count(name)?.map(Length),
            None => None,
        };
        Ok(Caller {
            subject: Some(subject),
            token: Some(token),
            device: None,
            few_connections: false,
            guest: true,
            space,
            bound: true,
            scopes,
            grant: Grant {
                max_size,
                ..Grant::default()
            },
        })
    }
}

/// What a token without `jti` is counted and revoked by: all of a subject's tokens are one.
fn id_of(subject: &Subject) -> TokenId {
    format!("sub:{subject}").parse().unwrap_or_else(|_| {
        let hash = hex::encode(Sha256::digest(subject.as_str()));
        let id = format!("sub:{hash}").parse();
        id.expect("a hash in hex is visible ASCII, and short enough")
    })
}
