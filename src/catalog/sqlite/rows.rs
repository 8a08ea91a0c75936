//! Rows into the model's types and back. What cannot be read is `Corrupt`, never guessed.

use std::collections::BTreeMap;
use std::str::FromStr;

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::direct;
use super::error::corrupt;
use crate::catalog::{CatalogError, Due, Intent, IntentKind, Result};
use crate::model::digest::Digests;
use crate::model::quota::Device;
use crate::model::upload::{Declared, Epoch, HashPoint, Snapshot, StoreUploadId};
use crate::model::{
    ByteRange, Digest, KeyHash, Length, Object, Offset, PartNumber, PartReceipt, RangeSet,
    StoreKey, Timestamp, Upload, UploadId, UploadOwner, UploadState,
};

/// The upload with all that hangs on it.
pub(super) fn snapshot(tx: &Connection, id: UploadId) -> Result<Option<Snapshot>> {
    let Some(upload) = upload(tx, id)? else {
        return Ok(None);
    };
    Ok(Some(Snapshot {
        upload,
        received: received(tx, id)?,
        parts: parts(tx, id)?,
        direct: direct::of(tx, id)?,
    }))
}

/// The upload alone.
pub(super) fn upload(tx: &Connection, id: UploadId) -> Result<Option<Upload>> {
    tx.prepare_cached(
        "SELECT s.*, o.key AS stored_key, o.upload_id AS object_first, o.size AS object_size, o.content_type AS object_content_type,
                o.digests AS object_digests, o.etag AS object_etag, o.verified AS object_verified,
                o.known_by AS object_known_by, o.space AS object_space, o.sha256 IS NOT NULL AS object_shared,
                CASE WHEN s.role = 'final' AND s.length IS NULL THEN
                    (SELECT CASE WHEN count(*) = count(p.length) THEN sum(p.length) END
                     FROM upload_concat c JOIN upload_sessions p ON p.id = c.part_id WHERE c.final_id = s.id)
                END AS length_of_parts
         FROM upload_sessions s
         LEFT JOIN objects o
             ON s.state = 'completed' AND o.key = coalesce(s.object_key, s.store_key) AND o.completed_at IS NOT NULL
         WHERE s.id = ?1",
    )?
    .query_row([id.as_bytes()], |row| Ok(read_upload(row)))
    .optional()?
    .transpose()
}

fn read_upload(row: &Row<'_>) -> Result<Upload> {
    Ok(Upload {
        id: read_id(row, "id")?,
        key_hash: KeyHash(column(row, "key_hash")?),
        owner: read_owner(row)?,
        max_size: optional_number(row, "max_size")?.map(Length),
        typed: column(row, "typed")?,
        protocol: word(row, "protocol")?,
        role: word(row, "role")?,
        declared: Declared {
            filename: column(row, "filename")?,
            content_type: column(row, "content_type")?,
            metadata: metadata(row)?,
            metadata_field: column(row, "metadata_field")?,
            digests: digests(row, "declared_digests")?,
            sequential: column(row, "sequential")?,
        },
        state: read_state(row)?,
        length: optional_number(row, "length")?
            .or(optional_number(row, "length_of_parts")?)
            .map(Length),
        plan: word(row, "plan")?,
        epoch: Epoch(number(row, "epoch")?),
        hash: HashPoint {
            offset: Offset(number(row, "hash_offset")?),
            state: column(row, "hash_state")?,
        },
        readback: column(row, "readback")?,
        boot: column(row, "boot")?,
        store_key: word(row, "store_key")?,
        store_upload_id: column::<Option<String>>(row, "store_upload_id")?.map(StoreUploadId),
        unchecked: column(row, "unchecked")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        expires_at: time(row, "expires_at")?,
        sealed: column(row, "sealed")?,
    })
}

/// Whose an upload is, and the hash of the key that opens it.
pub(super) fn owner(tx: &Connection, id: UploadId) -> Result<Option<(KeyHash, UploadOwner)>> {
    tx.prepare_cached(
        "SELECT key_hash, space, subject, token, device FROM upload_sessions WHERE id = ?1",
    )?
    .query_row([id.as_bytes()], |row| {
        Ok(column(row, "key_hash").and_then(|hash| Ok((KeyHash(hash), read_owner(row)?))))
    })
    .optional()?
    .transpose()
}

