//! Creating uploads, and finding again what was created.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{self, column, integer, json};
use super::writing::bump_epoch;
use super::{concat, direct, ending, quota};
use crate::catalog::{CatalogError, Created, Idempotency, NewUpload, Result};
use crate::model::quota::Device;
use crate::model::upload::Role;
use crate::model::{Subject, Timestamp, TokenId, UploadId, UploadState};

pub(super) fn create(
    tx: &Connection,
    new: &NewUpload,
    idempotency: Option<&Idempotency>,
) -> Result<Created> {
    if let Some(idempotency) = idempotency
        && let Some(found) = earlier(tx, new, idempotency)?
    {
        return Ok(found);
    }
    if let Some(missing) = concat::first_missing(tx, &new.parts)? {
        return Ok(Created::PartGone(missing));
    }
    insert(tx, new)?;
    if new.role == Role::Final {
        concat::insert(tx, new)?;
    }
    quota::reserve(tx, new)?;
    if new.role == Role::Final {
        concat::assemble_if_ready(tx, new.id, new.held_until)?;
    }
    if let Some(address) = &new.instant {
        ending::complete_at_once(tx, new, address)?;
    }
    if let Some(idempotency) = idempotency {
        tx.prepare_cached(
            "INSERT OR REPLACE INTO idempotency (key_hash, fingerprint, upload_id, expires_at)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            idempotency.key_hash,
            idempotency.fingerprint,
            new.id.as_bytes(),
            idempotency.expires_at.0,
        ])?;
    }
    Ok(Created::New(load(tx, new.id)?))
}

/// What an earlier creation under the same idempotency key makes of this one; `None` if there was none, or its upload has
/// expired: for the client that one is gone, whether it was pruned already or not.
fn earlier(tx: &Connection, new: &NewUpload, idempotency: &Idempotency) -> Result<Option<Created>> {
    let recorded = tx
        .prepare_cached(
            "SELECT fingerprint, upload_id FROM idempotency WHERE key_hash = ?1 AND expires_at > ?2",
        )?
        .query_row(params![idempotency.key_hash, new.now.0], |row| {
            Ok(column(row, "fingerprint")
                .and_then(|print: [u8; 32]| Ok((print, rows::read_id(row, "upload_id")?))))
        })
        .optional()?
        .transpose()?;
    let Some((fingerprint, id)) = recorded else {
        return Ok(None);
    };
    if fingerprint != idempotency.fingerprint {
        return Ok(Some(Created::Mismatch));
    }
    let upload = load(tx, id)?;
    match upload.state {
        UploadState::Expired { .. } => return Ok(None),
        state if state.takes_bytes() && upload.expires_at <= new.now => return Ok(None),
        // Whoever has a URL has had the first answer.
        UploadState::Pending if direct::of(tx, id)?.is_empty() => {}
        // It was completed at once, and has received nothing.
        UploadState::Completed { .. } if is_untouched(tx, id)? => {}
        _ => return Ok(Some(Created::InUse)),
    }
    hand_over(tx, id, new, new.now)?;
    Ok(Some(Created::Repeated(load(tx, id)?)))
}

/// Whether nothing was ever received.
fn is_untouched(tx: &Connection, id: UploadId) -> Result<bool> {
    let mut any = tx.prepare_cached("SELECT 1 FROM upload_ranges WHERE upload_id = ?1")?;
    Ok(!any.exists([id.as_bytes()])?)
}

/// Gives an upload a new key; whoever had the old one is out.
fn hand_over(tx: &Connection, id: UploadId, new: &NewUpload, now: Timestamp) -> Result<()> {
    tx.prepare_cached("UPDATE upload_sessions SET key_hash = ?2 WHERE id = ?1")?
        .execute(params![id.as_bytes(), new.key_hash.0])?;
    bump_epoch(tx, id, now)
}

fn insert(tx: &Connection, new: &NewUpload) -> Result<()> {
    let inserted = tx
        .prepare_cached(
            "INSERT INTO upload_sessions
                (id, key_hash, protocol, state, length, plan, epoch, store_key, declared_digests, sequential,
                 filename, content_type, metadata, created_at, updated_at, expires_at, readback, role, metadata_field,
                 sealed, space, subject, token, device, max_size, retention_ms, typed)
             VALUES (?1, ?2, ?3, 'pending', ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13, ?14, ?15, ?16, ?17,
                ?18, ?19, ?20, ?21, ?22, ?23, ?24)
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            new.id.as_bytes(),
            new.key_hash.0,
            new.protocol.name(),
            new.length.map(|length| integer(length.get())).transpose()?,
            new.plan.to_string(),
            new.store_key.as_str(),
            json(&new.declared.digests)?,
            new.declared.sequential,
            new.declared.filename,
            new.declared.content_type,
            json(&new.declared.metadata)?,
            new.now.0,
            new.expires_at.0,
            // What is put together from others passes no hasher on its way.
            new.role == Role::Final,
            new.role.name(),
            new.declared.metadata_field,
            new.sealed,
            new.owner.space.as_str(),
            new.owner.subject.as_ref().map(Subject::as_str),
            new.owner.token.as_ref().map(TokenId::as_str),
            new.owner.device.as_ref().map(Device::as_str),
            new.max_size.map(|size| integer(size.get())).transpose()?,
            new.retention.map(|time| Timestamp(0).after(time).0),
            new.typed,
        ])?;
    if inserted == 0 {
        return Err(CatalogError::Stale);
    }
    Ok(())
}

fn load(tx: &Connection, id: UploadId) -> Result<crate::model::Upload> {
    rows::upload(tx, id)?.ok_or(CatalogError::NotFound)
}
