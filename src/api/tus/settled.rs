//! Waiting until it is certain how an upload stands.

use std::time::Duration;

use crate::engine::{Complete, Completion, Engine, EngineError, Status};
use crate::model::digest::Digests;
use crate::model::upload::Role;
use crate::model::{Handle, UploadState};

/// How long it is waited for something that is away or finishing: less than clients and proxies wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// After how long it is looked at again at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How an upload stands, with nobody writing to it and nobody finishing it: every byte is there only if it is completed.
///
/// Whoever writes is ended, and an upload that has all its bytes is finished. `Unavailable` if that takes too long.
pub(super) async fn settled(engine: &Engine, handle: &Handle) -> Result<Status, EngineError> {
    let looking = async {
        loop {
            match look(engine, handle).await {
                Err(EngineError::Unavailable { retry_after, .. }) => {
                    tokio::time::sleep(retry_after.min(LOOK_AGAIN)).await;
                }
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(looked) => looked,
        Err(_) => Err(EngineError::unavailable(
            "how the upload stands could not be told in time",
        )),
    }
}

/// `None` if it was finished just now.
async fn look(engine: &Engine, handle: &Handle) -> Result<Option<Status>, EngineError> {
    let status = engine.halt(handle.id, &handle.key).await?;
    if let UploadState::Failed { reason, .. } = status.upload.state {
        return Err(EngineError::Failed { reason });
    }
    if !is_to_be_finished(&status) {
        return Ok(Some(status));
    }
    finish(engine, handle).await.map(|()| None)
}

/// Completes an upload that has all its bytes. `Unavailable` while that takes longer; it goes on by itself.
pub(super) async fn finish(engine: &Engine, handle: &Handle) -> Result<(), EngineError> {
    let complete = Complete {
        id: handle.id,
        key: handle.key.clone(),
        digests: Digests::default(),
        length: None,
    };
    match engine.complete(complete).await? {
        Completion::Done { .. } => Ok(()),
        Completion::Working { retry_after } => Err(EngineError::Unavailable {
            retry_after,
            source: "the upload is being completed".into(),
        }),
    }
}

fn is_to_be_finished(status: &Status) -> bool {
    let upload = &status.upload;
    if upload.state.has_ended() {
        return false;
    }
    let full = upload.role != Role::Final
        && upload
            .length
            .is_some_and(|length| status.received.covers_length(length));
    full || !upload.state.takes_bytes()
}
