//! What happens to a file: an upload is made for it, takes it, and is completed; or nothing of it stays.

use std::time::Duration;

use tracing::Instrument as _;

use super::parse::{self, File};
use crate::engine::{Body, Completion, Engine, EngineError, Result, Status};
use crate::model::{Handle, Object, UploadState};

/// What came of a file.
pub(super) struct Taken {
    /// The upload that it became.
    pub(super) handle: Handle,
    /// How far that has come.
    pub(super) outcome: Outcome,
}

/// How far an upload has come.
pub(super) enum Outcome {
    /// The object is there.
    Done(Box<Object>),
    /// Every byte is there, and its client completes or aborts it.
    Staged(Box<Status>),
    /// Every byte is there, and the object is being made.
    Working {
        /// After how long to ask.
        retry_after: Duration,
    },
}

/// Takes a file. Nothing of the body is asked for before everything is checked that can be without it.
pub(super) async fn take(engine: &Engine, file: File, body: Body) -> Result<Taken> {
    // A client that goes away ends the body, and this is what cleans up after it.
    let work = tokio::spawn(all_or_nothing(engine.clone(), file, body).in_current_span());
    let taken = work.await;
    taken.unwrap_or_else(|error| Err(EngineError::Internal(error.into())))
}

async fn all_or_nothing(engine: Engine, file: File, body: Body) -> Result<Taken> {
    let created = engine.create(file.create.clone()).await?;
    let handle = Handle {
        id: created.upload.id,
        key: created.key,
    };
    match bring(&engine, &file, &handle, body).await {
        Ok(outcome) => Ok(Taken { handle, outcome }),
        Err(error) => {
            if let Err(error) = engine.abort(handle.id, &handle.key).await {
                // One that has failed has left nothing. Where something stands in the way, it expires soon.
                tracing::debug!(upload = %handle.id, %error, "what came of a file was not removed at once");
            }
            Err(error)
        }
    }
}

async fn bring(engine: &Engine, file: &File, handle: &Handle, body: Body) -> Result<Outcome> {
    engine.admit(file.write(handle)).await?.run(body).await?;
    if file.stage {
        let status = engine.status(handle.id, &handle.key).await?;
        return Ok(Outcome::Staged(Box::new(status)));
    }
    match engine.complete(parse::completion(handle)).await {
        Ok(Completion::Done { object, .. }) => Ok(Outcome::Done(Box::new(object))),
        Ok(Completion::Working { retry_after }) => Ok(Outcome::Working { retry_after }),
        Err(EngineError::Unavailable {
            retry_after,
            source,
        }) => {
            // From some point on it is completed by itself, and cannot be taken back.
            let status = engine.status(handle.id, &handle.key).await;
            match status.map(|status| status.upload.state) {
                Ok(UploadState::Assembling { .. }) => Ok(Outcome::Working { retry_after }),
                Ok(UploadState::Completed { object, .. }) => Ok(Outcome::Done(Box::new(object))),
                _ => Err(EngineError::Unavailable {
                    retry_after,
                    source,
                }),
            }
        }
        Err(error) => Err(error),
    }
}
