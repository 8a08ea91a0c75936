//! Ending an upload at its client's wish, and removing what an ended one left.

use std::sync::Arc;
use std::time::Duration;

use super::create::count;
use super::live::{Live, Opened};
use super::settle::blocking;
use super::{Complete, Completion, EngineError, Inner, Result};
use crate::catalog::{Aborted, Intent, IntentKind};
use crate::model::digest::Digests;
use crate::model::upload::{Protocol, Role, Snapshot};
use crate::model::{StoreKey, Upload, UploadId, UploadKey, UploadState};
use crate::store::{Shape, StoreError};

const GONE_WITHIN: Duration = Duration::from_millis(900);
/// How long the answer to an ending waits until what was left is removed.
const CLEAN_WITHIN: Duration = Duration::from_secs(5);

impl Inner {
    pub(super) async fn abort(self: &Arc<Self>, id: UploadId, key: &UploadKey) -> Result<()> {
        let opened = self.open(id, key).await?;
        self.abort_opened(opened).await
    }

    pub(super) async fn abort_opened(self: &Arc<Self>, opened: Opened) -> Result<()> {
        let live = match opened {
            Opened::Live(live) => live,
            Opened::Waiting(upload) => Arc::new(Live::new(Snapshot::of_new(*upload))),
            Opened::Ended(upload) => {
                return match upload.state {
                    UploadState::Failed { reason, .. } => Err(EngineError::Failed { reason }),
                    UploadState::Aborted { .. } => Ok(()),
                    UploadState::Expired { .. } => Err(EngineError::Gone),
                    _ => Err(EngineError::Completed),
                };
            }
        };
        match self.catalog.abort(live.id, self.clock.now()).await? {
            Aborted::Done => {}
            Aborted::Refused => {
                if live.state().snapshot.upload.state.takes_bytes() {
                    // The catalog knows more than the memory.
                    live.lose();
                }
                return Err(EngineError::Completed);
            }
        }
        live.lose();
        // What is still on its way is swept again later; waiting a moment makes that rare.
        let quiet = async {
            let _ = live.displace_all().await;
            live.unsettled().await;
        };
        let _ = tokio::time::timeout(GONE_WITHIN, quiet).await;
        self.ended(&live, "aborted");
        self.clean_up_soon(live.id, false).await;
        Ok(())
    }

    pub(super) async fn terminate(self: &Arc<Self>, id: UploadId, key: &UploadKey) -> Result<()> {
        loop {
            match self.open(id, key).await? {
                // Its handle is in the link to its content, which pages hand on.
                Opened::Ended(upload) if upload.protocol == Protocol::S3 => {
                    return Err(EngineError::NotFound);
                }
                Opened::Ended(upload) => return self.terminate_ended(&upload).await,
                Opened::Live(live)
                    if matches!(
                        live.state().snapshot.upload.state,
                        UploadState::Assembling { .. }
                    ) => {}
                Opened::Live(_) | Opened::Waiting(_) => match self.abort(id, key).await {
                    // It was completed in between.
                    Err(EngineError::Completed | EngineError::Failed { .. }) => continue,
                    aborted => return aborted,
                },
            }
            let complete = Complete {
                id,
                key: key.clone(),
                digests: Digests::default(),
                length: None,
            };
            match self.complete(complete).await {
                Ok(Completion::Working { .. }) => {
                    return Err(EngineError::unavailable("it is being completed"));
                }
                // However it ended, it did.
                Ok(Completion::Done { .. })
                | Err(EngineError::Failed { .. } | EngineError::DigestMismatch { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn terminate_ended(&self, upload: &Upload) -> Result<()> {
        match upload.state {
            UploadState::Completed { .. } | UploadState::Failed { .. } => {}
            _ => return Err(EngineError::Gone),
        }
        let with_object = self.settings.delete_completed || upload.role == Role::Partial;
        match self
            .catalog
            .terminate(upload.id, with_object, self.clock.now())
            .await?
        {
            Aborted::Done => {}
            Aborted::Refused => {
                return Err(EngineError::unavailable(
                    "another upload is being made of it",
                ));
            }
        }
        count(upload.protocol, upload.role, "aborted");
        self.clean_up_soon(upload.id, false).await;
        Ok(())
    }

    /// Removes what an ended upload left, but waits for it only so long. Pruning goes on with what is left then.
    pub(super) async fn clean_up_soon(&self, id: UploadId, completed: bool) {
        clean_soon(id, self.clean_up(id, completed)).await;
    }

    /// The same where nothing that was announced is left.
    pub(super) async fn remove_files_soon(&self, id: UploadId) {
        clean_soon(id, async { self.remove_files(id).await.map(drop) }).await;
    }

    /// Removes what an ended upload left: staged and spooled files, and what it announced. Repeatable.
    async fn clean_up(&self, id: UploadId, completed: bool) -> Result<()> {
        self.remove_files(id).await?;
        let intents = self.catalog.intents(id).await?;
        self.sweep_intents(&intents, completed).await.map(|_| ())
    }

    /// Removes an upload's staged and spooled files; returns how many spooled ones there were.
    pub(super) async fn remove_files(&self, id: UploadId) -> Result<u64> {
        if let Shape::InPlace(files) = self.store.shape() {
            files.discard(id).await?;
        }
        if !self.spool.has_any_of(id) {
            return Ok(0);
        }
        let spool = std::sync::Arc::clone(&self.spool);
        Ok(blocking(move || spool.remove_upload(id)).await?)
    }

    /// Removes what was announced and never became an object; returns how many multipart uploads were aborted.
    pub(super) async fn sweep_intents(&self, intents: &[Intent], completed: bool) -> Result<u64> {
        let mut aborted = 0;
        for intent in intents {
            match (intent.kind, self.store.shape()) {
                (IntentKind::Multipart, Shape::Parts(parts)) => {
                    let strays = parts
                        .multipart_of(&intent.key)
                        .await?
                        .into_iter()
                        .map(|found| found.id);
                    let ids: std::collections::BTreeSet<_> = intent
                        .store_upload_id
                        .clone()
                        .into_iter()
                        .chain(strays)
                        .collect();
                    for id in ids {
                        match parts.abort(&intent.key, &id).await {
                            Ok(()) => aborted += 1,
                            Err(StoreError::NotFound) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                (IntentKind::Object, _)
                    if !completed || intent.key == StoreKey::staged(intent.upload) =>
                {
                    self.store.delete(&intent.key).await?;
                }
                (IntentKind::Address, _) => self.clear_address(intent).await?,
                _ => {}
            }
        }
        Ok(aborted)
    }
}

async fn clean_soon(id: UploadId, cleaning: impl Future<Output = Result<()>>) {
    let cleaned = tokio::time::timeout(CLEAN_WITHIN, cleaning);
    let slow = |_| EngineError::unavailable("it took too long");
    if let Err(error) = cleaned.await.map_err(slow).flatten() {
        tracing::warn!(upload = %id, %error, "what an upload left could not be removed; pruning will");
    }
}
