//! The one file of a form (`multipart/form-data`, RFC 7578).
//!
//! The first part with a file's name is the file. Fields before it may tell what the query can (`filename`, `size`,
//! `digest`); others are passed over. The file's bytes are passed on as they come, and their end is told only when
//! the form's own end has been seen and no second file came: until then the file does not count.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use multer::{Field, Multipart};

use super::parse::{Asked, MAX_FORM_BYTES, Told};
use crate::api::error::Problem;
use crate::engine::{Body, BodyError};

/// The most that a field may have whose value is looked at.
const MAX_VALUE_BYTES: usize = 4 << 10;

/// What is wrong with a form.
#[derive(Debug, thiserror::Error)]
enum FormError {
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
    let allowance = Allowance::default();
    let metered = Metered {
        body,
        allowance: allowance.clone(),
        paused: false,
    };
    let mut form = Multipart::new(metered, boundary);
    loop {
        let field = form.next_field().await.map_err(FormError::from)?;
        let mut field = field.ok_or(FormError::NoFile)?;
        if is_file(&field)? {
            let content_type = field
                .headers()
                .get(CONTENT_TYPE)
                .and_then(|name| name.to_str().ok());
            told.take_part(field.file_name().unwrap_or_default(), content_type)?;
            allowance.lift();
            return Ok(bytes_of(form, field, allowance));
        }
        if let Some(name) = known(&field) {
            let value = value(&mut field, name).await?;
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

async fn value(field: &mut Field<'_>, name: &'static str) -> Result<String, FormError> {
    let mut value = Vec::new();
    while let Some(bytes) = field.chunk().await? {
        value.extend_from_slice(&bytes);
        if value.len() > MAX_VALUE_BYTES {
            return Err(FormError::BadValue(name));
        }
    }
    String::from_utf8(value).map_err(|_| FormError::BadValue(name))
}

/// The bytes of the file; then the rest of the form, of which nothing is passed on.
fn bytes_of(form: Multipart<'static>, file: Field<'static>, allowance: Allowance) -> Body {
    let state = Some((form, file, allowance));
    Box::pin(stream::try_unfold(state, async |state| {
        let Some((form, mut file, allowance)) = state else {
            return Ok(None);
        };
        if let Some(bytes) = file.chunk().await.map_err(FormError::from)? {
            return Ok(Some((bytes, Some((form, file, allowance)))));
        }
        drop(file);
        allowance.renew();
        see_the_end(form).await?;
        Ok(None)
    }))
}

async fn see_the_end(mut form: Multipart<'static>) -> Result<(), FormError> {
    while let Some(field) = form.next_field().await? {
        if is_file(&field)? {
            return Err(FormError::SecondFile);
        }
        if let Some(name) = known(&field) {
            return Err(FormError::TooLate(name));
        }
    }
    Ok(())
}

/// How many bytes of a form may still come that are not its file's.
#[derive(Debug, Clone)]
struct Allowance(Arc<AtomicU64>);

impl Default for Allowance {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(MAX_FORM_BYTES)))
    }
}

impl Allowance {
    fn lift(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    fn renew(&self) {
        self.0.store(MAX_FORM_BYTES, Ordering::Relaxed);
    }

    fn spend(&self, bytes: usize) {
        let left = self.0.load(Ordering::Relaxed);
        self.0
            .store(left.saturating_sub(bytes as u64), Ordering::Relaxed);
    }

    fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// The body as the parser gets it. It takes all that there is into a buffer of its own and looks for an end in that, however
/// far it is, so it is given a frame at a time, and outside of the file only so many bytes.
struct Metered {
    body: Body,
    allowance: Allowance,
    paused: bool,
}

impl Stream for Metered {
    type Item = Result<Bytes, FormError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.paused) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.allowance.is_spent() {
            return Poll::Ready(Some(Err(FormError::TooMuch)));
        }
        let item = ready!(this.body.as_mut().poll_next(cx));
        Poll::Ready(item.map(|frame| {
            let frame = frame.map_err(FormError::Body)?;
            this.allowance.spend(frame.len());
            this.paused = true;
            Ok(frame)
        }))
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
