//! Uploads whose parts are their client's own: how it cuts its file, and how large that is, is known only in the end.
//!
//! The client gets a URL for any part, signed without a length, and nothing counts as received. In the end it names the parts
//! that make the file. All of them have to be in the store, with the tags that it tells; their sizes, in the order of their
//! numbers, then say which bytes each of them is. That is remembered in one commit, with the length. From there on it is an
//! upload like any other whose parts came directly (`finish.rs`): its object is read back to be known.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::admit::answer_ended;
use super::super::live::{Change, Live, Opened};
use super::super::{Complete, CompleteWith, Completion, EngineError, Inner, Result, ToldPart};
use super::{MOST_URLS, bad_parts, bare};
use crate::model::digest::Digests;
use crate::model::plan::{MAX_PARTS, MIN_PART_BYTES};
use crate::model::{
    ByteRange, Length, PartNumber, PartReceipt, Plan, UploadId, UploadKey, UploadState,
};
use crate::store::direct::{FoundPart, PartPlace, SignedRequest};

impl Inner {
    pub(in crate::engine) async fn adopted_urls(
        self: &Arc<Self>,
        id: UploadId,
        key: &UploadKey,
        numbers: Vec<PartNumber>,
    ) -> Result<Vec<(PartNumber, SignedRequest)>> {
        let live = self.open_adopted(id, key).await?;
        let (direct, parts) = self.past_the_server()?;
        check_numbers(&numbers)?;
        // So that it does not turn to assembling in between.
        let _turn = live.turning.lock().await;
        let now = self.clock.now();
        let until = now.after(self.settings.url_ttl);
        {
            let mut state = live.state();
            if state.lost {
                return Err(EngineError::Displaced);
            }
            if state.is_assembling() || state.snapshot.upload.length.is_some() {
                return Err(EngineError::Completed);
            }
            for number in &numbers {
                let known = state.snapshot.direct.entry(*number).or_insert(until);
                *known = until.max(*known);
            }
        }
        let upload = self
            .open_parts(&live, parts, numbers.clone(), until)
            .await?;
        let mut signed = Vec::with_capacity(numbers.len());
        for number in numbers {
            let place = PartPlace {
                key: &live.store_key(),
                upload: &upload,
                number,
            };
            let ttl = self.settings.url_ttl;
            let request = direct.sign_part(place, None, None, now, ttl).await?;
            signed.push((number, request));
        }
        Ok(signed)
    }

    pub(in crate::engine) async fn adopted_parts(
        self: &Arc<Self>,
        id: UploadId,
        key: &UploadKey,
    ) -> Result<Vec<FoundPart>> {
        let live = self.open_adopted(id, key).await?;
        {
            let state = live.state();
            if state.snapshot.upload.length.is_some() {
                let parts = state.snapshot.parts.values();
                return Ok(parts.map(found).collect());
            }
        }
        Ok(self.all_parts(&live).await?.into_values().collect())
    }

