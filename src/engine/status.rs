//! Telling what is known.

use std::time::Duration;

use super::live::check_expiry;
use super::{
    AnswerWith, EngineError, Inner, Readers, Readiness, Result, Secret, Serve, SignedRequest,
    Status,
};
use crate::model::upload::Snapshot;
use crate::model::{ByteRange, Caller, Object, Upload, UploadId, UploadKey, UploadState};

/// How long a status waits for live writers to commit what they have.
const SAVE_WITHIN: Duration = Duration::from_millis(900);
const PING_WITHIN: Duration = Duration::from_secs(2);

/// A snapshot as its client is told of it.
pub(super) fn status_of(snapshot: Snapshot, key: &UploadKey) -> Result<Status> {
    let Snapshot {
        upload, received, ..
    } = snapshot;
    let received = match &upload.state {
        UploadState::Aborted { .. } | UploadState::Expired { .. } => return Err(EngineError::Gone),
        UploadState::Completed { object, .. } => {
            ByteRange::new(0, object.size.get()).into_iter().collect()
        }
        _ => received,
    };
    let opened = upload.sealed.as_deref().and_then(|sealed| key.open(sealed));
    let sealed = opened.map(Secret);
    Ok(Status {
        upload,
        received,
        sealed,
    })
}

impl Inner {
    pub(super) async fn status(&self, id: UploadId, key: &UploadKey) -> Result<Status> {
        let (live, snapshot) = self.peek(id, key).await?;
        let snapshot = if let Some(live) = live {
            live.check_expiry(self.clock.now())?;
            live.drain_writers().await;
            live.save_writers(SAVE_WITHIN).await;
            live.state().snapshot.clone()
        } else {
            check_expiry(&snapshot.upload, self.clock.now())?;
            snapshot
        };
        status_of(snapshot, key)
    }

    pub(super) async fn content(
        &self,
        id: UploadId,
        key: Option<&UploadKey>,
        caller: Option<&Caller>,
    ) -> Result<(Upload, Object)> {
        let upload = self.catalog.load(id).await?.ok_or(EngineError::NotFound)?;
        let upload = upload.upload;
        if !caller.is_some_and(|caller| self.may_read(&upload, caller)) {
            if key.is_none_or(|key| key.hash() != upload.key_hash) {
                return Err(EngineError::NotFound);
            }
            if caller.is_some_and(|caller| !upload.owner.is(caller)) {
                return Err(EngineError::NotYours);
            }
        }
        self.content_of(upload)
    }

    pub(super) async fn linked_content(&self, id: UploadId) -> Result<(Upload, Object)> {
        let snapshot = self.catalog.load(id).await?.ok_or(EngineError::NotFound)?;
        self.content_of(snapshot.upload)
    }

    /// Whether someone may read an upload's content without its key.
    fn may_read(&self, upload: &Upload, caller: &Caller) -> bool {
        let space = &upload.owner.space;
        let readers = self.settings.space(space).map(|space| space.readers);
        let has_token = caller.token.is_some();
        match readers.unwrap_or_default() {
            Readers::Public => true,
            Readers::Space => has_token && (!caller.bound || caller.space == *space),
            Readers::Owner => has_token && caller.reads_all_of(space),
        }
    }

    fn content_of(&self, upload: Upload) -> Result<(Upload, Object)> {
        check_expiry(&upload, self.clock.now())?;
        match upload.state.clone() {
            UploadState::Completed { object, .. } => Ok((upload, object)),
            UploadState::Failed { reason, .. } => Err(EngineError::Failed { reason }),
            UploadState::Aborted { .. } | UploadState::Expired { .. } => Err(EngineError::Gone),
            UploadState::Pending | UploadState::Uploading | UploadState::Assembling { .. } => {
                Err(EngineError::incomplete())
            }
        }
    }

    pub(super) async fn signed_read(
        &self,
        object: &Object,
        with: &AnswerWith,
    ) -> Result<Option<SignedRequest>> {
        let Some(direct) = self.store.direct() else {
            return Ok(None);
        };
        if self.settings.serve == Serve::Proxy {
            return Ok(None);
        }
        let (now, ttl) = (self.clock.now(), self.settings.url_ttl);
        Ok(Some(direct.sign_read(&object.key, with, now, ttl).await?))
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
