//! Putting a final upload together from its partial ones.
//!
//! The store copies what it can by itself: whole files into the staged one, or parts out of objects. What it does not copy
//! passes through this process as a stream. The parts that were made are remembered in memory alone: a retry goes on from
//! there, and a process that takes over makes them again, which costs calls and no bytes. The bytes pass no hasher: the
//! object is read once when it is whole, like any that was not hashed in order, and what came of each source is compared with
//! what is known of it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::TryStreamExt as _;

use super::flight;
use super::live::Live;
use super::{EngineError, Inner, Result};
use crate::catalog::Source;
use crate::model::compose::{self, Piece};
use crate::model::plan::MIN_PART_BYTES;
use crate::model::upload::{FailureReason, StoreUploadId};
use crate::model::{Length, Offset, PartReceipt, Plan, StoreKey};
use crate::store::{self, MadeOf, Parts, Payload, Put, Shape, StoreError};

impl Live {
    fn made(&self, part: PartReceipt) {
        let mut state = self.state();
        state.missing_since = None;
        state.composed.insert(part.number, part);
    }
}

async fn is_listed(parts: &dyn Parts, key: &StoreKey, upload: &StoreUploadId) -> Result<bool> {
    let listed = parts.multipart_of(key).await?;
    Ok(listed.iter().any(|found| found.id == *upload))
}

/// How many parts of one upload are made at once.
const AT_ONCE: usize = 4;

impl Inner {
    /// Brings the bytes of the parts to where the upload's own belong.
    pub(super) async fn compose(self: &Arc<Self>, live: &Arc<Live>) -> Result<()> {
        let sources = self.catalog.sources(live.id).await;
        let sources = sources.map_err(|error| live.catalog_failed(error))?;
        let _place = self.compositions.acquire().await;
        let length = live.length().unwrap_or_default();
        if length > self.largest_for(live) {
            return self.too_large(live).await;
        }
        match self.store.shape() {
            Shape::InPlace(files) => {
                let mut at = 0;
                for source in &sources {
                    self.check_room().await?;
                    let copied = files.copy_in(live.id, Offset(at), &source.key, source.size);
                    self.or_missing(live, copied.await).await?;
                    at += source.size.get();
                }
                Ok(())
            }
            Shape::Parts(parts) => self.compose_parts(live, parts, &sources, length).await,
        }
    }

    async fn compose_parts(
        self: &Arc<Self>,
        live: &Arc<Live>,
        parts: &dyn Parts,
        sources: &[Source],
        length: Length,
    ) -> Result<()> {
        let sizes: Vec<Length> = sources.iter().map(|source| source.size).collect();
        let equal = if parts.equal_parts() {
            match Plan::for_parts(
                self.settings.chunk_size_bytes,
                MIN_PART_BYTES,
                Some(length),
                true,
            ) {
                Plan::Equal { cell } => Some(cell),
                Plan::OneCell | Plan::Growing { .. } | Plan::Adopted => None,
            }
        } else {
            None
        };
        let Some(pieces) = compose::pieces(&sizes, equal) else {
            return self.too_large(live).await;
        };
        let missing: Vec<_> = {
            let state = live.state();
            let made = |piece: &&Piece| state.composed.contains_key(&piece.number);
            pieces.iter().filter(|piece| !made(piece)).collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        if let [only] = &pieces[..]
            && only.copied().is_none()
            && live.store_upload_id().is_none()
        {
            return self.put_whole(live, parts, sources, only).await;
        }
        let upload = &flight::begin(self, live, parts, MadeOf::Unchecked).await?;
        let missing: Vec<_> = missing
            .into_iter()
            .map(|piece| self.make_part(live, parts, upload, sources, piece))
            .collect();
        futures_util::stream::iter(missing)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// A few small parts that are one object at once.
    async fn put_whole(
        self: &Arc<Self>,
        live: &Live,
        parts: &dyn Parts,
        sources: &[Source],
        piece: &Piece,
    ) -> Result<()> {
        flight::announce_object(self, live).await?;
        let (payload, about) = (self.payload(sources, piece), flight::about(live));
        let put = parts.put(&live.store_key(), payload, &about).await;
        let put = self.or_source_missing(live, sources, piece, put).await?;
        let Put { etag, checksum } = self.or_missing(live, put).await?;
        live.made(PartReceipt {
            number: piece.number,
            range: piece.range,
            etag,
            checksum,
        });
        Ok(())
    }

    async fn make_part(
        self: &Arc<Self>,
        live: &Live,
        parts: &dyn Parts,
        upload: &StoreUploadId,
        sources: &[Source],
        piece: &Piece,
    ) -> Result<()> {
        let (key, number, range) = (&live.store_key(), piece.number, piece.range);
        let copied = match piece.copied() {
            Some(slice) => {
                let from = (!slice.whole).then_some(slice.range);
                let source = &sources[slice.source].key;
                parts
                    .copy_part(key, upload, number, range, source, from)
                    .await
            }
            None => Err(StoreError::Refused("it is made of several objects".into())),
        };
        let receipt = match copied {
            Err(StoreError::Refused(_)) => {
                let _place = self.moves.acquire().await;
                let payload = self.payload(sources, piece);
                let put = parts
                    .put_part(key, upload, number, range, payload, MadeOf::Unchecked)
                    .await;
                self.or_source_missing(live, sources, piece, put).await?
            }
            copied => copied,
        };
        match receipt {
            Err(error @ StoreError::NotFound) if !is_listed(parts, key, upload).await? => {
                Self::compose_again(live, error)
            }
            receipt => {
                live.made(self.or_missing(live, receipt).await?);
                Ok(())
            }
        }
    }

    /// The store does not have what was made so far. The parts' own objects are there, so another try begins anew.
    pub(super) fn compose_again<T>(live: &Live, error: StoreError) -> Result<T> {
        {
            let mut state = live.state();
            state.composed.clear();
            state.snapshot.upload.store_upload_id = None;
        }
        Err(error.into())
    }

    fn payload(&self, sources: &[Source], piece: &Piece) -> Payload {
        let slices = piece
            .slices
            .iter()
            .map(|slice| (sources[slice.source].key.clone(), slice.range))
            .collect();
        Payload::Objects {
            store: Arc::clone(&self.store),
            slices,
        }
    }

    /// A source that is not there shows as a body that breaks, so that is looked at when a stream did not work.
    async fn or_source_missing<T>(
        &self,
        live: &Live,
        sources: &[Source],
        piece: &Piece,
        streamed: store::Result<T>,
    ) -> Result<store::Result<T>> {
        if matches!(streamed, Err(StoreError::Unavailable(_))) {
            for slice in &piece.slices {
                let source = &sources[slice.source];
                let found = self.store.head(&source.key).await?;
                if found.is_none_or(|found| found.size != source.size) {
                    return self.missing(live, StoreError::NotFound).await;
                }
            }
        }
        Ok(streamed)
    }

    /// What the store acknowledged and does not have is tried again, and lost if it stays so.
    async fn or_missing<T>(&self, live: &Live, result: store::Result<T>) -> Result<T> {
        match result {
            Err(error @ (StoreError::NotFound | StoreError::Changed(_))) => {
                self.missing(live, error).await
            }
            result => Ok(result?),
        }
    }

    async fn too_large(&self, live: &Live) -> Result<()> {
        let reason = FailureReason::TooLarge;
        self.fail(live, reason).await?;
        Err(EngineError::Failed { reason })
    }
}
