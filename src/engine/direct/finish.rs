//! Putting together what clients can still put other parts into.
//!
//! What came through the server for a cell with a URL is put from the tail now, and stays there until the upload is completed.
//! Everything is put together by the receipts' tags, so a part that was replaced shows: one of ours is put again, and one of its
//! client's counts as it is now, because the object has yet to be known by what it is. One that nobody else could put has another
//! tag than it was answered with, as behind a proxy that changes them: it is taken by its own, and the object is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::flight;
use super::super::live::{Change, Live};
use super::super::{EngineError, Inner, Result, Verify};
use super::PAGE;
use crate::model::digest::Digests;
use crate::model::plan::MAX_PARTS;
use crate::model::upload::StoreUploadId;
use crate::model::{Cell, Digest, DigestAlgorithm, Length, PartNumber, PartReceipt, Plan, Upload};
use crate::store::direct::FoundPart;
use crate::store::{self, Parts, Payload, StoreError, Stored};

/// How often parts are put, or looked at, again before it is left for later.
const ROUNDS: usize = 3;

impl Inner {
    /// Puts a cell from the tail that its client may replace: the receipt is remembered only here.
    pub(in crate::engine) async fn put_held(
        self: &Arc<Self>,
        live: &Live,
        cell: Cell,
        payload: Payload,
    ) -> Result<()> {
        match flight::put_cell(self, live, cell, payload).await {
            Ok(receipt) => {
                live.state().held.insert(cell.number, receipt);
                Ok(())
            }
            // It may be that everything was put together before, by a process that did not live to tell.
            Err(EngineError::Unavailable { .. }) if self.was_put_together(live).await? => {
                let mut state = live.state();
                state.put_together = true;
                state.missing_since = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn was_put_together(&self, live: &Live) -> Result<bool> {
        let (_, parts) = self.past_the_server()?;
        let (Some(upload), Some(length)) = (live.store_upload_id(), live.length()) else {
            return Ok(false);
        };
        let listed = parts.multipart_of(&live.store_key()).await?;
        if listed.iter().any(|found| found.id == upload) {
            return Ok(false);
        }
        let found = self.store.head(&live.store_key()).await?;
        Ok(found.is_some_and(|found| {
            found.size == length && found.upload.is_none_or(|id| id == live.id)
        }))
    }

    /// Puts the parts together. Where clients have put other parts in the meantime, it is done again with what is so now.
    pub(in crate::engine) async fn finish_parts(
        self: &Arc<Self>,
        live: &Arc<Live>,
        parts: &dyn Parts,
        upload: &StoreUploadId,
        mut receipts: Vec<PartReceipt>,
        length: Length,
    ) -> Result<store::Result<Stored>> {
        for _ in 0..ROUNDS {
            let key = &live.store_key();
            match parts.finish(key, upload, &receipts, length).await {
                Err(error @ StoreError::Changed(_)) => {
                    if !self.renew(live, &mut receipts).await? {
                        return Ok(Err(error));
                    }
                }
                finished => return Ok(finished),
            }
        }
        Err(EngineError::unavailable(
            "parts are being replaced by whoever has their URLs",
        ))
    }

    /// Brings receipts to what is so now; whether one is another.
    async fn renew(
        self: &Arc<Self>,
        live: &Arc<Live>,
        receipts: &mut [PartReceipt],
    ) -> Result<bool> {
        // Of an adopted grid the client has named the tags: it completes with these or not at all.
        if live.plan == Plan::Adopted {
            return Ok(false);
        }
        let found = if live.state().snapshot.direct.is_empty() {
            self.listed_parts(live).await?
        } else {
            self.all_parts(live).await?
        };
        let mut renewed = false;
        for receipt in receipts {
            let number = receipt.number;
            let Some(part) = found.get(&number) else {
                continue;
            };
            if part.etag == receipt.etag {
                continue;
            }
            let is_held = live.state().held.contains_key(&number);
            if is_held {
                let Some(_reserved) = flight::Reserved::take(live, number) else {
                    continue;
                };
                live.state().held.remove(&number);
                tracing::warn!(upload = %live.id, part = %number, "a part was replaced by its URL; it is put again");
                let cell = Cell {
                    number,
                    range: receipt.range,
                };
                let payload = flight::tail_payload(self, live, cell).await;
                let payload = self.or_lost(live, payload).await?;
                self.put_held(live, cell, payload).await?;
                if let Some(again) = live.state().held.get(&number) {
                    *receipt = again.clone();
                    renewed = true;
                }
            } else if live.state().snapshot.direct.contains_key(&number)
                && part.size.get() == receipt.range.len()
            {
                tracing::warn!(upload = %live.id, part = %number, "a part was put again by its URL; what is there now counts");
                receipt.etag.clone_from(&part.etag);
                let change = Change {
                    parts: vec![receipt.clone()],
                    direct: true,
                    ..Change::default()
                };
                live.commit(self, change).await?;
                renewed = true;
            } else if part.size.get() == receipt.range.len() {
                // It is not recorded: whoever goes on with this after a crash has to find out again that the object is to be read.
                tracing::warn!(upload = %live.id, part = %number, "the store answered with another tag than it keeps; what it keeps is put together, and read");
                receipt.etag.clone_from(&part.etag);
                live.state().retagged = true;
                renewed = true;
            }
        }
        Ok(renewed)
    }

    /// The parts that the store lists, of an upload that nobody else puts parts into; none where it does not find the upload. What
    /// that means is found out by looking for the object.
    async fn listed_parts(&self, live: &Live) -> Result<BTreeMap<PartNumber, FoundPart>> {
        let (Some(direct), Some(upload)) = (self.store.direct(), live.store_upload_id()) else {
            return Ok(BTreeMap::new());
        };
        let key = live.store_key();
        match direct.parts_of(&key, &upload, None, MAX_PARTS).await {
            Err(StoreError::NotFound) => Ok(BTreeMap::new()),
            found => Ok(found?.into_iter().map(|part| (part.number, part)).collect()),
        }
    }

    /// All parts that the store has.
    pub(super) async fn all_parts(&self, live: &Live) -> Result<BTreeMap<PartNumber, FoundPart>> {
        let mut all = BTreeMap::new();
        let mut after = None;
        loop {
            let found = self.parts_after(live, after, PAGE).await?;
            let Some(last) = found.last() else {
                return Ok(all);
            };
            after = Some(last.number);
            all.extend(found.into_iter().map(|part| (part.number, part)));
        }
    }

    /// The store's own checksum of the object, where it is to be taken for one whose parts came directly; `None` if the object
    /// has to be read to be known.
    pub(in crate::engine) async fn trusted_checksum(
        &self,
        live: &Live,
        upload: &Upload,
    ) -> Result<Option<Digests>> {
        let algorithm = DigestAlgorithm::Crc64Nvme;
        let mut declared = upload.declared.digests.iter();
        // An address is made of the SHA-256.
        let is_asked_for_more = self.settings.template(&upload.owner.space).needs_content()
            || declared.any(|digest| digest.algorithm() != algorithm);
        let is_direct = !live.state().snapshot.direct.is_empty();
        if self.settings.verify != Verify::StoreChecksum || is_asked_for_more || !is_direct {
            return Ok(None);
        }
        let Some(direct) = self.store.direct() else {
            return Ok(None);
        };
        match direct.checksum_of(&upload.store_key).await {
            // Reading it back finds out what that means.
            Err(StoreError::NotFound) => Ok(None),
            sum => {
                let digest = sum?.and_then(|hex| Digest::from_hex(algorithm, &hex).ok());
                Ok(digest.map(|digest| Digests::from_iter([digest])))
            }
        }
    }
}
