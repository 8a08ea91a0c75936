//! The ways in which an upload ends. Each writes its event in the same transaction.

use rusqlite::{Connection, params};

use super::assembling::{assembling, claim_key};
use super::concat;
use super::direct;
use super::events;
use super::intents;
use super::rows::{self, integer, json, word};
use super::writing::{owned, standing};
use crate::catalog::{Aborted, CatalogError, Claimed, IntentKind, Result};
use crate::model::upload::{Epoch, FailureReason, Protocol, Role};
use crate::model::{Object, Timestamp, Upload, UploadId, UploadState};

pub(super) fn complete(
    tx: &Connection,
    id: UploadId,
    epoch: Epoch,
    object: Object,
    settled: &[IntentKind],
    now: Timestamp,
) -> Result<Vec<UploadId>> {
    assembling(tx, id, epoch)?;
    if claim_key(tx, &object.key, id, now)? != Claimed::Yes {
        return Err(CatalogError::Stale);
    }
    tx.prepare_cached(
        "UPDATE objects
         SET completed_at = ?2, size = ?3, content_type = ?4, digests = ?5, etag = ?6, verified = ?7,
             known_by = ?8
         WHERE key = ?1",
    )?
    .execute(params![
        object.key.as_str(),
        now.0,
        integer(object.size.get())?,
        object.content_type,
        json(&object.digests)?,
        object.etag,
        object.store_checked,
        object.verified.name(),
    ])?;
    intents::settle(tx, id, settled)?;
    let upload = end(tx, id, &UploadState::Completed { object, at: now }, now)?;
    match upload.role {
        Role::Whole => Ok(Vec::new()),
        Role::Partial => concat::completed(tx, id, now),
        Role::Final => {
            concat::used(tx, id, now)?;
            Ok(Vec::new())
        }
    }
}

pub(super) fn fail(
    tx: &Connection,
    id: UploadId,
    epoch: Epoch,
    reason: FailureReason,
    now: Timestamp,
) -> Result<()> {
    owned(tx, id, epoch)?;
    end(tx, id, &UploadState::Failed { reason, at: now }, now).map(drop)
}

pub(super) fn abort(tx: &Connection, id: UploadId, now: Timestamp) -> Result<Aborted> {
    let standing = standing(tx, id)?.ok_or(CatalogError::NotFound)?;
    if standing.state == "aborted" {
        return Ok(Aborted::Done);
    }
    if !standing.takes_bytes() {
        return Ok(Aborted::Refused);
    }
    end(tx, id, &UploadState::Aborted { at: now }, now)?;
    Ok(Aborted::Done)
}

pub(super) fn terminate(
    tx: &Connection,
    id: UploadId,
    with_object: bool,
    now: Timestamp,
) -> Result<Aborted> {
    let standing = standing(tx, id)?.ok_or(CatalogError::NotFound)?;
    match &*standing.state {
        "aborted" => return Ok(Aborted::Done),
        "completed" | "failed" if !concat::is_assembled_from(tx, id)? => {}
        _ => return Ok(Aborted::Refused),
    }
    if with_object && standing.state == "completed" {
        unlist_object(tx, id, now)?;
    }
    end(tx, id, &UploadState::Aborted { at: now }, now)?;
    Ok(Aborted::Done)
}

/// Forgets the object of a completed upload, and leaves an intent to delete it.
pub(super) fn unlist_object(tx: &Connection, id: UploadId, now: Timestamp) -> Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO intents (upload_id, kind, key, created_at)
         SELECT upload_id, 'object', key, ?2 FROM objects WHERE upload_id = ?1",
    )?
    .execute(params![id.as_bytes(), now.0])?;
    tx.prepare_cached("DELETE FROM objects WHERE upload_id = ?1")?
        .execute([id.as_bytes()])?;
    Ok(())
}

/// For [`rows::due`].
pub(super) const EXPIRED: &str = "SELECT id, expires_at AS at FROM upload_sessions
    WHERE state IN ('pending', 'uploading') AND expires_at <= ?1 AND expires_at >= ?2 AND (expires_at > ?2 OR id > ?3)
    ORDER BY expires_at, id LIMIT ?4";

pub(super) fn expire(
    tx: &Connection,
    id: UploadId,
    now: Timestamp,
) -> Result<Option<(Protocol, Role)>> {
    let past: Option<(Protocol, Role)> = tx
        .prepare_cached(
            "SELECT protocol, role FROM upload_sessions
             WHERE id = ?1 AND state IN ('pending', 'uploading') AND expires_at <= ?2",
        )?
        .query_and_then(params![id.as_bytes(), now.0], |row| {
            Ok::<_, CatalogError>((word(row, "protocol")?, word(row, "role")?))
        })?
        .next()
        .transpose()?;
    if past.is_some() {
        end(tx, id, &UploadState::Expired { at: now }, now)?;
    }
    Ok(past)
}

/// Puts an upload into an ended state, lets go of what the record no longer needs, and writes the event.
pub(super) fn end(
    tx: &Connection,
    id: UploadId,
    state: &UploadState,
    now: Timestamp,
) -> Result<Upload> {
    let reason = match state {
        UploadState::Failed { reason, .. } => Some(reason.name()),
        _ => None,
    };
    // Its writer does not end it itself, and has to learn of it.
    let from_outside = matches!(
        state,
        UploadState::Aborted { .. } | UploadState::Expired { .. }
    );
    tx.prepare_cached(
        "UPDATE upload_sessions
         SET state = ?2, failure_reason = ?3, ended_at = ?4, updated_at = ?4, held_until = NULL, epoch = epoch + ?5
         WHERE id = ?1",
    )?
    .execute(params![
        id.as_bytes(),
        state.name(),
        reason,
        now.0,
        from_outside,
    ])?;
    tx.prepare_cached("DELETE FROM upload_parts WHERE upload_id = ?1")?
        .execute([id.as_bytes()])?;
    direct::forget(tx, id)?;
    if from_outside {
        // Nobody is told of these any more. Of the others the status goes on to tell what was received.
        tx.prepare_cached("DELETE FROM upload_ranges WHERE upload_id = ?1")?
            .execute([id.as_bytes()])?;
    }
    tx.prepare_cached("DELETE FROM objects WHERE upload_id = ?1 AND completed_at IS NULL")?
        .execute([id.as_bytes()])?;
    tx.prepare_cached("UPDATE intents SET ended = 1 WHERE upload_id = ?1")?
        .execute([id.as_bytes()])?;
    let upload = rows::upload(tx, id)?.ok_or(CatalogError::NotFound)?;
    if upload.role == Role::Partial {
        if !matches!(state, UploadState::Completed { .. }) {
            concat::lost(tx, id, now)?;
        }
    } else {
        events::write(tx, &upload, now)?;
    }
    Ok(upload)
}
