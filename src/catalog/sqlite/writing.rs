//! Taking an upload over, and remembering what its writer made durable.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{self, column, integer, number, optional_number};
use super::{assembling, direct, quota, ranges};
use crate::catalog::{Assembled, CatalogError, Commit, Result};
use crate::model::upload::{Epoch, Snapshot};
use crate::model::{Length, PartReceipt, Timestamp, UploadId};

/// What decides whether an operation may start.
pub(super) struct Standing {
    /// The state's name.
    pub(super) state: String,
    /// The length, if known.
    pub(super) length: Option<Length>,
    epoch: Epoch,
}

impl Standing {
    /// Whether nothing will change any more.
    pub(super) fn has_ended(&self) -> bool {
        !self.takes_bytes() && self.state != "assembling"
    }

    /// Whether bytes may still come.
    pub(super) fn takes_bytes(&self) -> bool {
        matches!(&*self.state, "pending" | "uploading")
    }
}

/// Where an upload stands; `None` if there is none.
pub(super) fn standing(tx: &Connection, id: UploadId) -> Result<Option<Standing>> {
    tx.prepare_cached("SELECT state, epoch, length FROM upload_sessions WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| {
            Ok(column(row, "state").and_then(|state| {
                Ok(Standing {
                    state,
                    length: optional_number(row, "length")?.map(Length),
                    epoch: Epoch(number(row, "epoch")?),
                })
            }))
        })
        .optional()?
        .transpose()
}

/// Where an upload stands that has not ended and is under `epoch`; else `Stale`.
pub(super) fn owned(tx: &Connection, id: UploadId, epoch: Epoch) -> Result<Standing> {
    standing(tx, id)?
        .filter(|standing| standing.epoch == epoch && !standing.has_ended())
        .ok_or(CatalogError::Stale)
}

/// Adds one to the epoch.
pub(super) fn bump_epoch(tx: &Connection, id: UploadId, now: Timestamp) -> Result<()> {
    tx.prepare_cached(
        "UPDATE upload_sessions SET epoch = epoch + 1, updated_at = ?2 WHERE id = ?1",
    )?
    .execute(params![id.as_bytes(), now.0])?;
    Ok(())
}

pub(super) fn claim(tx: &Connection, id: UploadId, now: Timestamp) -> Result<Snapshot> {
    let standing = standing(tx, id)?.ok_or(CatalogError::NotFound)?;
    if !standing.has_ended() {
        bump_epoch(tx, id, now)?;
    }
    rows::snapshot(tx, id)?.ok_or(CatalogError::NotFound)
}

pub(super) fn commit(tx: &Connection, commit: &Commit) -> Result<Assembled> {
    let standing = owned(tx, commit.id, commit.epoch)?;
    let length = fixed_length(&standing, commit.length)?;
    for range in &commit.received {
        ranges::insert(tx, commit.id, *range)?;
    }
    if let Some(length) = length
        && ranges::exceed(tx, commit.id, length)?
    {
        return Err(CatalogError::Stale);
    }
    // Of others all bytes are counted already.
    if standing.length.is_none() {
        quota::grow(tx, commit.id, length)?;
    }
    for part in &commit.parts {
        put_part(tx, commit.id, part)?;
    }
    direct::close(tx, commit.id, &commit.closed)?;
    let state = if standing.state == "pending" && !commit.received.is_empty() {
        "uploading"
    } else {
        &standing.state
    };
    let (hash_offset, hash_state) = match &commit.hash {
        Some(hash) => (Some(integer(hash.offset.get())?), Some(&hash.state)),
        None => (None, None),
    };
    tx.prepare_cached(
        "UPDATE upload_sessions SET
            state = ?2, length = ?3, hash_offset = coalesce(?4, hash_offset), hash_state = coalesce(?5, hash_state),
            readback = max(readback, ?6), boot = coalesce(?7, boot), updated_at = ?8,
            expires_at = coalesce(?9, expires_at)
         WHERE id = ?1",
    )?
    .execute(params![
        commit.id.as_bytes(),
        state,
        length.map(|length| integer(length.get())).transpose()?,
        hash_offset,
        hash_state,
        commit.readback,
        commit.boot,
        commit.now.0,
        commit.expires_at.map(|at| at.0),
    ])?;
    match (&commit.assemble, length) {
        (Some(assemble), Some(length))
            if standing.takes_bytes() && ranges::cover(tx, commit.id, length)? =>
        {
            assembling::turn(tx, commit.id, assemble, commit.now)
        }
        _ => Ok(Assembled::default()),
    }
}

/// The length after it was told to be `told`. Once known it never changes.
pub(super) fn fixed_length(standing: &Standing, told: Option<Length>) -> Result<Option<Length>> {
    match (standing.length, told) {
        (Some(known), Some(told)) if known != told => Err(CatalogError::Stale),
        (known, told) => Ok(known.or(told)),
    }
}

fn put_part(tx: &Connection, id: UploadId, part: &PartReceipt) -> Result<()> {
    let (checksum_kind, checksum) = match &part.checksum {
        Some((kind, value)) => (Some(kind.name()), Some(value)),
        None => (None, None),
    };
    tx.prepare_cached(
        "INSERT OR REPLACE INTO upload_parts
            (upload_id, number, start, stop, etag, checksum_kind, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        id.as_bytes(),
        part.number.0,
        integer(part.range.start())?,
        integer(part.range.end())?,
        part.etag,
        checksum_kind,
        checksum,
    ])?;
    Ok(())
}
