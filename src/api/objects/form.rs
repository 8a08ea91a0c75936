//! The one file of a form (`multipart/form-data`, RFC 7578).
//!
//! The first part with a file's name is the file. Fields before it may tell what the query can (`filename`, `size`,
//! `digest`); others are passed over. The file's bytes are passed on as they come, and their end is told only when
//! the form's own end has been seen and no second file came: until then the file does not count.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use multer::{Field, Multipart};

use super::feed::Feed;
use super::parse::{Asked, MAX_FORM_BYTES, Told};
use crate::api::error::Problem;
use crate::engine::{Body, BodyError};

/// The most that a field may have whose value is looked at.
const MAX_VALUE_BYTES: usize = 4 << 10;

/// What is wrong with a form.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormError {
    #[error("the form has no file: one of its parts has to have a filename")]
    NoFile,
    #[error("the form has a second file; one is taken at a time")]
    SecondFile,
    #[error("the field {0} has to come before the file")]
    TooLate(&'static str),
    #[error("the field {0} has more than {MAX_VALUE_BYTES} bytes, or is not UTF-8")]
    BadValue(&'static str),
    #[error("the name of a part is not UTF-8")]
    BadName,
    #[error("beside its file the form may have {MAX_FORM_BYTES} bytes")]
    TooMuch,
    #[error("the form is malformed: {0}")]
    Malformed(#[source] multer::Error),
    #[error(transparent)]
    Body(BodyError),
}

impl From<multer::Error> for FormError {
    fn from(error: multer::Error) -> Self {
        match error {
            // Our own, from below the parser.
            multer::Error::StreamReadFailed(source) => match source.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => Self::Body(BodyError::Cut(other)),
            },
            error => Self::Malformed(error),
        }
    }
}

impl From<FormError> for BodyError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Body(error) => error,
            error => Self::Malformed(error.into()),
        }
    }
}

impl From<FormError> for Problem {
    fn from(error: FormError) -> Self {
        match error {
            // How the wire broke is nothing that a client has to be told the inside of.
            FormError::Body(_) => Self::bad_request("the form ended before its file"),
            error => Self::bad_request(error.to_string()),
        }
    }
}

/// Reads a form up to its file, and takes what it tells of that. What comes back is the file's bytes.
pub(super) async fn find_file(
    asked: &mut Asked,
    body: Body,
    boundary: String,
    within: Duration,
) -> Result<Body, Problem> {
    let reading = open(&mut asked.told, body, boundary);
    let slow = || Problem::bad_request("the form's file did not begin in time");
    let outcome = tokio::time::timeout(within, reading).await;
    outcome.map_err(|_| slow())?
}

async fn open(told: &mut Told, body: Body, boundary: String) -> Result<Body, Problem> {
    let feed = Feed::default();
    let mut form = Multipart::new(feed.of(body), boundary);
    loop {
        let field = next_field(&feed, &mut form).await?;
        let mut field = field.ok_or(FormError::NoFile)?;
        if is_file(&field)? {
            let content_type = field
                .headers()
                .get(CONTENT_TYPE)
                .and_then(|name| name.to_str().ok());
            told.take_part(field.file_name().unwrap_or_default(), content_type)?;
            feed.begin_file();
            return Ok(bytes_of(feed, form, field));
        }
        if let Some(name) = known(&field) {
            let value = value(&feed, &mut field, name).await?;
            told.take(name, &value)?;
        }
    }
}

/// What a field may tell.
fn known(field: &Field<'_>) -> Option<&'static str> {
    ["filename", "size", "digest"]
        .into_iter()
        .find(|name| field.name() == Some(name))
}

/// Whether a part is a file. A browser sends a part with an empty name where none was chosen.
fn is_file(field: &Field<'_>) -> Result<bool, FormError> {
    let disposition = field.headers().get(CONTENT_DISPOSITION);
    if disposition.is_some_and(|field| std::str::from_utf8(field.as_bytes()).is_err()) {
        return Err(FormError::BadName);
    }
    Ok(field.file_name().is_some_and(|name| !name.is_empty()))
}

async fn next_field(
    feed: &Feed,
    form: &mut Multipart<'static>,
) -> Result<Option<Field<'static>>, FormError> {
    Ok(feed.ask(|cx| form.poll_next_field(cx)).await?)
}

async fn chunk(feed: &Feed, field: &mut Field<'_>) -> Result<Option<Bytes>, FormError> {
    let chunk = feed.ask(|cx| field.poll_next_unpin(cx)).await;
    Ok(chunk.transpose()?)
}

async fn value(
    feed: &Feed,
    field: &mut Field<'_>,
    name: &'static str,
) -> Result<String, FormError> {
    let mut value = Vec::new();
    while let Some(bytes) = chunk(feed, field).await? {
        value.extend_from_slice(&bytes);
        if value.len() > MAX_VALUE_BYTES {
            return Err(FormError::BadValue(name));
        }
    }
    String::from_utf8(value).map_err(|_| FormError::BadValue(name))
}

/// The bytes of the file; then the rest of the form, of which nothing is passed on.
fn bytes_of(feed: Feed, form: Multipart<'static>, file: Field<'static>) -> Body {
    let state = Some((feed, form, file));
    Box::pin(stream::try_unfold(state, async |state| {
        let Some((feed, form, mut file)) = state else {
            return Ok(None);
        };
        if let Some(bytes) = chunk(&feed, &mut file).await? {
            feed.count_file(&bytes);
            return Ok(Some((bytes, Some((feed, form, file)))));
        }
        drop(file);
        feed.end_file();
        see_the_end(&feed, form).await?;
        Ok(None)
    }))
}

async fn see_the_end(feed: &Feed, mut form: Multipart<'static>) -> Result<(), FormError> {
    while let Some(field) = next_field(feed, &mut form).await? {
        if is_file(&field)? {
            return Err(FormError::SecondFile);
        }
        if let Some(name) = known(&field) {
            return Err(FormError::TooLate(name));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
