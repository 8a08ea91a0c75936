//! A body that is all of its upload: its end is the upload's, and it counts whole or not at all.

use super::{End, Writer};
use crate::engine::admit;
use crate::engine::buffer::Gather;
use crate::engine::{EngineError, Result};
use crate::model::Length;

impl Writer {
    /// The most bytes that the upload may have, where the body is all of it.
    pub(super) fn most(&self) -> Length {
        let largest = self.engine.largest_for(&self.live);
        let at_most = self.request.whole.map(|whole| whole.at_most);
        at_most.map_or(largest, |at_most| at_most.min(largest))
    }

    /// Whether a body that went on where nothing more was expected has gone beyond what is allowed, not beyond what was told.
    pub(super) fn is_beyond_all(&self) -> bool {
        self.request.whole.is_some() && self.at == self.most().get()
    }

    /// The upload is as long as the body was: the open cell ends here, and what it has is all of it.
    pub(super) fn fix_length(&mut self) -> Result<()> {
        let length = Length(self.at);
        let news = self.live.length().is_none();
        admit::fix_length(&self.live, Some(length))?;
        // There may be no bytes left that it could be committed with.
        self.commit_anyway = news;
        if let Some(open) = &mut self.cell {
            open.end_with(self.live.plan, length);
        }
        Ok(())
    }

    /// Holds the body against what was declared of the upload, as far as it was hashed on its way.
    pub(super) async fn verify_whole(&mut self) -> Result<()> {
        let Some(digests) = self.hashed_to(self.at).await else {
            return Ok(());
        };
        let declared = self.live.state().snapshot.upload.declared.digests.clone();
        match declared.first_conflict(&digests) {
            Some(wrong) => Err(EngineError::DigestMismatch {
                algorithm: wrong.algorithm(),
            }),
            None => Ok(()),
        }
    }

    /// Drops what does not count, and waits for what is on its way, so that whoever ends the upload finds all of it.
    pub(super) async fn let_go(&mut self, end: &End) {
        self.gather = Gather::new(self.engine.budget.clone());
        self.ready.clear();
        self.holding = None;
        self.cell = None;
        self.segments.clear();
        // Where nothing flies any more that counts, nothing is left that could fail.
        let _ = self.await_flights(end).await;
    }
}
