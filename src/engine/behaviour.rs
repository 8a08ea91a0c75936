//! Clients that get it wrong again and again lose their upload.

use super::{Conflict, EngineError, Inner};
use crate::model::UploadId;
use crate::model::upload::FailureReason;

impl Inner {
    /// A client got a range or a digest wrong: too often in a row, and its upload fails for good. Gives the error back.
    pub(super) async fn misbehaved(&self, id: UploadId, error: EngineError) -> EngineError {
        let wrong = matches!(
            error,
            EngineError::RangeMismatch {
                conflict: Conflict::Lengths | Conflict::Beyond,
                ..
            } | EngineError::DigestMismatch { .. }
        );
        let Some(live) = self.registry.get(id).await.filter(|_| wrong) else {
            return error;
        };
        let too_often = {
            let mut state = live.state();
            state.failures += 1;
            state.failures >= self.settings.max_failures
                && state.snapshot.upload.state.takes_bytes()
        };
        if too_often && let Err(error) = self.fail(&live, FailureReason::Misbehaved).await {
            tracing::warn!(upload = %id, %error, "an upload whose client misbehaves could not be ended");
        }
        error
    }

    /// A client got it right: what went wrong before is forgotten.
    pub(super) async fn behaved(&self, id: UploadId) {
        if let Some(live) = self.registry.get(id).await {
            live.state().failures = 0;
        }
    }
}