/// Whose an upload is.
pub(super) fn read_owner(row: &Row<'_>) -> Result<UploadOwner> {
    let device = match column::<Option<String>>(row, "device")?.as_deref() {
        None => None,
        Some("") => Some(Device::Unnamed),
        Some(_) => optional_word(row, "device")?.map(Device::Named),
    };
    Ok(UploadOwner {
        space: word(row, "space")?,
        subject: optional_word(row, "subject")?,
        token: optional_word(row, "token")?,
        device,
    })
}

fn read_state(row: &Row<'_>) -> Result<UploadState> {
    let at = || time(row, "ended_at");
    let name: String = column(row, "state")?;
    Ok(match name.as_str() {
        "pending" => UploadState::Pending,
        "uploading" => UploadState::Uploading,
        "assembling" => UploadState::Assembling {
            attempts: small(row, "attempts")?,
            until: time(row, "held_until")?,
        },
        "completed" => UploadState::Completed {
            object: read_object(row)?,
            at: at()?,
        },
        "failed" => UploadState::Failed {
            reason: word(row, "failure_reason")?,
            at: at()?,
        },
        "aborted" => UploadState::Aborted { at: at()? },
        "expired" => UploadState::Expired { at: at()? },
        _ => return Err(corrupt("state", format!("{name:?} is no state"))),
    })
}

fn read_object(row: &Row<'_>) -> Result<Object> {
    Ok(Object {
        key: word(row, "stored_key")?,
        first: read_id(row, "object_first")?,
        space: word(row, "object_space")?,
        shared: column(row, "object_shared")?,
        size: Length(number(row, "object_size")?),
        content_type: column(row, "object_content_type")?,
        digests: digests(row, "object_digests")?,
        etag: column(row, "object_etag")?,
        verified: word(row, "object_known_by")?,
        store_checked: column(row, "object_verified")?,
    })
}

/// The object under a key, if it is complete.
pub(super) fn object(tx: &Connection, key: &StoreKey) -> Result<Option<Object>> {
    one_object(tx, OBJECT_BY_KEY, params![key.as_str()])
}

/// The object with this content, if there is one that is addressed by it.
pub(super) fn object_with(tx: &Connection, sha256: &Digest) -> Result<Option<Object>> {
    one_object(tx, OBJECT_BY_CONTENT, params![sha256.value()])
}

/// A query for objects, under the names that [`read_object`] knows.
macro_rules! objects_where {
    ($condition:literal) => {
        concat!(
            "SELECT key AS stored_key, upload_id AS object_first, size AS object_size,
                content_type AS object_content_type, digests AS object_digests, etag AS object_etag,
                verified AS object_verified, known_by AS object_known_by, space AS object_space,
                sha256 IS NOT NULL AS object_shared
             FROM objects WHERE completed_at IS NOT NULL AND ",
            $condition
        )
    };
}

const OBJECT_BY_KEY: &str = objects_where!("key = ?1");
pub(super) const OBJECT_BY_CONTENT: &str = objects_where!("sha256 = ?1 LIMIT 1");

