//! Who brings a token: API keys, join tokens, and an application's own JWTs.
//!
//! Owns what a token looks like, how it is verified and what it comes to, and the signing of links. What a [`Caller`] may then do
//! is decided elsewhere. A token is verified by one verifier alone: an API key is known by how it begins; of the signed ones
//! the issuer that they name chooses, and what they may be signed with is configured, not told by them. No check reads the
//! catalog: API keys and revoked ids are in memory, and follow it ([ADR 6]).
//!
//! [ADR 6]: https://github.com/jumar-project/jumar/blob/main/docs/adr/0006-tokens-are-checked-in-memory.md

mod claims;
mod fetch;
mod join;
mod jwks;
mod jws;
mod jwt;
mod link;
mod lists;
mod refused;
mod verified;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

pub use join::{Invitation, JoinAlgorithm, JoinKey, JoinSettings, mint};
pub use jwks::KeySource;
pub use jwt::{JwtAlgorithm, JwtSettings};
pub use link::Links;
pub use refused::Refused;

use crate::catalog::{CatalogError, Tokens};
use crate::clock::Clock;
use crate::model::caller::Grant;
use crate::model::{ApiKey, Caller, SpaceName, Subject, TokenId};
use claims::{Claims, malformed};
use join::Join;
use jws::Jws;
use jwt::Jwt;
use lists::Lists;
use verified::{Known, Verified};

/// Which tokens are taken.
#[derive(Debug, Clone)]
pub struct Settings {
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// How often the catalog is asked what has changed.
    pub refresh: Duration,
    /// The longest token that is read.
    pub max_token_bytes: usize,
    /// How many signed tokens are remembered as verified.
    pub max_verified_tokens: usize,
    /// Join tokens; `None`: none are taken.
    pub join: Option<JoinSettings>,
    /// An application's own tokens; `None`: none are taken.
    pub jwt: Option<JwtSettings>,
}

/// Why tokens cannot be checked, or made.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A file with a key cannot be read.
    #[error("the key in {file:?} cannot be read: {source}")]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has not the key that it should have.
    #[error("{file:?} is not {expected}")]
    NoKey {
        /// Which file.
        file: PathBuf,
        /// What it should have.
        expected: &'static str,
    },
    /// The keys of an application cannot be used.
    #[error("the keys at {place}: {source}")]
    Keys {
        /// The file or URL.
        place: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no private key to sign join tokens with.
    #[error("auth.join.private_key_file is not set, and nothing else can sign a token")]
    NothingToMintWith,
    /// The key signs nothing.
    #[error("the token cannot be signed with this key")]
    Signing,
    /// The catalog cannot be read.
    #[error("the tokens cannot be read: {0}")]
    Catalog(#[from] CatalogError),
}

fn read_file(file: &Path) -> Result<Vec<u8>, AuthError> {
    std::fs::read(file).map_err(|source| AuthError::File {
        file: file.to_owned(),
        source,
    })
}

/// Finds out who brings a token. Cheap to clone; what follows the catalog and the keys ends with the last clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    clock: Clock,
    settings: Settings,
    spaces: BTreeSet<SpaceName>,
    lists: Arc<Lists>,
    join: Option<Join>,
    jwt: Option<Jwt>,
    verified: Verified,
    _following: Vec<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator(…)")
    }
}

impl Authenticator {
    /// Reads what is known of tokens, and begins to follow it. Tokens of other spaces than `spaces` are refused. Has to be
    /// called inside a tokio runtime.
    pub async fn start(
        catalog: Arc<dyn Tokens>,
        clock: Clock,
        settings: Settings,
        spaces: BTreeSet<SpaceName>,
    ) -> Result<Self, AuthError> {
        let lists = Arc::new(Lists::load(catalog).await?);
        let join = settings.join.clone().map(Join::open).transpose()?;
        let jwt = match settings.jwt.clone() {
            Some(jwt) => Some(Jwt::open(jwt).await?),
            None => None,
        };
        let mut following = vec![tokio::spawn(Arc::clone(&lists).follow(settings.refresh))];
        following.extend(
            jwt.iter()
                .map(|jwt| tokio::spawn(Arc::clone(jwt.keys()).follow())),
        );
        Ok(Self(Arc::new(Inner {
            clock,
            verified: Verified::new(settings.max_verified_tokens),
            settings,
            spaces,
            lists,
            join,
            jwt,
            _following: following.into_iter().map(AbortOnDropHandle::new).collect(),
        })))
    }

