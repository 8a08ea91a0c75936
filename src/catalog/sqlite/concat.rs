//! Partial uploads, and the final ones that are made of them.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::ending::{end, let_go};
use super::rows::{digests, number, read_id, word};
use crate::catalog::{CatalogError, NewUpload, Result, Source};
use crate::model::upload::FailureReason;
use crate::model::{Length, Timestamp, UploadId, UploadState};

/// The first of `parts` that a final upload cannot be made of.
pub(super) fn first_missing(tx: &Connection, parts: &[UploadId]) -> Result<Option<usize>> {
    let mut usable = tx.prepare_cached(
        "SELECT 1 FROM upload_sessions WHERE id = ?1 AND role = 'partial'
           AND state IN ('pending', 'uploading', 'assembling', 'completed')",
    )?;
    for (position, part) in parts.iter().enumerate() {
        if !usable.exists([part.as_bytes()])? {
            return Ok(Some(position));
        }
    }
    Ok(None)
}

/// Records what a final upload is made of.
pub(super) fn insert(tx: &Connection, new: &NewUpload) -> Result<()> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO upload_concat (final_id, position, part_id) VALUES (?1, ?2, ?3)",
    )?;
    for (position, part) in (0_i64..).zip(&new.parts) {
        insert.execute(params![new.id.as_bytes(), position, part.as_bytes()])?;
    }
    Ok(())
}

/// A pending final upload whose parts are all complete turns to assembling; whether it did.
pub(super) fn assemble_if_ready(
    tx: &Connection,
    id: UploadId,
    held_until: Timestamp,
) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE upload_sessions
             SET state = 'assembling', attempts = 0, held_until = ?2, length =
                (SELECT coalesce(sum(o.size), 0) FROM upload_concat c JOIN objects o ON o.upload_id = c.part_id
                 WHERE c.final_id = ?1)
             WHERE id = ?1 AND state = 'pending' AND NOT EXISTS
                (SELECT 1 FROM upload_concat c JOIN upload_sessions p ON p.id = c.part_id
                 WHERE c.final_id = ?1 AND p.state <> 'completed')",
        )?
        .execute(params![id.as_bytes(), held_until.0])?;
    Ok(changed > 0)
}

/// A part has completed: which final uploads can be assembled now, by anybody.
pub(super) fn completed(tx: &Connection, part: UploadId, now: Timestamp) -> Result<Vec<UploadId>> {
    let mut ready = Vec::new();
    for id in pending_with(tx, part)? {
        if assemble_if_ready(tx, id, now)? {
            ready.push(id);
        }
    }
    Ok(ready)
}

/// A part is gone: the final uploads that wait for it fail.
pub(super) fn lost(tx: &Connection, part: UploadId, now: Timestamp) -> Result<()> {
    let failed = UploadState::Failed {
        reason: FailureReason::PartGone,
        at: now,
    };
    for id in pending_with(tx, part)? {
        end(tx, id, &failed, now)?;
    }
    Ok(())
}

fn pending_with(tx: &Connection, part: UploadId) -> Result<Vec<UploadId>> {
    tx.prepare_cached(
        "SELECT DISTINCT c.final_id FROM upload_concat c JOIN upload_sessions f ON f.id = c.final_id
         WHERE c.part_id = ?1 AND f.state = 'pending'",
    )?
    .query_and_then([part.as_bytes()], |row| read_id(row, "final_id"))?
    .collect()
}

/// A final upload has completed: its parts have done their work.
pub(super) fn used(tx: &Connection, id: UploadId, now: Timestamp) -> Result<()> {
    tx.prepare_cached(
        "UPDATE upload_sessions SET expires_at = min(expires_at, ?2)
         WHERE id IN (SELECT part_id FROM upload_concat WHERE final_id = ?1)",
    )?
    .execute(params![id.as_bytes(), now.0])?;
    Ok(())
}

pub(super) fn sources(tx: &Connection, id: UploadId) -> Result<Vec<Source>> {
    let parts: Vec<UploadId> = tx
        .prepare_cached("SELECT part_id FROM upload_concat WHERE final_id = ?1 ORDER BY position")?
        .query_and_then([id.as_bytes()], |row| read_id(row, "part_id"))?
        .collect::<Result<_>>()?;
    let mut object = tx.prepare_cached(
        "SELECT key, size, digests FROM objects WHERE upload_id = ?1 AND completed_at IS NOT NULL",
    )?;
    parts
        .iter()
        .map(|part| {
            object
                .query_row([part.as_bytes()], |row| {
                    Ok(word(row, "key").and_then(|key| {
                        Ok(Source {
                            key,
                            size: Length(number(row, "size")?),
                            digests: digests(row, "digests")?,
                        })
                    }))
                })
                .optional()?
                .unwrap_or(Err(CatalogError::Stale))
        })
        .collect()
}

/// Whether an upload is being assembled from this one.
pub(super) fn is_assembled_from(tx: &Connection, part: UploadId) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "SELECT 1 FROM upload_concat c JOIN upload_sessions f ON f.id = c.final_id
             WHERE c.part_id = ?1 AND f.state = 'assembling'",
        )?
        .exists([part.as_bytes()])?)
}

/// For [`rows::due`](super::rows::due).
pub(super) const SPENT: &str = "SELECT id, expires_at AS at FROM upload_sessions
    WHERE role = 'partial' AND state = 'completed'
      AND expires_at <= ?1 AND expires_at >= ?2 AND (expires_at > ?2 OR id > ?3)
    ORDER BY expires_at, id LIMIT ?4";

pub(super) fn discard(
    tx: &Connection,
    id: UploadId,
    before: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let spent = tx
        .prepare_cached(
            "SELECT 1 FROM upload_sessions
             WHERE id = ?1 AND role = 'partial' AND state = 'completed' AND expires_at <= ?2",
        )?
        .exists(params![id.as_bytes(), before.0])?;
    if !spent || is_assembled_from(tx, id)? || !pending_with(tx, id)?.is_empty() {
        return Ok(false);
    }
    let_go(tx, id, now)?;
    end(tx, id, &UploadState::Expired { at: now }, now)?;
    Ok(true)
}
