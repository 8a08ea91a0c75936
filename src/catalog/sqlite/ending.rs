//! The ways in which an upload ends. Each writes its event in the same transaction.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::assembling::{assembling, claim_key};
use super::concat;
use super::direct;
use super::events;
use super::intents;
use super::quota;
use super::rows::{self, integer, json, word};
use super::writing::{owned, standing};
use crate::catalog::{Aborted, CatalogError, Claimed, Completed, IntentKind, NewUpload, Result};
use crate::model::upload::{Epoch, FailureReason, Protocol, Role};
use crate::model::{
    Digest, DigestAlgorithm, Object, StoreKey, Timestamp, Upload, UploadId, UploadState,
};

pub(super) fn complete(
    tx: &Connection,
    id: UploadId,
    epoch: Epoch,
    object: Object,
    settled: &[IntentKind],
    now: Timestamp,
) -> Result<Completed> {
    assembling(tx, id, epoch)?;
    match claim_key(tx, &object.key, id, now)? {
        Claimed::Yes if object.first == id => record(tx, &object, now)?,
        Claimed::Stored(stored) if stored.shared && *stored == object => name(tx, &object.key)?,
        // Also where the key is free: what was there when it was claimed has gone in between.
        _ => return Err(CatalogError::Stale),
    }
    place(tx, id, &object.key)?;
    intents::settle(tx, id, settled)?;
    let upload = end(tx, id, &UploadState::Completed { object, at: now }, now)?;
    let ready = match upload.role {
        Role::Whole => Vec::new(),
        Role::Partial => concat::completed(tx, id, now)?,
        Role::Final => {
            concat::used(tx, id, now)?;
            Vec::new()
        }
    };
    Ok(Completed {
        ready,
        has_intents: !intents::of(tx, id)?.is_empty(),
    })
}

/// The object is there, under a key that was claimed for it.
fn record(tx: &Connection, object: &Object, now: Timestamp) -> Result<()> {
    let sha256 = object.digests.get(DigestAlgorithm::Sha256);
    tx.prepare_cached(
        "UPDATE objects
         SET completed_at = ?2, size = ?3, content_type = ?4, digests = ?5, etag = ?6, verified = ?7,
             known_by = ?8, sha256 = ?9, space = ?10
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
        sha256.filter(|_| object.shared).map(Digest::value),
        object.space.as_str(),
    ])?;
    Ok(())
}

/// One more upload names an object.
fn name(tx: &Connection, key: &StoreKey) -> Result<()> {
    tx.prepare_cached("UPDATE objects SET named_by = named_by + 1 WHERE key = ?1")?
        .execute([key.as_str()])?;
    Ok(())
}

/// Remembers where an upload's object is, if that is another place than where its bytes were brought together.
fn place(tx: &Connection, id: UploadId, key: &StoreKey) -> Result<()> {
    tx.prepare_cached(
        "UPDATE upload_sessions SET object_key = ?2 WHERE id = ?1 AND store_key <> ?2",
    )?
    .execute(params![id.as_bytes(), key.as_str()])?;
    Ok(())
}

/// An upload that has just been created is completed by an object that is there, if it is and agrees with what is declared.
pub(super) fn complete_at_once(tx: &Connection, new: &NewUpload, address: &StoreKey) -> Result<()> {
    let Some(object) = rows::object(tx, address)? else {
        return Ok(());
    };
    // What the object is not known to have is not known to be so.
    let mut declared = new.declared.digests.iter();
    let typed_alike = !new.typed || object.content_type == new.declared.content_type;
    let agrees = typed_alike
        && new.max_size.is_none_or(|most| object.size <= most)
        && object.space == new.owner.space
        && new.length.is_none_or(|length| length == object.size)
        && declared.all(|digest| object.digests.get(digest.algorithm()) == Some(digest));
    if !agrees {
        return Ok(());
    }
    name(tx, address)?;
    place(tx, new.id, address)?;
    quota::grow(tx, new.id, Some(object.size))?;
    tx.prepare_cached("UPDATE upload_sessions SET length = ?2 WHERE id = ?1")?
        .execute(params![new.id.as_bytes(), integer(object.size.get())?])?;
    let at = new.now;
    end(tx, new.id, &UploadState::Completed { object, at }, at).map(drop)
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
    if standing.state == "completed" {
        if with_object {
            let_go(tx, id, now)?;
        } else {
            quota::keep(tx, id)?;
        }
    }
    end(tx, id, &UploadState::Aborted { at: now }, now)?;
    Ok(Aborted::Done)
}

/// A completed upload lets go of its object. If no other names it, its record goes, and an intent to delete it is left.
pub(super) fn let_go(tx: &Connection, id: UploadId, now: Timestamp) -> Result<()> {
    let object = tx
        .prepare_cached(
            "SELECT o.key, o.named_by, s.object_key IS NOT NULL FROM upload_sessions s
             JOIN objects o ON o.key = coalesce(s.object_key, s.store_key)
             WHERE s.id = ?1 AND s.state = 'completed'",
        )?
        .query_row([id.as_bytes()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((key, named_by, has_address)) = object else {
        return Ok(());
    };
    if named_by > 1 {
        tx.prepare_cached("UPDATE objects SET named_by = named_by - 1 WHERE key = ?1")?
            .execute([key])?;
        return Ok(());
    }
    let kind = if has_address {
        IntentKind::Address
    } else {
        IntentKind::Object
    };
    tx.prepare_cached(
        "INSERT OR REPLACE INTO intents (upload_id, kind, key, created_at) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![id.as_bytes(), rows::kind_name(kind), key, now.0])?;
    tx.prepare_cached("DELETE FROM objects WHERE key = ?1")?
        .execute([key])?;
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
    quota::settle(tx, id, state)?;
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