fn one_object(tx: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Option<Object>> {
    tx.prepare_cached(sql)?
        .query_and_then(params, read_object)?
        .next()
        .transpose()
}

fn received(tx: &Connection, id: UploadId) -> Result<RangeSet> {
    tx.prepare_cached("SELECT start, stop FROM upload_ranges WHERE upload_id = ?1 ORDER BY start")?
        .query_and_then([id.as_bytes()], read_range)?
        .collect()
}

fn parts(tx: &Connection, id: UploadId) -> Result<BTreeMap<PartNumber, PartReceipt>> {
    tx.prepare_cached(
        "SELECT number, start, stop, etag, checksum_kind, checksum
         FROM upload_parts WHERE upload_id = ?1 ORDER BY number",
    )?
    .query_and_then([id.as_bytes()], |row| {
        let number = PartNumber(small(row, "number")?);
        let checksum = match column::<Option<String>>(row, "checksum")? {
            Some(value) => Some((word(row, "checksum_kind")?, value)),
            None => None,
        };
        let receipt = PartReceipt {
            number,
            range: read_range(row)?,
            etag: column(row, "etag")?,
            checksum,
        };
        Ok((number, receipt))
    })?
    .collect()
}

fn read_range(row: &Row<'_>) -> Result<ByteRange> {
    let (start, stop) = (number(row, "start")?, number(row, "stop")?);
    ByteRange::new(start, stop).ok_or_else(|| corrupt("stop", format!("{stop} follows {start}")))
}

/// What `sql` lists of uploads whose time has come by `now`, after `after`.
pub(super) fn due(
    tx: &Connection,
    sql: &str,
    now: Timestamp,
    after: Option<Due>,
    limit: u32,
) -> Result<Vec<Due>> {
    // Every blob comes after the empty one.
    let (at, id) = after.as_ref().map_or((i64::MIN, &[][..]), |last| {
        (last.at.0, last.id.as_bytes().as_slice())
    });
    tx.prepare_cached(sql)?
        .query_and_then(params![now.0, at, id, limit], |row| {
            Ok(Due {
                at: time(row, "at")?,
                id: read_id(row, "id")?,
            })
        })?
        .collect()
}

/// An intent's row, with its upload in `upload_id`.
pub(super) fn read_intent(row: &Row<'_>) -> Result<Intent> {
    let kind: String = column(row, "kind")?;
    Ok(Intent {
        upload: read_id(row, "upload_id")?,
        kind: match kind.as_str() {
            "multipart" => IntentKind::Multipart,
            "object" => IntentKind::Object,
            "address" => IntentKind::Address,
            _ => return Err(corrupt("kind", format!("{kind:?} is no kind of intent"))),
        },
        key: word(row, "key")?,
        store_upload_id: column::<Option<String>>(row, "store_upload_id")?.map(StoreUploadId),
        created_at: time(row, "created_at")?,
    })
}

/// The name of an intent's kind.
pub(super) fn kind_name(kind: IntentKind) -> &'static str {
    match kind {
        IntentKind::Multipart => "multipart",
        IntentKind::Object => "object",
        IntentKind::Address => "address",
    }
}

/// An upload's id.
pub(super) fn read_id(row: &Row<'_>, name: &'static str) -> Result<UploadId> {
    column(row, name).map(UploadId::from_bytes)
}

/// A column of any type that SQLite's maps to.
pub(super) fn column<T: FromSql>(row: &Row<'_>, name: &'static str) -> Result<T> {
    row.get(name).map_err(CatalogError::from)
}

/// A column that counts something.
pub(super) fn number(row: &Row<'_>, name: &'static str) -> Result<u64> {
    let value: i64 = column(row, name)?;
    u64::try_from(value).map_err(|error| corrupt(name, error))
}

/// A column that counts something and may be empty.
pub(super) fn optional_number(row: &Row<'_>, name: &'static str) -> Result<Option<u64>> {
    column::<Option<i64>>(row, name)?
        .map(|value| u64::try_from(value).map_err(|error| corrupt(name, error)))
        .transpose()
}

/// A column that counts something small.
pub(super) fn small(row: &Row<'_>, name: &'static str) -> Result<u32> {
    u32::try_from(number(row, name)?).map_err(|error| corrupt(name, error))
}

/// A column with a time.
pub(super) fn time(row: &Row<'_>, name: &'static str) -> Result<Timestamp> {
    column(row, name).map(Timestamp)
}

/// A column of text that a type of the model parses.
pub(super) fn word<T>(row: &Row<'_>, name: &'static str) -> Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    column::<String>(row, name)?
        .parse()
        .map_err(|error: T::Err| corrupt(name, error))
}

/// The same of a column that may be empty.
fn optional_word<T>(row: &Row<'_>, name: &'static str) -> Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    column::<Option<String>>(row, name)?
        .map(|text| text.parse().map_err(|error: T::Err| corrupt(name, error)))
        .transpose()
}

fn metadata(row: &Row<'_>) -> Result<BTreeMap<String, String>> {
    serde_json::from_str(&column::<String>(row, "metadata")?)
        .map_err(|error| corrupt("metadata", error))
}

/// A column with digests.
pub(super) fn digests(row: &Row<'_>, name: &'static str) -> Result<Digests> {
    let map: BTreeMap<String, String> = serde_json::from_str(&column::<String>(row, name)?)
        .map_err(|error| corrupt(name, error))?;
    Digests::from_hex_map(map.iter().map(|(name, value)| (&**name, &**value)))
        .map_err(|error| corrupt(name, error))
}

/// A count as SQLite takes it. Nothing that the server lets in comes near the limit.
pub(super) fn integer(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|error| corrupt("a count of bytes", error))
}

/// Any of our maps as JSON text.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| CatalogError::Corrupt(error.into()))
}
