//! Telling what is known.

use std::time::Duration;

use super::live::check_expiry;
use super::{EngineError, Inner, Readiness, Result, Status};
use crate::model::{Object, Upload, UploadId, UploadKey, UploadState};

/// How long a status waits for live writers to commit what they have.
const SAVE_WITHIN: Duration = Duration::from_millis(900);
const PING_WITHIN: Duration = Duration::from_secs(2);

impl Inner {
    pub(super) async fn status(&self, id: UploadId, key: &UploadKey) -> Result<Status> {
        let (live, snapshot) = self.peek(id, key).await?;
        let snapshot = if let Some(live) = live {
            live.check_expiry(self.clock.now())?;
            live.save_writers(SAVE_WITHIN).await;
            live.state().snapshot.clone()
        } else {
            check_expiry(&snapshot.upload, self.clock.now())?;
            snapshot
        };
        match snapshot.upload.state {
            UploadState::Aborted { .. } | UploadState::Expired { .. } => Err(EngineError::Gone),
            _ => Ok(Status {
                upload: snapshot.upload,
                received: snapshot.received,
            }),
        }
    }

    pub(super) async fn content(&self, id: UploadId, key: &UploadKey) -> Result<(Upload, Object)> {
        let (_, snapshot) = self.peek(id, key).await?;
        check_expiry(&snapshot.upload, self.clock.now())?;
        match snapshot.upload.state.clone() {
            UploadState::Completed { object, .. } => Ok((snapshot.upload, object)),
            UploadState::Failed { reason, .. } => Err(EngineError::Failed { reason }),
            UploadState::Aborted { .. } | UploadState::Expired { .. } => Err(EngineError::Gone),
            UploadState::Pending | UploadState::Uploading | UploadState::Assembling { .. } => {
                Err(EngineError::Incomplete {
                    missing: Vec::new(),
                    truncated: false,
                })
            }
        }
    }

    pub(super) async fn ready(&self) -> Readiness {
        let (catalog, store) = tokio::join!(
            self.catalog.ping(PING_WITHIN),
            tokio::time::timeout(PING_WITHIN, self.store.ping()),
        );
        Readiness {
            catalog: catalog.is_ok(),
            store: matches!(store, Ok(Ok(()))),
        }
    }
}
