//! Going on with assemblies that nobody works on: after a failure, after a crash, and when the last part of a final upload came.

use std::sync::Arc;

use super::complete::HOLD;
use super::live::Live;
use super::{EngineError, Inner, Result};
use crate::catalog::CatalogError;
use crate::model::{Timestamp, UploadId, UploadState};

impl Inner {
    /// Goes on with assemblies that nobody works on, but only with so many at once. With `at_start`, nobody can: whoever
    /// held them is gone. One that cannot be read is left for the next round and keeps no other waiting.
    pub(super) async fn recover(self: &Arc<Self>, at_start: bool) -> Result<()> {
        const BATCH: u32 = 64;
        let now = if at_start {
            self.clock.now().after(HOLD)
        } else {
            self.clock.now()
        };
        let mut after = None;
        let mut begun = 0;
        while begun < BATCH {
            let page = self
                .catalog
                .due_assemblies(now, after, BATCH - begun)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for due in page {
                match self.go_on_with(due.id, now).await {
                    Ok(new) => begun += u32::from(new),
                    Err(error @ EngineError::Unavailable { .. }) => return Err(error),
                    Err(error) => {
                        tracing::warn!(upload = %due.id, %error, "an assembly could not be gone on with");
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on with a final upload that has just become ready. If it does not work out, [`recover`](Self::recover) finds it.
    pub(super) fn go_on_soon(self: &Arc<Self>, id: UploadId) {
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let now = engine.clock.now();
            if let Err(error) = engine.go_on_with(id, now).await {
                tracing::warn!(upload = %id, %error, "a final upload waits for the next round");
            }
        });
    }

    /// Whether work on it was begun by this call.
    async fn go_on_with(self: &Arc<Self>, id: UploadId, now: Timestamp) -> Result<bool> {
        let assembles = |live: &Arc<Live>| {
            let state = &live.state().snapshot.upload.state;
            matches!(state, UploadState::Assembling { .. })
        };
        if let Some(live) = self.registry.get(id).await.filter(assembles) {
            let idle = live.state().finishing.is_none();
            return Ok(idle && self.start_finishing(&live).is_some());
        }
        let until = self.clock.now().after(HOLD);
        match self.catalog.claim_assembly(id, now, until).await {
            Ok(Some(snapshot)) => {
                let live = self.registry.insert(self.distrust(snapshot)).await;
                tracing::info!(upload = %id, "going on with an assembly");
                Ok(self.start_finishing(&live).is_some())
            }
            Ok(None) | Err(CatalogError::Stale | CatalogError::NotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
