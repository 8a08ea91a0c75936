//! Looking after the server: what there is, whose, and ending it without its key.

use super::{Engine, EngineError, PruneReport, Result};
use crate::catalog::{Filter, SpaceUsage};
use crate::model::upload::Snapshot;
use crate::model::{SpaceName, Timestamp, Upload, UploadId};

/// What a round of pruning did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LastPrune {
    /// When it ended.
    pub at: Timestamp,
    /// What it did.
    #[serde(flatten)]
    pub report: PruneReport,
}

impl Engine {
    /// Uploads, the newest first, at most `limit`, of the spaces that the caller looks after.
    pub async fn list(&self, mut filter: Filter, limit: u32) -> Result<Vec<Upload>> {
        if filter.space.is_none() {
            filter.space = self.only_space();
        }
        if let Some(space) = &filter.space {
            self.oversees(space)?;
        }
        Ok(self.inner.catalog.list(filter, limit).await?)
    }

    /// Everything that is known of an upload.
    pub async fn inspect(&self, id: UploadId) -> Result<Snapshot> {
        let snapshot = self.inner.catalog.load(id).await?;
        let snapshot = snapshot.ok_or(EngineError::NotFound)?;
        self.oversees(&snapshot.upload.owner.space)
            .map_err(|_| EngineError::NotFound)?;
        Ok(snapshot)
    }

    /// Ends an upload that is not complete, as its client could.
    pub async fn abort_any(&self, id: UploadId) -> Result<()> {
        self.inspect(id).await?;
        let opened = self.inner.open_any(id).await?;
        self.inner.abort_opened(opened).await
    }

    /// What there is in each space that the caller looks after.
    pub async fn spaces(&self) -> Result<Vec<SpaceUsage>> {
        let only = self.only_space();
        let mut spaces = self.inner.catalog.spaces().await?;
        spaces.retain(|usage| {
            only.as_ref()
                .is_none_or(|only| only.as_str() == usage.space)
        });
        Ok(spaces)
    }

    /// What the last round of pruning did, in whatever process.
    pub async fn last_prune(&self) -> Result<Option<LastPrune>> {
        let Some((at, report)) = self.inner.catalog.last_prune().await? else {
            return Ok(None);
        };
        let report = serde_json::from_str(&report);
        let report = report.map_err(|error| EngineError::Internal(error.into()))?;
        Ok(Some(LastPrune { at, report }))
    }

    /// The one space that the caller looks after, if it is one.
    fn only_space(&self) -> Option<SpaceName> {
        let caller = self.caller.as_deref()?;
        caller.bound.then(|| caller.space.clone())
    }

    fn oversees(&self, space: &SpaceName) -> Result<()> {
        match &self.caller {
            Some(caller) if !caller.looks_after(space) => Err(EngineError::NotYours),
            _ => Ok(()),
        }
    }
}
