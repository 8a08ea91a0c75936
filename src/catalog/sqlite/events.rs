//! The outbox: one event for each upload that ended, written in the transaction that ended it.

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use crate::catalog::Result;
use crate::model::{Timestamp, Upload, UploadState};

/// Writes the event of an upload that has just ended.
pub(super) fn write(tx: &Connection, upload: &Upload, now: Timestamp) -> Result<()> {
    tx.prepare_cached("INSERT INTO events (kind, upload_id, at, payload) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            upload.state.name(),
            upload.id.as_bytes(),
            now.0,
            payload(upload, now).to_string(),
        ])?;
    Ok(())
}

/// What is told of an upload, in the words of the wire. Nothing in it opens the upload.
fn payload(upload: &Upload, now: Timestamp) -> Value {
    let mut payload = json!({
        "upload_id": upload.id.to_string(),
        "event": upload.state.name(),
        "at": now,
        "protocol": upload.protocol.name(),
        "length": upload.length,
        "filename": upload.declared.filename,
        "content_type": upload.declared.content_type,
        "metadata": upload.declared.metadata,
        "created_at": upload.created_at,
    });
    match &upload.state {
        UploadState::Completed { object, .. } => {
            payload["object"] = json!({
                "key": object.key.as_str(),
                "size": object.size,
                "content_type": object.content_type,
                "digest": object.digests,
                "etag": object.etag,
                "verified": object.verified.name(),
                "store_checked": object.store_checked,
            });
        }
        UploadState::Failed { reason, .. } => {
            payload["failure_reason"] = reason.name().into();
        }
        _ => {}
    }
    payload
}