    pub(in crate::engine) async fn complete_with(
        self: &Arc<Self>,
        command: CompleteWith,
    ) -> Result<Completion> {
        let told = by_number(&command.parts)?;
        let told = Arc::new(told);
        let complete = Complete {
            id: command.id,
            key: command.key,
            digests: Digests::default(),
            length: None,
        };
        loop {
            let live = match self.open(complete.id, &complete.key).await? {
                Opened::Live(live) if live.plan == Plan::Adopted => live,
                Opened::Ended(upload) if upload.plan == Plan::Adopted => {
                    return self.complete(complete).await;
                }
                _ => return Err(EngineError::NotFound),
            };
            // A client that hangs up meanwhile does not stop it where the catalog knows more than the memory.
            let (engine, its, told) = (Arc::clone(self), Arc::clone(&live), Arc::clone(&told));
            let adopting = self
                .tasks
                .spawn(async move { engine.adopt_parts(&its, &told).await });
            let adopted = adopting
                .await
                .unwrap_or_else(|error| Err(EngineError::Internal(error.into())));
            match adopted {
                Ok(()) => return self.complete(complete).await,
                // It ended, or changed hands, in the meantime.
                Err(EngineError::Displaced) if live.state().lost => tokio::task::yield_now().await,
                Err(error @ EngineError::TooLarge { .. }) => {
                    // Nothing its client could still do would make it smaller.
                    self.abort(complete.id, &complete.key).await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Remembers which parts an upload is made of, unless that is known.
    async fn adopt_parts(
        self: &Arc<Self>,
        live: &Arc<Live>,
        told: &BTreeMap<PartNumber, String>,
    ) -> Result<()> {
        let _turn = live.turning.lock().await;
        {
            let state = live.state();
            if state.lost {
                return Err(EngineError::Displaced);
            }
            if state.snapshot.upload.length.is_some() {
                return agree(&state.snapshot.parts, told);
            }
        }
        let found = self.all_parts(live).await?;
        let missing = told.keys().filter(|number| !found.contains_key(number));
        let missing: Vec<_> = missing.copied().collect();
        if !missing.is_empty() {
            return Err(EngineError::PartsMissing { parts: missing });
        }
        let named: Vec<_> = (found.into_values())
            .filter(|part| told.contains_key(&part.number))
            .collect();
        differing(
            named
                .iter()
                .filter(|part| bare(&part.etag) != told[&part.number]),
        )?;
        let total = named
            .iter()
            .try_fold(0_u64, |total, part| total.checked_add(part.size.get()));
        let max = self.largest_for(live);
        let length = total
            .map(Length)
            .filter(|length| *length <= max)
            .ok_or(EngineError::TooLarge { max })?;
        let (_, parts) = self.past_the_server()?;
        check_sizes(&named, parts.equal_parts())?;
        let parts = receipts(&named);
        let change = Change {
            received: ByteRange::new(0, length.get()).into_iter().collect(),
            parts,
            length: Some(length),
            readback: true,
            direct: true,
            ..Change::default()
        };
        live.commit(self, change).await
    }

    /// An upload that takes parts of its client's cut. One of another kind is none.
    async fn open_adopted(self: &Arc<Self>, id: UploadId, key: &UploadKey) -> Result<Arc<Live>> {
        match self.open(id, key).await? {
            Opened::Live(live) if live.plan == Plan::Adopted => Ok(live),
            Opened::Ended(upload) if upload.plan == Plan::Adopted => {
                if !matches!(upload.state, UploadState::Completed { .. }) {
                    answer_ended(&upload, None)?;
                }
                Err(EngineError::Completed)
            }
            _ => Err(EngineError::NotFound),
        }
    }
}

fn check_numbers(numbers: &[PartNumber]) -> Result<()> {
    if numbers.is_empty() || numbers.len() > MOST_URLS {
        return Err(bad_parts(format!(
            "1 to {MOST_URLS} part numbers can be asked for at once"
        )));
    }
    let known = 1..=MAX_PARTS;
    match numbers.iter().find(|number| !known.contains(&number.0)) {
        Some(stray) => Err(bad_parts(format!(
            "part numbers go from 1 to {MAX_PARTS}; {stray} is none"
        ))),
        None => Ok(()),
    }
}

/// The tags that a client tells, without quotes.
fn by_number(parts: &[ToldPart]) -> Result<BTreeMap<PartNumber, String>> {
    let tag = |part: &ToldPart| (part.number, bare(&part.etag).to_owned());
    let told: BTreeMap<_, _> = parts.iter().map(tag).collect();
    if told.is_empty() {
        return Err(bad_parts("parts has to name the parts that make the file"));
    }
    if told.len() < parts.len() {
        return Err(bad_parts("parts has to name each part once"));
    }
    Ok(told)
}

/// A completion that is repeated has to name the parts that are being put together.
fn agree(
    receipts: &BTreeMap<PartNumber, PartReceipt>,
    told: &BTreeMap<PartNumber, String>,
) -> Result<()> {
    if receipts.is_empty() {
        // It has no bytes; its one part was empty.
        return Ok(());
    }
    let same = |number: &PartNumber| {
        let receipt = receipts.get(number).map(|receipt| bare(&receipt.etag));
        receipt.is_some() && receipt == told.get(number).map(String::as_str)
    };
    let others = receipts
        .keys()
        .chain(told.keys())
        .filter(|number| !same(number));
    let others: std::collections::BTreeSet<_> = others.copied().collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(EngineError::PartsMismatch {
        detail: "the upload is being completed with other parts than these".to_owned(),
        parts: others.into_iter().collect(),
    })
}

fn differing<'a>(parts: impl Iterator<Item = &'a FoundPart>) -> Result<()> {
    let parts: Vec<_> = parts.map(|part| part.number).collect();
    if parts.is_empty() {
        return Ok(());
    }
    Err(EngineError::PartsMismatch {
        detail: "the store has these parts with other etags: put them again, or tell the etags that it answered last".to_owned(),
        parts,
    })
}

/// Whether parts of these sizes, in this order, can be put together.
fn check_sizes(parts: &[FoundPart], equal: bool) -> Result<()> {
    let Some((last, before)) = parts.split_last() else {
        return Ok(());
    };
    let mismatch =
        |detail: String, parts: Vec<PartNumber>| Err(EngineError::PartsMismatch { detail, parts });
    let numbers = |wrong: &dyn Fn(&FoundPart) -> bool| -> Vec<_> {
        let parts = before.iter().filter(|part| wrong(part));
        parts.map(|part| part.number).collect()
    };
    let small = numbers(&|part| part.size.get() < MIN_PART_BYTES);
    if !small.is_empty() {
        return mismatch(
            format!("every part but the last has to have at least {MIN_PART_BYTES} bytes"),
            small,
        );
    }
    if !before.is_empty() && last.size == Length(0) {
        return mismatch("this part has no bytes".to_owned(), vec![last.number]);
    }
    if let Some(first) = before.first().filter(|_| equal) {
        let mut others = numbers(&|part| part.size != first.size);
        others.extend((last.size > first.size).then_some(last.number));
        if !others.is_empty() {
            return mismatch(
                format!(
                    "this store puts only parts of one size together, but for a smaller last one: part {} has {} bytes",
                    first.number, first.size
                ),
                others,
            );
        }
    }
    Ok(())
}

/// Which bytes of the whole each part is. An empty one is none.
fn receipts(parts: &[FoundPart]) -> Vec<PartReceipt> {
    let mut reach = 0;
    let receipt = |part: &FoundPart| {
        let range = ByteRange::new(reach, reach + part.size.get())?;
        reach = range.end();
        Some(PartReceipt {
            number: part.number,
            range,
            etag: part.etag.clone(),
            checksum: None,
        })
    };
    parts.iter().filter_map(receipt).collect()
}

fn found(receipt: &PartReceipt) -> FoundPart {
    FoundPart {
        number: receipt.number,
        size: Length(receipt.range.len()),
        etag: receipt.etag.clone(),
    }
}
