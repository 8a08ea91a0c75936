//! Ending an upload at its client's wish, and removing what an ended one left.

use std::time::Duration;

use super::live::Opened;
use super::settle::blocking;
use super::{EngineError, Inner, Result};
use crate::catalog::{Aborted, Intent, IntentKind};
use crate::model::{UploadId, UploadKey, UploadState};
use crate::store::{Shape, StoreError};

const GONE_WITHIN: Duration = Duration::from_millis(900);

impl Inner {
    pub(super) async fn abort(
        self: &std::sync::Arc<Self>,
        id: UploadId,
        key: &UploadKey,
    ) -> Result<()> {
        let live = match self.open(id, key).await {
            Ok(Opened::Live(live)) => live,
            Ok(Opened::Ended(upload)) => {
                return match upload.state {
                    UploadState::Failed { reason, .. } => Err(EngineError::Failed { reason }),
                    UploadState::Aborted { .. } => Ok(()),
                    UploadState::Expired { .. } => Err(EngineError::Gone),
                    _ => Err(EngineError::Completed),
                };
            }
            Err(error) => return Err(error),
        };
        match self.catalog.abort(id, self.clock.now()).await? {
            Aborted::Done => {}
            Aborted::Refused => return Err(EngineError::Completed),
        }
        live.lose();
        // What a writer still has on its way is swept again later; waiting a moment makes that rare.
        let _ = tokio::time::timeout(GONE_WITHIN, live.displace_all()).await;
        self.ended(&live, "aborted").await;
        Ok(())
    }

    /// Removes what an ended upload left: staged and spooled files, and what it announced. Repeatable.
    pub(super) async fn clean_up(&self, id: UploadId, completed: bool) -> Result<()> {
        self.remove_files(id).await?;
        let intents = self.catalog.intents(id).await?;
        self.sweep_intents(&intents, completed).await.map(|_| ())
    }

    /// Removes an upload's staged and spooled files; returns how many spooled ones there were.
    pub(super) async fn remove_files(&self, id: UploadId) -> Result<u64> {
        if let Shape::InPlace(files) = self.store.shape() {
            files.discard(id).await?;
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
                (IntentKind::Object, Shape::Parts(_)) if !completed => {
                    self.store.delete(&intent.key).await?;
                }
                _ => {}
            }
        }
        Ok(aborted)
    }
}
