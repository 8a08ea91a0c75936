//! Join tokens: what a guest is given, minted here or by an application that has the same key.

use std::fmt;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::Serialize;

use super::claims::{Claims, malformed, missing};
use super::jws::Jws;
use super::{AuthError, Refused, read_file};
use crate::model::caller::{Grant, MediaTypes};
use crate::model::{Caller, Length, Scope, SpaceName, Subject, Timestamp, TokenId};

/// How join tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum JoinAlgorithm {
    /// HMAC with SHA-256: whoever verifies can mint.
    #[serde(rename = "HS256")]
    Hs256,
    /// Ed25519: the server needs the public key alone.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// What join tokens are signed with.
#[derive(Clone)]
pub enum JoinKey {
    /// The bytes of a secret, for HS256.
    Secret(Vec<u8>),
    /// Files with PEM, for EdDSA.
    Ed25519 {
        /// PKCS 8. Only for minting.
        private: Option<PathBuf>,
        /// For verifying.
        public: PathBuf,
    },
}

impl fmt::Debug for JoinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinKey(…)")
    }
}

/// Which join tokens are taken.
#[derive(Debug, Clone)]
pub struct JoinSettings {
    /// What they are signed with.
    pub key: JoinKey,
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audience: String,
}

impl JoinSettings {
    fn algorithm(&self) -> Algorithm {
        match &self.key {
            JoinKey::Secret(_) => Algorithm::HS256,
            JoinKey::Ed25519 { .. } => Algorithm::EdDSA,
        }
    }
}

/// What a join token is to allow.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// Where to.
    pub space: SpaceName,
    /// For whom; `None` if for whoever has the token.
    pub subject: Option<Subject>,
    /// What for: to upload or to read.
    pub scope: Scope,
    /// Until when.
    pub expires_at: Timestamp,
    /// The largest upload, in bytes.
    pub max_size: Option<u64>,
    /// How many uploads, in all.
    pub max_uploads: Option<u64>,
    /// How many bytes, in all.
    pub max_bytes: Option<u64>,
    /// Of which media types; none named: of any.
    pub content_types: Vec<String>,
}

/// The claims of a join token as we write them.
#[derive(Serialize)]
struct Written<'a> {
    iss: &'a str,
    aud: &'a str,
    jti: &'a str,
    space: &'a str,
    scope: &'a str,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_uploads: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    content_types: &'a [String],
}

/// Signs a join token; its id, by which it is revoked, and the token. Blocks for a key in a file.
pub fn mint(
    settings: &JoinSettings,
    invitation: &Invitation,
    now: Timestamp,
) -> Result<(TokenId, String), AuthError> {
    let key = match &settings.key {
        JoinKey::Secret(secret) => EncodingKey::from_secret(secret),
        JoinKey::Ed25519 { private, .. } => {
            let file = private.as_deref().ok_or(AuthError::NothingToMintWith)?;
            EncodingKey::from_ed_pem(&read_file(file)?).map_err(|_| no_key(file))?
        }
    };
    let id = TokenId::generate();
    let claims = Written {
        iss: &settings.issuer,
        aud: &settings.audience,
        jti: id.as_str(),
        space: invitation.space.as_str(),
        scope: invitation.scope.name(),
        iat: now.0.div_euclid(1000),
        exp: invitation.expires_at.0.div_euclid(1000),
        sub: invitation.subject.as_ref().map(Subject::as_str),
        max_size: invitation.max_size,
        max_uploads: invitation.max_uploads,
        max_bytes: invitation.max_bytes,
        content_types: &invitation.content_types,
    };
    let header = Header::new(settings.algorithm());
    let token = jsonwebtoken::encode(&header, &claims, &key).map_err(|_| AuthError::Signing)?;
    Ok((id, token))
}

fn no_key(file: &Path) -> AuthError {
    AuthError::NoKey {
        file: file.to_owned(),
        expected: "an Ed25519 key in PEM",
    }
}

/// Verifies join tokens.
pub(super) struct Join {
    settings: JoinSettings,
    key: DecodingKey,
}

impl Join {
    /// Blocks for a key in a file.
    pub(super) fn open(settings: JoinSettings) -> Result<Self, AuthError> {
        let key = match &settings.key {
            JoinKey::Secret(secret) => DecodingKey::from_secret(secret),
            JoinKey::Ed25519 { public, .. } => {
                DecodingKey::from_ed_pem(&read_file(public)?).map_err(|_| no_key(public))?
            }
        };
        Ok(Self { settings, key })
    }

    pub(super) fn is_issuer(&self, issuer: &str) -> bool {
        self.settings.issuer == issuer
    }

    /// Who brings a token that was signed with the key, in the one way that is configured.
    pub(super) fn verify(&self, jws: &Jws<'_>) -> Result<Caller, Refused> {
        let algorithm = self.settings.algorithm();
        if jws.header.algorithm()? != algorithm {
            return Err(Refused::WrongAlgorithm);
        }
        jws.verify(&self.key, algorithm)?;
        jws.claims.check_audience(&self.settings.audience)?;
        caller(&jws.claims)
    }
}

fn caller(claims: &Claims) -> Result<Caller, Refused> {
    let id: TokenId = claims.word("jti")?.ok_or_else(|| missing("jti"))?;
    let subject = super::subject(claims, "sub")?.unwrap_or_else(|| super::holder("join", &id));
    let content_types = claims.words("content_types")?.unwrap_or_default();
    Ok(Caller {
        subject: Some(subject),
        token: Some(id),
        device: None,
        few_connections: false,
        guest: true,
        space: claims.word("space")?.ok_or_else(|| missing("space"))?,
        bound: true,
        scopes: match claims.words("scope")? {
            Some(names) => scopes(&names)?.into_iter().collect(),
            None => [Scope::Upload].into_iter().collect(),
        },
        grant: Grant {
            max_size: claims.count("max_size")?.map(Length),
            max_uploads: claims.count("max_uploads")?,
            max_bytes: claims.count("max_bytes")?,
            content_types: MediaTypes::new(&content_types)
                .map_err(|_| malformed("content_types"))?,
        },
    })
}

/// A guest is never an admin, whoever has signed that.
fn scopes(names: &[String]) -> Result<Vec<Scope>, Refused> {
    names
        .iter()
        .map(|name| match name.parse() {
            Ok(scope @ (Scope::Upload | Scope::Read)) => Ok(scope),
            Ok(Scope::Admin) | Err(_) => Err(malformed("scope")),
        })
        .collect()
}
