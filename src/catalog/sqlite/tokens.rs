//! API keys, revoked tokens and the secret of signed links.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::SqliteCatalog;
use super::rows::{column, number, time, word};
use crate::catalog::{ApiKeyRecord, CatalogError, Result, Revoked, TokenLists, Tokens};
use crate::model::token::LinkSecret;
use crate::model::{KeyHash, SpaceName, Timestamp, TokenId};

#[async_trait]
impl Tokens for SqliteCatalog {
    async fn add_api_key(&self, key: ApiKeyRecord) -> Result<()> {
        self.writer.run(move |tx| add(tx, &key)).await
    }

    async fn revoke_token(
        &self,
        id: TokenId,
        now: Timestamp,
        forget_at: Option<Timestamp>,
    ) -> Result<Revoked> {
        self.writer
            .run(move |tx| revoke(tx, &id, now, forget_at))
            .await
    }

    async fn tokens(&self, known: Option<u64>) -> Result<Option<TokenLists>> {
        self.readers.run(move |tx| lists(tx, known)).await
    }

    async fn link_secret(&self, offered: LinkSecret) -> Result<LinkSecret> {
        self.writer.run(move |tx| link_secret(tx, &offered)).await
    }
}

fn add(tx: &Connection, key: &ApiKeyRecord) -> Result<()> {
    let added = tx
        .prepare_cached(
            "INSERT INTO api_keys (id, hash, name, scope, space, created_at, expires_at, revoked_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            key.id.as_str(),
            key.hash.0,
            key.name,
            key.scope.name(),
            key.space.as_ref().map(SpaceName::as_str),
            key.created_at.0,
            key.expires_at.map(|at| at.0),
            key.revoked_at.map(|at| at.0),
        ])?;
    if added == 0 {
        return Err(CatalogError::Stale);
    }
    changed(tx)
}

fn revoke(
    tx: &Connection,
    id: &TokenId,
    now: Timestamp,
    forget_at: Option<Timestamp>,
) -> Result<Revoked> {
    let keys = tx
        .prepare_cached("UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1")?
        .execute(params![id.as_str(), now.0])?;
    changed(tx)?;
    if keys > 0 {
        return Ok(Revoked::ApiKey);
    }
    // max() of two values is NULL if one of them is.
    tx.prepare_cached(
        "INSERT INTO revoked_tokens (id, revoked_at, forget_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET forget_at = max(forget_at, excluded.forget_at)",
    )?
    .execute(params![id.as_str(), now.0, forget_at.map(|at| at.0)])?;
    Ok(Revoked::OtherToken)
}

/// Forgets revoked tokens that have expired anyway, at most `limit`; returns how many.
pub(super) fn forget(tx: &Connection, now: Timestamp, limit: u64) -> Result<u64> {
    let forgotten = tx
        .prepare_cached(FORGET)?
        .execute(params![now.0, limit.cast_signed()])?;
    if forgotten > 0 {
        changed(tx)?;
    }
    Ok(forgotten as u64)
}

pub(super) const FORGET: &str = "DELETE FROM revoked_tokens WHERE id IN
    (SELECT id FROM revoked_tokens WHERE forget_at <= ?1 ORDER BY forget_at LIMIT ?2)";

fn changed(tx: &Connection) -> Result<()> {
    tx.prepare_cached("UPDATE tokens_version SET version = version + 1")?
        .execute([])?;
    Ok(())
}

fn lists(tx: &Connection, known: Option<u64>) -> Result<Option<TokenLists>> {
    let version = tx
        .prepare_cached("SELECT version FROM tokens_version")?
        .query_row([], |row| Ok(number(row, "version")))??;
    if known == Some(version) {
        return Ok(None);
    }
    Ok(Some(TokenLists {
        version,
        api_keys: tx
            .prepare_cached("SELECT * FROM api_keys ORDER BY created_at, id")?
            .query_and_then([], read_key)?
            .collect::<Result<_>>()?,
        revoked: tx
            .prepare_cached("SELECT id FROM revoked_tokens")?
            .query_and_then([], |row| word(row, "id"))?
            .collect::<Result<_>>()?,
    }))
}

fn read_key(row: &Row<'_>) -> Result<ApiKeyRecord> {
    Ok(ApiKeyRecord {
        id: word(row, "id")?,
        hash: KeyHash(column(row, "hash")?),
        name: column(row, "name")?,
        scope: word(row, "scope")?,
        space: column::<Option<String>>(row, "space")?
            .map(|_| word(row, "space"))
            .transpose()?,
        created_at: time(row, "created_at")?,
        expires_at: column::<Option<i64>>(row, "expires_at")?.map(Timestamp),
        revoked_at: column::<Option<i64>>(row, "revoked_at")?.map(Timestamp),
    })
}

fn link_secret(tx: &Connection, offered: &LinkSecret) -> Result<LinkSecret> {
    tx.prepare_cached(
        "INSERT INTO link_secret (one, secret) VALUES (1, ?1) ON CONFLICT DO NOTHING",
    )?
    .execute([offered.0])?;
    let secret = tx
        .prepare_cached("SELECT secret FROM link_secret")?
        .query_row([], |row| Ok(column(row, "secret")))??;
    Ok(LinkSecret(secret))
}
