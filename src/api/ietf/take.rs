//! What happens to the content of a request: it is taken, and if it is the last, the upload is completed.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument as _;

use super::announce::Announcer;
use super::parse::{self, Content};
use crate::engine::{Admission, Body, Completion, Conflict, Engine, EngineError, Result, Status};
use crate::model::{Handle, Object, Offset, UploadState};

/// How long a question for the offset waits for an upload that cannot answer just now, and how often it asks.
const HALT_WITHIN: Duration = Duration::from_secs(10);
const HALT_EVERY: Duration = Duration::from_millis(200);

/// What came of a request's content.
pub(super) enum Taken {
    /// It is there, and more is to come.
    Part(Offset),
    /// The upload is complete.
    Whole(Box<Object>),
    /// All of the upload is there, and its object is being made.
    Working {
        /// How far the upload reaches.
        offset: Offset,
        /// After how long to ask.
        retry_after: Duration,
    },
}

/// Takes content, and completes the upload if it is the last. Nothing of the body is asked for until it is let in.
pub(super) async fn take(
    engine: &Engine,
    handle: &Handle,
    content: &Content,
    body: Body,
    announcer: Option<Announcer>,
) -> Result<Taken> {
    let admission = admit(engine, handle, content).await?;
    let progress = admission.progress();
    let work = finish(
        engine.clone(),
        handle.clone(),
        content.last,
        admission,
        body,
    );
    // A client that has sent all of its upload may hang up; the upload is completed nevertheless.
    let work = tokio::spawn(work.in_current_span());
    let done = match (announcer, progress) {
        (Some(announcer), Some(progress)) => announcer.follow(progress, work).await,
        _ => work.await,
    };
    done.unwrap_or_else(|error| Err(EngineError::Internal(error.into())))
}

async fn admit(engine: &Engine, handle: &Handle, content: &Content) -> Result<Admission> {
    let admission = match engine.admit(content.write(handle)).await {
        Err(error @ EngineError::RangeMismatch { .. }) => {
            // Content that begins at the wrong place says nothing about the length.
            let status = engine.status(handle.id, &handle.key).await?;
            let there = status.received.contiguous();
            if there != content.start {
                return Err(EngineError::OutOfOrder { expected: there });
            }
            return Err(end_if_beyond(engine, handle, error).await);
        }
        admission => admission?,
    };
    // Only a repeat to a completed upload has no progress. A last one asks for the final answer again, any other is in error.
    if admission.progress().is_none() && !content.last {
        return Err(EngineError::Completed);
    }
    Ok(admission)
}

async fn finish(
    engine: Engine,
    handle: Handle,
    last: bool,
    admission: Admission,
    body: Body,
) -> Result<Taken> {
    let written = match admission.run(body).await {
        Ok(written) => written,
        Err(error) => return Err(end_if_beyond(&engine, &handle, error).await),
    };
    let offset = written.offset;
    if !last {
        return Ok(Taken::Part(offset));
    }
    let completion = engine.complete(parse::completion(&handle, offset)).await?;
    Ok(match completion {
        Completion::Done { object, .. } => Taken::Whole(Box::new(object)),
        Completion::Working { retry_after } => Taken::Working {
            offset,
            retry_after,
        },
    })
}

/// Content that goes beyond the upload's length ends the upload.
async fn end_if_beyond(engine: &Engine, handle: &Handle, error: EngineError) -> EngineError {
    let beyond = matches!(
        error,
        EngineError::RangeMismatch {
            conflict: Conflict::Beyond,
            length: Some(_),
            ..
        }
    );
    if beyond && let Err(error) = engine.abort(handle.id, &handle.key).await {
        // One that is complete stays so. Where something stands in the way, the length still holds.
        tracing::debug!(upload = %handle.id, %error, "an upload that was exceeded was not ended");
    }
    error
}

/// Ends what is running, and says how far the upload got. Waits a while for what cannot be told at once.
pub(super) async fn halt(engine: &Engine, handle: &Handle) -> Result<Status> {
    let deadline = Instant::now() + HALT_WITHIN;
    let status = loop {
        match engine.halt(handle.id, &handle.key).await {
            Err(EngineError::Unavailable { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(HALT_EVERY).await;
            }
            halted => break halted?,
        }
    };
    match status.upload.state {
        UploadState::Failed { reason, .. } => Err(EngineError::Failed { reason }),
        _ => Ok(status),
    }
}
