//! Making the object: who works on it, and under which key.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::ranges;
use super::rows::{self, integer, json, read_id};
use super::writing::{bump_epoch, fixed_length, owned, standing};
use crate::catalog::{Assemble, Assembled, CatalogError, Claimed, Result};
use crate::model::digest::Digests;
use crate::model::upload::{Epoch, Snapshot};
use crate::model::{Length, StoreKey, Timestamp, UploadId};

pub(super) fn begin(
    tx: &Connection,
    id: UploadId,
    epoch: Epoch,
    length: Length,
    digests: &Digests,
    assemble: &Assemble,
    now: Timestamp,
) -> Result<Assembled> {
    let standing = owned(tx, id, epoch)?;
    fixed_length(&standing, Some(length))?;
    if !standing.takes_bytes() || !ranges::cover(tx, id, length)? || ranges::exceed(tx, id, length)?
    {
        return Err(CatalogError::Stale);
    }
    let mut declared = rows::upload(tx, id)?
        .ok_or(CatalogError::Stale)?
        .declared
        .digests;
    if declared.first_conflict(digests).is_some() {
        return Err(CatalogError::Stale);
    }
    for digest in digests.iter() {
        declared.insert(digest.clone());
    }
    tx.prepare_cached(
        "UPDATE upload_sessions
         SET length = ?2, declared_digests = ?3, updated_at = ?4 WHERE id = ?1",
    )?
    .execute(params![
        id.as_bytes(),
        integer(length.get())?,
        json(&declared)?,
        now.0,
    ])?;
    turn(tx, id, assemble, now)
}

/// An upload that takes bytes, and has all of them, is to be brought together.
pub(super) fn turn(
    tx: &Connection,
    id: UploadId,
    assemble: &Assemble,
    now: Timestamp,
) -> Result<Assembled> {
    tx.prepare_cached(
        "UPDATE upload_sessions SET state = 'assembling', held_until = ?2, attempts = 0 WHERE id = ?1",
    )?
    .execute(params![id.as_bytes(), assemble.until.0])?;
    let claimed = match &assemble.key {
        Some(key) => matches!(claim_key(tx, key, id, now)?, Claimed::Yes),
        None => false,
    };
    Ok(Assembled {
        begun: true,
        claimed,
    })
}

pub(super) fn postpone(
    tx: &Connection,
    id: UploadId,
    epoch: Epoch,
    until: Timestamp,
) -> Result<()> {
    assembling(tx, id, epoch)?;
    tx.prepare_cached(
        "UPDATE upload_sessions SET attempts = attempts + 1, held_until = ?2 WHERE id = ?1",
    )?
    .execute(params![id.as_bytes(), until.0])?;
    Ok(())
}

pub(super) fn hold(tx: &Connection, id: UploadId, epoch: Epoch, until: Timestamp) -> Result<()> {
    assembling(tx, id, epoch)?;
    tx.prepare_cached("UPDATE upload_sessions SET held_until = ?2 WHERE id = ?1")?
        .execute(params![id.as_bytes(), until.0])?;
    Ok(())
}

/// For [`rows::due`].
pub(super) const DUE: &str = "SELECT id, held_until AS at FROM upload_sessions
    WHERE state = 'assembling' AND held_until <= ?1 AND held_until >= ?2 AND (held_until > ?2 OR id > ?3)
    ORDER BY held_until, id LIMIT ?4";

pub(super) fn claim(
    tx: &Connection,
    id: UploadId,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Snapshot>> {
    let claimed = tx
        .prepare_cached(
            "UPDATE upload_sessions SET held_until = ?3
             WHERE id = ?1 AND state = 'assembling' AND held_until <= ?2",
        )?
        .execute(params![id.as_bytes(), now.0, until.0])?;
    if claimed == 0 {
        return Ok(None);
    }
    bump_epoch(tx, id, now)?;
    rows::snapshot(tx, id)
}

pub(super) fn claim_key(
    tx: &Connection,
    key: &StoreKey,
    id: UploadId,
    now: Timestamp,
) -> Result<Claimed> {
    let holder = tx
        .prepare_cached("SELECT upload_id FROM objects WHERE key = ?1")?
        .query_row([key.as_str()], |row| Ok(read_id(row, "upload_id")))
        .optional()?
        .transpose()?;
    match holder {
        Some(holder) if holder == id => return Ok(Claimed::Yes),
        Some(holder) => {
            return Ok(match rows::object(tx, key)? {
                Some(object) => Claimed::Stored(Box::new(object)),
                None => Claimed::Busy(holder),
            });
        }
        None => {}
    }
    // Whoever ended with an object at this address has yet to remove it.
    let leaving = tx
        .prepare_cached(AT_ADDRESS)?
        .query_and_then(params![key.as_str(), id.as_bytes()], |row| {
            read_id(row, "upload_id")
        })?
        .next()
        .transpose()?;
    if let Some(leaving) = leaving {
        return Ok(Claimed::Busy(leaving));
    }
    // Nothing would ever give the claim of an ended upload back.
    if standing(tx, id)?.is_none_or(|standing| standing.has_ended()) {
        return Err(CatalogError::Stale);
    }
    tx.prepare_cached("INSERT INTO objects (key, upload_id, claimed_at) VALUES (?1, ?2, ?3)")?
        .execute(params![key.as_str(), id.as_bytes(), now.0])?;
    Ok(Claimed::Yes)
}

pub(super) const AT_ADDRESS: &str =
    "SELECT upload_id FROM intents WHERE key = ?1 AND kind = 'address' AND upload_id <> ?2";

/// `Stale` unless the upload is assembling under `epoch`.
pub(super) fn assembling(tx: &Connection, id: UploadId, epoch: Epoch) -> Result<()> {
    if owned(tx, id, epoch)?.state == "assembling" {
        Ok(())
    } else {
        Err(CatalogError::Stale)
    }
}
