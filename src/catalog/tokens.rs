//! What is known of tokens: API keys, what was revoked, and the secret of signed links.

use async_trait::async_trait;

use super::Result;
use crate::model::token::LinkSecret;
use crate::model::{KeyHash, Scope, SpaceName, Timestamp, TokenId};

/// An API key. Of the key itself, only the hash is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// What it is called by.
    pub id: TokenId,
    /// The hash of the key.
    pub hash: KeyHash,
    /// What people call it. Need not be its alone.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// The one space that it is of; `None` if it is of no one.
    pub space: Option<SpaceName>,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// From when on it is good no more.
    pub expires_at: Option<Timestamp>,
    /// Since when it is good no more.
    pub revoked_at: Option<Timestamp>,
}

/// All that a token is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLists {
    /// Goes up with every change.
    pub version: u64,
    /// API keys, also those that are good no more, the oldest first.
    pub api_keys: Vec<ApiKeyRecord>,
    /// Ids of other tokens that were revoked.
    pub revoked: Vec<TokenId>,
}

/// What was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// An API key, now or before.
    ApiKey,
    /// No API key has this id: any other token that has it.
    OtherToken,
}

/// The part of the catalog that tells who may do something. Operations are atomic and durable like those of
/// [`Catalog`](super::Catalog).
#[async_trait]
pub trait Tokens: Send + Sync + 'static {
    /// Adds an API key. [`Stale`](super::CatalogError::Stale) if there is one with its id or its hash, so also when repeated.
    async fn add_api_key(&self, key: ApiKeyRecord) -> Result<()>;

    /// A token is good no more. If no API key has the id, the id itself is remembered, until `forget_at` if that is given.
    /// Repeated, the time of the first one stays, and a later `forget_at`, or none, takes the place of an earlier one.
    async fn revoke_token(
        &self,
        id: TokenId,
        now: Timestamp,
        forget_at: Option<Timestamp>,
    ) -> Result<Revoked>;

    /// All that tokens are held against, as of one moment; `None` if that is of the version `known`. Reads only.
    async fn tokens(&self, known: Option<u64>) -> Result<Option<TokenLists>>;

    /// The secret that links are signed with. `offered` becomes it if there was none. Repeated, also with another, it stays.
    async fn link_secret(&self, offered: LinkSecret) -> Result<LinkSecret>;
}
