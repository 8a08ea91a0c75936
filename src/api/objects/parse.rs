//! From a request's head, and what a form says of its file, to commands of the engine. Pure.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use percent_encoding::percent_decode_str;

use crate::api::error::{Code, Problem};
use crate::api::fields::{
    REPR_DIGEST, checked_filename, content_digests, digest_field, is_media_type,
};
use crate::engine::{Complete, Create, EngineError, NewRole, Whole, Write};
use crate::model::digest::Digests;
use crate::model::upload::{Declared, Protocol};
use crate::model::{Digest, DigestAlgorithm, Handle, Length, Offset};

/// The address in a path: a SHA-256 in hex.
pub(super) fn address(hex: &str) -> Result<Digest, Problem> {
    Digest::from_hex(DigestAlgorithm::Sha256, hex).map_err(|_| {
        Problem::bad_request("an object's address is a SHA-256: 64 hexadecimal digits")
    })
}

/// The most that a form may have beside its file: heads of parts, other fields.
pub(super) const MAX_FORM_BYTES: u64 = 64 << 10;

/// What the type of a form's body may say of where its parts end (RFC 2046, section 5.1.1).
const BOUNDARY_CHARS: std::ops::RangeInclusive<usize> = 1..=70;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// To leave the file as a session that is completed or aborted later.
    pub(super) stage: bool,
    /// How the file is wrapped.
    pub(super) kind: Kind,
    /// What is said of the file.
    pub(super) told: Told,
    content_length: Option<u64>,
}

/// How the file is wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The body is the file.
    Raw,
    /// It is a part of a form.
    Form {
        /// What its parts are parted by.
        boundary: String,
    },
}

/// What is said of a file before its bytes come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    filename: Option<String>,
    size: Option<u64>,
    digests: Digests,
    content_type: Option<String>,
}

/// A file that is to be taken.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// The upload that it becomes.
    pub(super) create: Create,
    /// Whether it is left as a session.
    pub(super) stage: bool,
    max_size: Length,
}

impl File {
    /// The command that writes all of it.
    pub(super) fn write(&self, handle: &Handle) -> Write {
        Write {
            id: handle.id,
            key: handle.key.clone(),
            start: Offset(0),
            end: self.create.length.map(|length| Offset(length.get())),
            length: None,
            digests: Digests::default().into(),
            append: true,
            whole: Some(Whole {
                at_most: self.max_size,
            }),
            completes: !self.stage,
        }
    }
}

/// The command that makes the object.
pub(super) fn completion(handle: &Handle) -> Complete {
    Complete {
        id: handle.id,
        key: handle.key.clone(),
        digests: Digests::default(),
        length: None,
    }
}

/// Reads a request's head.
pub(super) fn request(
    query: Option<&str>,
    headers: &HeaderMap,
    max_size: Length,
) -> Result<Asked, Problem> {
    let mut told = Told::default();
    let mut stage = None;
    for pair in query.unwrap_or_default().split('&') {
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        if name == "stage" {
            once(&mut stage, "stage", staged(&value)?)?;
        } else if !told.take(&name, &value)? {
            return Err(Problem::bad_request(format!(
                "the parameter {name:?} is not known; known are filename, size, digest and stage"
            )));
        }
    }
    let kind = told.take_content_type(headers)?;
    let mut digests = content_digests(headers)?;
    for digest in digest_field(headers, &REPR_DIGEST)?.iter() {
        add(&mut digests, digest)?;
    }
    if kind != Kind::Raw && !digests.is_empty() {
        return Err(Problem::bad_request(
            "a form's header fields cannot tell the digest of its file: the parameter digest can",
        ));
    }
    for digest in digests.iter() {
        add(&mut told.digests, digest)?;
    }
    let content_length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse().ok());
    let asked = Asked {
        stage: stage.unwrap_or(false),
        kind,
        told,
        content_length,
    };
    // Once more when a form has said more, but what is known is refused before anything is sent.
    asked.check_size(max_size)?;
    Ok(asked)
}

