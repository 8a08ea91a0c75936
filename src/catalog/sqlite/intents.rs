//! What was announced before it was made, and what of it is left after its upload has ended.

use rusqlite::{Connection, params};

use super::rows::{kind_name, read_id, read_intent};
use super::writing::owned;
use crate::catalog::{CatalogError, Intent, IntentKind, Leftover, Result};
use crate::model::upload::{Epoch, StoreUploadId};
use crate::model::{StoreKey, Timestamp, UploadId};

pub(super) fn announce(tx: &Connection, intent: &Intent, epoch: Epoch) -> Result<()> {
    owned(tx, intent.upload, epoch)?;
    tx.prepare_cached(
        "INSERT INTO intents (upload_id, kind, key, store_upload_id, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        intent.upload.as_bytes(),
        kind_name(intent.kind),
        intent.key.as_str(),
        intent.store_upload_id.as_ref().map(|id| &id.0),
        intent.created_at.0,
    ])?;
    Ok(())
}

pub(super) fn stage(tx: &Connection, id: UploadId, epoch: Epoch, key: &StoreKey) -> Result<()> {
    if !owned(tx, id, epoch)?.takes_bytes() {
        return Err(CatalogError::Stale);
    }
    let staged = tx
        .prepare_cached(
            "UPDATE upload_sessions SET store_key = ?2
             WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM intents WHERE upload_id = ?1)",
        )?
        .execute(params![id.as_bytes(), key.as_str()])?;
    if staged == 0 {
        return Err(CatalogError::Stale);
    }
    Ok(())
}

pub(super) fn name_multipart(
    tx: &Connection,
    id: UploadId,
    epoch: Epoch,
    name: &StoreUploadId,
    unchecked: bool,
) -> Result<()> {
    owned(tx, id, epoch)?;
    let announced = tx
        .prepare_cached(
            "UPDATE intents SET store_upload_id = ?2 WHERE upload_id = ?1 AND kind = 'multipart'",
        )?
        .execute(params![id.as_bytes(), name.0])?;
    if announced == 0 {
        return Err(CatalogError::Stale);
    }
    tx.prepare_cached(
        "UPDATE upload_sessions SET store_upload_id = ?2, unchecked = ?3 WHERE id = ?1",
    )?
    .execute(params![id.as_bytes(), name.0, unchecked])?;
    Ok(())
}

pub(super) fn of(tx: &Connection, id: UploadId) -> Result<Vec<Intent>> {
    tx.prepare_cached(
        "SELECT upload_id, kind, key, store_upload_id, created_at
         FROM intents WHERE upload_id = ?1 ORDER BY kind",
    )?
    .query_and_then([id.as_bytes()], read_intent)?
    .collect()
}

pub(super) fn settle(tx: &Connection, id: UploadId, kinds: &[IntentKind]) -> Result<()> {
    for kind in kinds {
        tx.prepare_cached("DELETE FROM intents WHERE upload_id = ?1 AND kind = ?2")?
            .execute(params![id.as_bytes(), kind_name(*kind)])?;
    }
    Ok(())
}

pub(super) fn hold_address(
    tx: &Connection,
    id: UploadId,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool> {
    let held = tx
        .prepare_cached(
            "UPDATE intents SET held_until = ?3
             WHERE upload_id = ?1 AND kind = 'address' AND ended = 1 AND coalesce(held_until, ?2) <= ?2",
        )?
        .execute(params![id.as_bytes(), now.0, until.0])?;
    Ok(held > 0)
}

pub(super) fn leftovers(
    tx: &Connection,
    after: Option<UploadId>,
    limit: u32,
) -> Result<Vec<Leftover>> {
    let after: &[u8] = after.as_ref().map_or(&[], |id| id.as_bytes());
    let ids: Vec<UploadId> = tx
        .prepare_cached(LEFT_OVER)?
        .query_and_then(params![after, limit], |row| read_id(row, "upload_id"))?
        .collect::<Result<_>>()?;
    ids.into_iter().map(|id| leftover(tx, id)).collect()
}

// Every blob comes after the empty one.
pub(super) const LEFT_OVER: &str = "SELECT DISTINCT upload_id FROM intents
    WHERE ended = 1 AND upload_id > ?1 ORDER BY upload_id LIMIT ?2";

fn leftover(tx: &Connection, id: UploadId) -> Result<Leftover> {
    // Not the whole upload, nor its intents: one that cannot be read may not hide the others.
    let (completed, ended_at) = tx
        .prepare_cached("SELECT state = 'completed', ended_at FROM upload_sessions WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| {
            Ok((row.get(0)?, Timestamp(row.get(1)?)))
        })?;
    Ok(Leftover {
        id,
        completed,
        ended_at,
    })
}