    /// Who brings this token. Waits only for keys of an application that are not known yet.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, Refused> {
        let at_most = self.0.settings.max_token_bytes;
        if token.len() > at_most {
            return Err(Refused::TooLong { at_most });
        }
        let caller = if token.starts_with(ApiKey::PREFIX) {
            self.by_key(token)?
        } else {
            self.by_signature(token).await?
        };
        if !self.0.spaces.contains(&caller.space) {
            return Err(Refused::UnknownSpace);
        }
        Ok(caller)
    }

    fn by_key(&self, token: &str) -> Result<Caller, Refused> {
        let key: ApiKey = token.parse().map_err(|_| Refused::Malformed)?;
        let found = self.0.lists.api_key(&key.hash());
        let found = found.ok_or(Refused::Unknown)?;
        if found.revoked_at.is_some() {
            return Err(Refused::Revoked);
        }
        let now = self.0.clock.now();
        if found.expires_at.is_some_and(|at| at <= now) {
            return Err(Refused::Expired);
        }
        Ok(Caller {
            subject: Some(holder("key", &found.id)),
            token: Some(found.id),
            device: None,
            few_connections: false,
            guest: false,
            bound: found.space.is_some(),
            space: found.space.unwrap_or_default(),
            scopes: [found.scope].into_iter().collect(),
            grant: Grant::default(),
        })
    }

    async fn by_signature(&self, token: &str) -> Result<Caller, Refused> {
        let print = verified::print_of(token);
        let known = match self.0.verified.get(&print) {
            Some(known) if known.generation == self.generation() => known,
            _ => {
                let known = Arc::new(self.verify(token).await?);
                self.0.verified.insert(print, Arc::clone(&known));
                known
            }
        };
        known.validity.check(self.0.clock.now())?;
        let revoked = |id: &TokenId| self.0.lists.is_revoked(id);
        if known.caller.token.as_ref().is_some_and(revoked) {
            return Err(Refused::Revoked);
        }
        Ok(known.caller.clone())
    }

    /// Of the keys that change.
    fn generation(&self) -> u64 {
        self.0.jwt.as_ref().map_or(0, |jwt| jwt.keys().generation())
    }

    async fn verify(&self, token: &str) -> Result<Known, Refused> {
        let jws = Jws::parse(token)?;
        let issuer = jws
            .claims
            .text("iss")?
            .ok_or_else(|| claims::missing("iss"))?;
        let join = self.0.join.as_ref().filter(|join| join.is_issuer(issuer));
        let jwt = self.0.jwt.as_ref().filter(|jwt| jwt.is_issuer(issuer));
        // Before the keys are used: if they change meanwhile, this was verified with the old ones.
        let generation = self.generation();
        let caller = match (join, jwt) {
            (Some(join), _) => join.verify(&jws)?,
            (None, Some(jwt)) => jwt.verify(&jws).await?,
            (None, None) => return Err(Refused::UnknownIssuer),
        };
        Ok(Known {
            caller,
            validity: jws.claims.validity(self.0.settings.leeway)?,
            generation,
        })
    }
}

/// The subject of whoever has a token that names none.
fn holder(kind: &'static str, id: &TokenId) -> Subject {
    let subject = format!("{kind}:{id}").parse();
    subject.expect("an id is visible ASCII, and much shorter than a subject may be")
}

/// The subject that a token names. Those that stand for tokens themselves are nobody's to name.
fn subject(claims: &Claims, name: &str) -> Result<Option<Subject>, Refused> {
    let subject: Option<Subject> = claims.word(name)?;
    let reserved = |subject: &Subject| {
        let text = subject.as_str();
        text.starts_with("key:") || text.starts_with("join:")
    };
    if subject.as_ref().is_some_and(reserved) {
        return Err(malformed(name));
    }
    Ok(subject)
}