impl Told {
    /// Takes what is told under a name; `false`: such a thing cannot be told.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        match name {
            "filename" => {
                let filename = checked_filename(value.to_owned())?;
                once(&mut self.filename, "filename", filename)?;
            }
            "size" => once(&mut self.size, "size", bytes(value)?)?,
            "digest" => add(&mut self.digests, &digest(value)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes what a part of a form says of itself. A name that was told otherwise comes first.
    pub(super) fn take_part(
        &mut self,
        filename: &str,
        content_type: Option<&str>,
    ) -> Result<(), Problem> {
        let filename = checked_filename(filename.to_owned())?;
        self.filename.get_or_insert(filename);
        // What the browser writes where it does not know is not worth a refusal.
        self.content_type = content_type
            .filter(|name| is_media_type(name))
            .map(str::to_owned);
        Ok(())
    }

    fn take_content_type(&mut self, headers: &HeaderMap) -> Result<Kind, Problem> {
        let Some(field) = headers.get(CONTENT_TYPE) else {
            return Ok(Kind::Raw);
        };
        let name = field.to_str().ok().filter(|name| is_media_type(name));
        let name = name.ok_or_else(|| {
            Problem::bad_request("Content-Type has to be a media type, as in image/jpeg")
        })?;
        let essence = name.split(';').next().unwrap_or(name).trim();
        if essence.eq_ignore_ascii_case("multipart/form-data") {
            let boundary = multer::parse_boundary(name).ok();
            let boundary = boundary.filter(|text| BOUNDARY_CHARS.contains(&text.len()));
            return boundary
                .map(|boundary| Kind::Form { boundary })
                .ok_or_else(|| {
                    Problem::bad_request(
                        "multipart/form-data needs a boundary of 1 to 70 characters",
                    )
                });
        }
        // What curl says of any body unless it is told otherwise.
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            self.content_type = Some(name.to_owned());
        }
        Ok(Kind::Raw)
    }
}

impl Asked {
    /// The file, now that all is known that is told of it before it comes.
    pub(super) fn file(self, max_size: Length) -> Result<File, Problem> {
        self.check_size(max_size)?;
        let length = self.length().map(Length);
        let Told {
            filename,
            digests,
            content_type,
            ..
        } = self.told;
        let create = Create {
            protocol: Protocol::Objects,
            declared: Declared {
                filename: filename.filter(|name| !name.is_empty()),
                content_type,
                metadata: BTreeMap::new(),
                metadata_field: None,
                digests,
                sequential: false,
            },
            length,
            idempotency: None,
            role: NewRole::Whole,
            seal: None,
        };
        Ok(File {
            create,
            stage: self.stage,
            max_size,
        })
    }

    fn length(&self) -> Option<u64> {
        let of_body = self.content_length.filter(|_| self.kind == Kind::Raw);
        self.told.size.or(of_body)
    }

    fn check_size(&self, max_size: Length) -> Result<(), Problem> {
        let too_large = || Problem::from(EngineError::TooLarge { max: max_size });
        if self.length().is_some_and(|length| length > max_size.get()) {
            return Err(too_large());
        }
        let Some(announced) = self.content_length else {
            return Ok(());
        };
        let size = self.told.size.unwrap_or(announced);
        match self.kind {
            Kind::Raw if size != announced => Err(mismatch(format!(
                "size says {size} bytes, Content-Length {announced}"
            ))),
            Kind::Form { .. } if size > announced => Err(mismatch(format!(
                "size says {size} bytes, but the form around the file has only {announced}"
            ))),
            Kind::Form { .. } if announced > max_size.get().saturating_add(MAX_FORM_BYTES) => {
                Err(too_large())
            }
            _ => Ok(()),
        }
    }
}

fn mismatch(detail: String) -> Problem {
    Problem::new(Code::RangeMismatch, detail)
}

fn decoded(text: &str) -> Result<String, Problem> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Problem::bad_request("the query has to be UTF-8, percent-encoded"))
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::bad_request(format!("{name} is told twice"))),
    }
}

fn staged(value: &str) -> Result<bool, Problem> {
    value
        .parse()
        .map_err(|_| Problem::bad_request("stage has to be true or false"))
}

fn bytes(value: &str) -> Result<u64, Problem> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = value.parse().ok().filter(|_| digits);
    bytes.ok_or_else(|| Problem::bad_request("size has to be a number of bytes"))
}

fn digest(value: &str) -> Result<Digest, Problem> {
    let wrong = |why: &dyn std::fmt::Display| Problem::bad_request(format!("digest: {why}"));
    let (algorithm, hex) = value
        .split_once(':')
        .ok_or_else(|| wrong(&"it has to be an algorithm and hex, as in sha-256:9f86d0…"))?;
    let algorithm = algorithm.parse().map_err(|error| wrong(&error))?;
    Digest::from_hex(algorithm, hex).map_err(|error| wrong(&error))
}

/// Adds a digest, which may have been told before.
fn add(digests: &mut Digests, digest: &Digest) -> Result<(), Problem> {
    let algorithm = digest.algorithm();
    if digests.get(algorithm).is_some_and(|told| told != digest) {
        return Err(Problem::bad_request(format!(
            "two different {algorithm} digests are told of the file"
        )));
    }
    digests.insert(digest.clone());
    Ok(())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
