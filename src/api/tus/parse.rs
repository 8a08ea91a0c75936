//! From requests to commands of the engine. Pure.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{TUS_RESUMABLE, TUS_VERSION, VERSION, checksum, concat, metadata};
use crate::api::error::{Code, Problem, UPLOAD_OFFSET};
use crate::api::method::METHOD_OVERRIDE;
use crate::engine::{Create, Expected, NewRole, Secret, Write};
use crate::model::upload::{Declared, Protocol};
use crate::model::{Handle, Length, Offset};

const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");

/// The media type of bodies that bring bytes.
const BYTES: &str = "application/offset+octet-stream";

/// What a POST asks for.
#[derive(Debug)]
pub(super) struct Creation {
    /// To create an upload.
    pub(super) create: Create,
    /// To take its first bytes, if there is a body of the right type.
    pub(super) chunk: Option<Chunk>,
}

/// A body that brings bytes.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Where they belong.
    pub(super) start: Offset,
    /// How many, if that is known.
    size: Option<u64>,
    /// The upload's length, if it is told.
    length: Option<Length>,
    /// What they have to hash to.
    pub(super) digests: Expected,
}

impl Chunk {
    /// The command to write it.
    pub(super) fn into_write(self, handle: &Handle) -> Write {
        let end = |size| Offset(self.start.get().saturating_add(size));
        Write {
            id: handle.id,
            key: handle.key.clone(),
            start: self.start,
            end: self.size.map(end),
            length: self.length,
            digests: self.digests,
            append: true,
            whole: None,
            completes: true,
        }
    }
}

/// The method that counts. `None`: it is none that HTTP can name.
pub(super) fn method(method: &Method, headers: &HeaderMap) -> Option<Method> {
    match headers.get(METHOD_OVERRIDE) {
        None => Some(method.clone()),
        Some(other) => Method::from_bytes(other.as_bytes()).ok(),
    }
}

/// Refuses another version of the protocol, and a request that names none.
pub(super) fn version(headers: &HeaderMap) -> Result<(), Problem> {
    let mut versions = headers.get_all(TUS_RESUMABLE).iter();
    match (versions.next(), versions.next()) {
        (Some(version), None) if version == VERSION => Ok(()),
        _ => Err(
            Problem::bad_request(format!("Tus-Resumable has to be {VERSION}"))
                .with_status(StatusCode::PRECONDITION_FAILED)
                .header(TUS_VERSION, HeaderValue::from_static(VERSION)),
        ),
    }
}

/// The upload that a URL names, with the key that opens it.
pub(super) fn handle(segment: &str) -> Result<Handle, Problem> {
    segment.parse().map_err(|_| Problem::no_such_upload())
}

/// A creation.
pub(super) fn creation(headers: &HeaderMap) -> Result<Creation, Problem> {
    let concat = one(headers, &UPLOAD_CONCAT)?;
    let role = concat.map_or(Ok(NewRole::Whole), concat::parse)?;
    let length = length_of_new(headers, &role)?;
    let is_final = matches!(role, NewRole::Final(_));
    let chunk = if !is_final && brings_bytes(headers) {
        Some(first_chunk(headers, length)?)
    } else {
        None
    };
    let create = Create {
        protocol: Protocol::Tus,
        declared: declared(headers)?,
        length,
        idempotency: None,
        seal: concat
            .filter(|_| is_final)
            .map(|urls| Secret(urls.to_owned())),
        role,
    };
    Ok(Creation { create, chunk })
}

/// Why a creation's body is not taken.
pub(super) fn unwanted_body(role: &NewRole) -> Problem {
    match role {
        NewRole::Final(_) => {
            Problem::bad_request("an upload that is put together from others takes no bytes itself")
        }
        NewRole::Whole | NewRole::Partial => wrong_media_type(),
    }
}

/// A PATCH.
pub(super) fn chunk(headers: &HeaderMap) -> Result<Chunk, Problem> {
    if !brings_bytes(headers) {
        return Err(wrong_media_type());
    }
    let start = number(headers, &UPLOAD_OFFSET)?.ok_or_else(|| {
        Problem::bad_request("Upload-Offset has to say where the body's first byte belongs")
    })?;
    Ok(Chunk {
        start: Offset(start),
        size: content_length(headers),
        length: number(headers, &UPLOAD_LENGTH)?.map(Length),
        digests: checksum::expected(headers)?,
    })
}

/// The first bytes of an upload that is created with them.
fn first_chunk(headers: &HeaderMap, length: Option<Length>) -> Result<Chunk, Problem> {
    let size = content_length(headers);
    // Told before anything is created: nobody would come back for it.
    if let (Some(size), Some(length)) = (size, length)
        && size > length.get()
    {
        return Err(Problem::new(
            Code::RangeMismatch,
            format!("the body has {size} bytes, more than the upload's length of {length}"),
        )
        .with_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    Ok(Chunk {
        start: Offset(0),
        size,
        length: None,
        digests: checksum::expected(headers)?,
    })
}

fn length_of_new(headers: &HeaderMap, role: &NewRole) -> Result<Option<Length>, Problem> {
    let length = number(headers, &UPLOAD_LENGTH)?.map(Length);
    let deferred = match one(headers, &UPLOAD_DEFER_LENGTH)? {
        None => false,
        Some("1") => true,
        Some(_) => {
            return Err(Problem::bad_request(
                "Upload-Defer-Length has to be 1 or absent",
            ));
        }
    };
    match (role, length, deferred) {
        (NewRole::Final(_), None, false) => Ok(None),
        (NewRole::Final(_), ..) => Err(Problem::bad_request(
            "an upload that is put together from others takes its length from them: no Upload-Length, no Upload-Defer-Length",
        )),
        (_, Some(length), false) => Ok(Some(length)),
        (_, None, true) => Ok(None),
        _ => Err(Problem::bad_request(
            "there has to be either Upload-Length or Upload-Defer-Length: 1",
        )),
    }
}

fn declared(headers: &HeaderMap) -> Result<Declared, Problem> {
    let mut lines = Vec::new();
    for line in headers.get_all(UPLOAD_METADATA) {
        let line = line
            .to_str()
            .map_err(|_| Problem::bad_request("Upload-Metadata has to be ASCII"))?;
        lines.push(line);
    }
    // Lines of a list are the same as one line with commas (RFC 9110, section 5.3).
    metadata::parse(&lines.join(","))
}

fn brings_bytes(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let name = value
            .to_str()
            .ok()
            .and_then(|value| value.split(';').next());
        name.is_some_and(|name| name.trim().eq_ignore_ascii_case(BYTES))
    })
}

fn wrong_media_type() -> Problem {
    Problem::new(
        Code::UnsupportedMediaType,
        format!("a body that brings bytes has to be {BYTES}"),
    )
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The value of a field that may stand once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(Problem::bad_request(format!(
            "{name} has to come once, in ASCII"
        ))),
    }
}

/// A number of bytes. One that is too large for us is larger than every upload, which the engine says better.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Problem> {
    let Some(digits) = one(headers, name)? else {
        return Ok(None);
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::bad_request(format!(
            "{name} has to be a number of bytes, in digits"
        )));
    }
    Ok(Some(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
