//! From requests to commands of the engine. Pure.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};

use super::dialect::Dialect;
use super::disposition::filename;
use super::fields::{UPLOAD_LENGTH, integer};
use super::problem::{PARTIAL_UPLOAD, inconsistent_length, not_partial_upload};
use crate::api::error::{Code, Problem, UPLOAD_OFFSET};
use crate::api::fields::{
    REPR_DIGEST, checked_filename, content_digests, digest_field, is_media_type,
};
use crate::engine::{Complete, Create, NewRole, Write};
use crate::model::digest::Digests;
use crate::model::upload::{Declared, Protocol};
use crate::model::{Handle, Length, Offset};

/// A creation, and the content that comes with it.
#[derive(Debug)]
pub(super) struct Creation {
    /// The upload.
    pub(super) create: Create,
    /// Its first bytes, or all of them.
    pub(super) content: Content,
    /// Whether the client can go on with it. Otherwise it sends a file as to any server.
    pub(super) resumable: bool,
}

/// What the content of a request is of an upload.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// Where its first byte belongs.
    pub(super) start: Offset,
    /// Where it ends, if that is known ahead.
    pub(super) end: Option<Offset>,
    /// The upload's length, if the request tells it.
    pub(super) length: Option<Length>,
    /// Whether its end is the upload's.
    pub(super) last: bool,
    /// What it has to hash to.
    digests: Digests,
}

impl Content {
    /// The command that writes it.
    pub(super) fn write(&self, handle: &Handle) -> Write {
        Write {
            id: handle.id,
            key: handle.key.clone(),
            start: self.start,
            end: self.end,
            length: self.length,
            digests: self.digests.clone().into(),
            append: true,
            whole: None,
            completes: self.last,
        }
    }
}

/// The upload that a URL names. What is no handle looks like an upload that is not there.
pub(super) fn handle(segment: &str) -> Result<Handle, Problem> {
    segment.parse().map_err(|_| Problem::no_such_upload())
}

/// A creation. One that does not say whether its content is the whole is a conventional upload: it is the whole then.
pub(super) fn creation(dialect: &Dialect, headers: &HeaderMap) -> Result<Creation, Problem> {
    if integer(headers, &UPLOAD_OFFSET).is_some_and(|offset| offset > 0) {
        return Err(Problem::bad_request(
            "a new upload begins at 0; an append with Upload-Offset has to be sent to the URL of its upload",
        ));
    }
    let says_last = dialect.says_last(headers);
    let content = content(headers, Offset(0), says_last.unwrap_or(true))?;
    if let (Some(length), Some(end)) = (content.length, content.end)
        && end.get() > length.get()
    {
        return Err(inconsistent_length(format!(
            "Upload-Length is {length}, but the content alone has {end} bytes"
        )));
    }
    let create = Create {
        protocol: Protocol::Ietf,
        declared: declared(headers)?,
        length: content.length,
        idempotency: None,
        role: NewRole::Whole,
        seal: None,
    };
    Ok(Creation {
        create,
        content,
        resumable: says_last.is_some(),
    })
}

/// An append.
pub(super) fn append(dialect: &Dialect, headers: &HeaderMap) -> Result<Content, Problem> {
    if dialect.append_has_media_type && !is_partial_upload(headers) {
        return Err(not_partial_upload());
    }
    let offset = integer(headers, &UPLOAD_OFFSET).ok_or_else(|| {
        Problem::bad_request(
            "an append needs Upload-Offset, the number of bytes that are there, as in Upload-Offset: 100",
        )
    })?;
    let last = dialect.says_last_append(headers).ok_or_else(|| {
        Problem::bad_request(
            "an append needs Upload-Complete: ?1 if its content ends the upload, ?0 if more follows",
        )
    })?;
    content(headers, Offset(offset), last)
}

/// A question for the offset.
pub(super) fn retrieval(dialect: &Dialect, headers: &HeaderMap) -> Result<(), Problem> {
    refuse_fields(headers, dialect.not_on_head)
}

/// A cancellation.
pub(super) fn cancellation(dialect: &Dialect, headers: &HeaderMap) -> Result<(), Problem> {
    refuse_fields(headers, dialect.not_on_delete)
}

/// The completion of an upload whose last content ended at `end`.
pub(super) fn completion(handle: &Handle, end: Offset) -> Complete {
    Complete {
        id: handle.id,
        key: handle.key.clone(),
        digests: Digests::default(),
        length: Some(Length(end.get())),
    }
}

fn refuse_fields(headers: &HeaderMap, names: &[&str]) -> Result<(), Problem> {
    match names.iter().find(|name| headers.contains_key(**name)) {
        Some(name) => Err(Problem::bad_request(format!(
            "{name} is not allowed on this request in the version of the draft that it names"
        ))),
        None => Ok(()),
    }
}

fn content(headers: &HeaderMap, start: Offset, last: bool) -> Result<Content, Problem> {
    let size = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    let end = match size.map(|size| start.get().checked_add(size)) {
        None => None,
        Some(Some(end)) => Some(Offset(end)),
        Some(None) => {
            let detail = "the content is larger than any upload can be";
            return Err(Problem::new(Code::UploadLimit, detail));
        }
    };
    let told = integer(headers, &UPLOAD_LENGTH);
    let length = match (told, end.filter(|_| last)) {
        (Some(told), Some(end)) if told != end.get() => {
            return Err(inconsistent_length(format!(
                "Upload-Length is {told}, but by offset and Content-Length it is {end}"
            )));
        }
        (told, end) => told.or(end.map(Offset::get)),
    };
    Ok(Content {
        start,
        end,
        length: length.map(Length),
        last,
        digests: content_digests(headers)?,
    })
}

fn declared(headers: &HeaderMap) -> Result<Declared, Problem> {
    let filename = headers
        .get(CONTENT_DISPOSITION)
        .and_then(|field| std::str::from_utf8(field.as_bytes()).ok())
        .and_then(filename)
        .map(checked_filename)
        .transpose()?;
    let content_type = match headers.get(CONTENT_TYPE) {
        None => None,
        // That is what the request carries, not what the file is.
        Some(_) if is_partial_upload(headers) => None,
        Some(name) => match name.to_str() {
            Ok(name) if is_media_type(name) => Some(name.to_owned()),
            _ => {
                return Err(Problem::bad_request(
                    "Content-Type has to be a media type, as in image/jpeg",
                ));
            }
        },
    };
    Ok(Declared {
        filename,
        content_type,
        metadata: BTreeMap::new(),
        metadata_field: None,
        digests: digest_field(headers, &REPR_DIGEST)?,
        sequential: true,
    })
}

fn is_partial_upload(headers: &HeaderMap) -> bool {
    let name = headers
        .get(CONTENT_TYPE)
        .and_then(|name| name.to_str().ok())
        .and_then(|name| name.split(';').next());
    name.is_some_and(|name| name.trim().eq_ignore_ascii_case(PARTIAL_UPLOAD))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
