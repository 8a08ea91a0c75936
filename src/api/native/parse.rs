//! From requests to commands of the engine. Pure.

use std::collections::BTreeMap;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::content_range::{self, ContentRange, mismatch};
use crate::api::error::Problem;
use crate::api::fields::{checked_filename, content_digests, is_media_type};
use crate::api::json::json;
use crate::engine::{Complete, Create, IdempotencyKey, NewRole, Write};
use crate::model::digest::Digests;
use crate::model::upload::{Declared, Protocol};
use crate::model::{Length, Offset, UploadId, UploadKey};

const UPLOAD_KEY: HeaderName = HeaderName::from_static("upload-key");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The shortest and the longest idempotency key. It hands out an upload's key, so it may not be guessed.
const IDEMPOTENCY_KEY_CHARS: std::ops::RangeInclusive<usize> = 22..=255;
const MAX_METADATA_BYTES: usize = 4096;

/// Which upload, and what opens it.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    /// Which upload.
    pub(super) id: UploadId,
    /// Its key.
    pub(super) key: UploadKey,
}

/// What a PUT to a chunk asks for.
#[derive(Debug, Clone)]
pub(super) enum Chunk {
    /// To write its body.
    Write(Write),
    /// To end what hangs, and to be told how far the upload got.
    Ask {
        /// Which upload.
        credentials: Credentials,
        /// Its length, if it is told.
        length: Option<Length>,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CreateJson {
    filename: Option<String>,
    length: Option<u64>,
    content_type: Option<String>,
    metadata: BTreeMap<String, String>,
    digest: BTreeMap<String, String>,
    sequential: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CompleteJson {
    digest: BTreeMap<String, String>,
    length: Option<u64>,
}

/// The upload and the key that a request names. Anything wrong with either looks like an upload that is not there.
pub(super) fn credentials(id: &str, headers: &HeaderMap) -> Result<Credentials, Problem> {
    let id = id.parse().map_err(|_| Problem::no_such_upload())?;
    key(headers)
        .map(|key| Credentials { id, key })
        .ok_or_else(Problem::no_such_upload)
}

/// The key that a request names, if it is one.
pub(super) fn key(headers: &HeaderMap) -> Option<UploadKey> {
    let mut keys = headers.get_all(UPLOAD_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) => key.to_str().ok().and_then(|key| key.parse().ok()),
        _ => None,
    }
}

/// A creation.
pub(super) fn create(headers: &HeaderMap, body: &[u8]) -> Result<Create, Problem> {
    let idempotency = idempotency_key(headers)?;
    let json: CreateJson = json(headers, body)?;
    let filename = json.filename.filter(|name| !name.is_empty());
    let filename = filename.map(checked_filename).transpose()?;
    let metadata_bytes: usize = json.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if metadata_bytes > MAX_METADATA_BYTES {
        return Err(Problem::bad_request(format!(
            "metadata may have at most {MAX_METADATA_BYTES} bytes in all"
        )));
    }
    if json
        .content_type
        .as_deref()
        .is_some_and(|name| !is_media_type(name))
    {
        return Err(Problem::bad_request(
            "content_type has to be a media type, as in image/jpeg",
        ));
    }
    Ok(Create {
        protocol: Protocol::Native,
        declared: Declared {
            filename,
            content_type: json.content_type,
            metadata: json.metadata,
            metadata_field: None,
            digests: digests(&json.digest)?,
            sequential: json.sequential,
        },
        length: json.length.map(Length),
        idempotency,
        role: NewRole::Whole,
        seal: None,
    })
}

/// A chunk.
pub(super) fn chunk(id: &str, headers: &HeaderMap) -> Result<Chunk, Problem> {
    let credentials = credentials(id, headers)?;
    let mut ranges = headers.get_all(CONTENT_RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Err(Problem::bad_request(
            "a chunk needs one Content-Range, as in \"bytes 0-1048575/4194304\"",
        ));
    };
    let range = range
        .to_str()
        .map_err(|_| Problem::bad_request("Content-Range has to be ASCII"))?;
    let content_length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    match content_range::parse(range)? {
        ContentRange::Unsatisfied { length } => {
            if content_length.is_some_and(|length| length > 0) {
                return Err(mismatch(
                    "Content-Range names no bytes, but there is a body",
                ));
            }
            Ok(Chunk::Ask {
                credentials,
                length: length.map(Length),
            })
        }
        ContentRange::Bytes { start, end, length } => {
            let size = end - start;
            if let Some(announced) = content_length.filter(|announced| *announced != size) {
                return Err(mismatch(format!(
                    "Content-Range has {size} bytes, Content-Length says {announced}"
                )));
            }
            Ok(Chunk::Write(Write {
                id: credentials.id,
                key: credentials.key,
                start: Offset(start),
                end: Some(Offset(end)),
                length: length.map(Length),
                digests: content_digests(headers)?.into(),
                append: false,
                whole: None,
                completes: false,
            }))
        }
    }
}

/// A completion.
pub(super) fn complete(
    credentials: Credentials,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Complete, Problem> {
    let json: CompleteJson = json(headers, body)?;
    Ok(Complete {
        id: credentials.id,
        key: credentials.key,
        digests: digests(&json.digest)?,
        length: json.length.map(Length),
    })
}

fn digests(map: &BTreeMap<String, String>) -> Result<Digests, Problem> {
    Digests::from_hex_map(map.iter().map(|(name, hex)| (name.as_str(), hex.as_str())))
        .map_err(|error| Problem::bad_request(format!("digest: {error}")))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let key = key.to_str().ok().filter(|key| {
        IDEMPOTENCY_KEY_CHARS.contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_graphic())
    });
    match (key, keys.next()) {
        (Some(key), None) => Ok(Some(IdempotencyKey(key.to_owned()))),
        _ => Err(Problem::bad_request(format!(
            "Idempotency-Key has to have {} to {} visible ASCII characters",
            IDEMPOTENCY_KEY_CHARS.start(),
            IDEMPOTENCY_KEY_CHARS.end()
        ))),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
