//! Past the server: URLs that clients put parts to, and what came of them.
//!
//! A URL is for one cell of the grid. It is handed out for a cell of which nothing is there and that nobody writes to, and that
//! it may be good is known to the catalog first. From then on whoever has it can put a part into the multipart upload at any
//! time, and another in its place. So bytes of the cell that come through the server are kept out of the store: they wait in
//! the tail until no URL can be good any more or everything is put together (`finish.rs`), and no part that lands late
//! replaces what was acknowledged.
//!
//! Of what a client says of a part nothing is believed. The store is asked for it, when the client says that it is there or
//! when the upload is to be completed, and a part of exactly the cell's size counts as its bytes. Nobody has hashed these, so
//! the object is read back, or the store's own checksum is taken for it.

mod adopt;
mod finish;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::admit::answer_ended;
use super::flight;
use super::live::{Change, Live, Opened, State};
use super::{Conflict, EngineError, Inner, Result, SignedRequest, Written};
use crate::model::upload::{Protocol, Role, StoreUploadId};
use crate::model::{
    ByteRange, Cell, Digest, Length, PartNumber, PartReceipt, RangeSet, Timestamp, Upload,
    UploadId, UploadKey, UploadState,
};
use crate::store::direct::{Direct, FoundPart, PartPlace};
use crate::store::{Parts, Shape, StoreError};

/// How long after its end a URL may still be good. A store's clock may be behind ours, but not by more: it would take none of
/// our signatures.
const SKEW: Duration = Duration::from_mins(15);
/// How many parts are signed at once.
const MOST_URLS: usize = 1_000;
/// How many parts the store is asked for at once.
const PAGE: u32 = 1_000;

/// Asks for URLs that parts can be put to, past the server.
#[derive(Debug, Clone)]
pub struct PartUrls {
    /// Which upload.
    pub id: UploadId,
    /// The key that opens it.
    pub key: UploadKey,
    /// Which parts, each once.
    pub numbers: Vec<PartNumber>,
    /// Digests that the store is to verify parts by.
    pub digests: BTreeMap<PartNumber, Digest>,
}

/// A request that puts a part into the store.
#[derive(Debug, Clone)]
pub struct SignedPart {
    /// The part.
    pub number: PartNumber,
    /// Its bytes: all of them have to come with the request.
    pub range: ByteRange,
    /// The request.
    pub request: SignedRequest,
}

impl State {
    /// Whether a URL for the part may be good.
    pub(super) fn is_open(&self, number: PartNumber, now: Timestamp) -> bool {
        let until = self.snapshot.direct.get(&number);
        until.is_some_and(|until| now < until.after(SKEW))
    }

    /// Whether everything is there and being put together.
    pub(super) fn is_assembling(&self) -> bool {
        matches!(self.snapshot.upload.state, UploadState::Assembling { .. })
    }

    /// Whether bytes of the cell are there, or on their way through the server.
    fn is_touched(&self, cell: Cell) -> bool {
        let mut there = self.snapshot.received.overlapping(cell.range);
        there.next().is_some() || self.busy.contains(&cell.number) || self.is_leased(cell.range)
    }

    /// The cell of a part that may have come by a URL and does not count yet.
    fn awaits(&self, number: PartNumber) -> Option<Cell> {
        let upload = &self.snapshot.upload;
        let cell = upload.plan.cell(number, upload.length)?;
        (self.snapshot.direct.contains_key(&number) && !self.is_touched(cell)).then_some(cell)
    }
}

impl Inner {
    /// What can be done past the server, or why nothing can.
    pub(super) fn past_the_server(&self) -> Result<(&dyn Direct, &dyn Parts)> {
        match (self.store.direct(), self.store.shape()) {
            (Some(direct), Shape::Parts(parts)) => Ok((direct, parts)),
            _ => Err(unavailable(
                "this store takes no parts directly: send the bytes through the server",
            )),
        }
    }

    pub(super) async fn part_urls(self: &Arc<Self>, ask: PartUrls) -> Result<Vec<SignedPart>> {
        let live = match self.open(ask.id, &ask.key).await? {
            Opened::Live(live) => live,
            Opened::Waiting(_) => return Err(EngineError::Unwritable),
            Opened::Ended(upload) => {
                answer_ended(&upload, None)?;
                return Err(EngineError::Completed);
            }
        };
        let (direct, parts) = self.past_the_server()?;
        check_kind(&live.state().snapshot.upload)?;
        // So that it does not turn to assembling in between.
        let _turn = live.turning.lock().await;
        if live.state().is_assembling() {
            return Err(EngineError::Completed);
        }
        let mixes = direct.mixes().await?;
        if !mixes && !ask.digests.is_empty() {
            return Err(bad_parts(
                "this store verifies no digest of a part that is put directly: leave them out",
            ));
        }
        let now = self.clock.now();
        let until = now.after(self.settings.url_ttl);
        let cells = self.reserve(&live, &ask, mixes, until)?;
        let numbers = cells.iter().map(|cell| cell.number).collect();
        let upload = self.open_parts(&live, parts, numbers, until).await?;
        if !mixes && !live.state().snapshot.upload.unchecked {
            return Err(checked_already());
        }
        let mut signed = Vec::with_capacity(cells.len());
        for cell in cells {
            let place = PartPlace {
                key: &live.store_key(),
                upload: &upload,
                number: cell.number,
            };
            let size = Some(Length(cell.range.len()));
            let digest = ask.digests.get(&cell.number);
            let request = direct
                .sign_part(place, size, digest, now, self.settings.url_ttl)
                .await;
            let request = match (request, digest) {
                (Err(StoreError::Refused(error)), Some(digest)) => {
                    let algorithm = digest.algorithm();
                    tracing::info!(upload = %live.id, %error, "a part with a digest is not signed");
                    return Err(bad_parts(format!(
                        "the store verifies no {algorithm} of part {}: give another digest of it (most take crc64nvme or md5), or none",
                        cell.number
                    )));
                }
                (request, _) => request?,
            };
            signed.push(SignedPart {
                number: cell.number,
                range: cell.range,
                request,
            });
        }
        Ok(signed)
    }

    /// Remembers that URLs for these parts may be good until then, before anybody has one; the multipart upload that they put to.
    async fn open_parts(
        &self,
        live: &Live,
        parts: &dyn Parts,
        numbers: Vec<PartNumber>,
        until: Timestamp,
    ) -> Result<StoreUploadId> {
        self.catalog
            .open_parts(live.id, live.epoch(), numbers, until)
            .await
            .map_err(|error| live.catalog_failed(error))?;
        // Its bytes come past the server, so this is all that is seen of them.
        let change = Change {
            alive: true,
            ..Change::default()
        };
        live.commit(self, change).await?;
        let of = flight::to_be_made_of(self, live).await?;
        flight::begin(self, live, parts, of).await
    }

    /// The cells that are asked for, if URLs can be handed out for all of them; from now on nothing of them leaves for the store.
    /// It counts in memory first: a writer that is let in meanwhile has to see it.
    fn reserve(
        &self,
        live: &Live,
        ask: &PartUrls,
        mixes: bool,
        until: Timestamp,
    ) -> Result<Vec<Cell>> {
        let distinct: BTreeSet<_> = ask.numbers.iter().collect();
        if ask.numbers.is_empty()
            || ask.numbers.len() > MOST_URLS
            || distinct.len() < ask.numbers.len()
        {
            return Err(bad_parts(format!(
                "part_numbers has to have 1 to {MOST_URLS} numbers, each once"
            )));
        }
        if let Some((stray, _)) =
            (ask.digests.iter()).find(|(number, _)| !distinct.contains(number))
        {
            return Err(bad_parts(format!(
                "digests has part {stray}, part_numbers has not"
            )));
        }
        let mut state = live.state();
        if state.lost {
            return Err(EngineError::Displaced);
        }
        let upload = &state.snapshot.upload;
        if !mixes && upload.store_upload_id.is_some() && !upload.unchecked {
            return Err(checked_already());
        }
        let cells: Vec<Cell> = (ask.numbers.iter())
            .map(|number| self.cell_of(upload, *number))
            .collect::<Result<_>>()?;
        let touched = cells.iter().filter(|cell| state.is_touched(**cell));
        let touched: Vec<_> = touched.map(|cell| cell.number).collect();
        if !touched.is_empty() {
            return Err(EngineError::DirectUnavailable {
                detail: "bytes of these parts are there or on their way: what is missing of them has to come through the server"
                    .to_owned(),
                parts: touched,
            });
        }
        for cell in &cells {
            let known = state.snapshot.direct.entry(cell.number).or_insert(until);
            *known = until.max(*known);
        }
        Ok(cells)
    }

    fn cell_of(&self, upload: &Upload, number: PartNumber) -> Result<Cell> {
        let max = self.largest(upload.plan, upload.max_size).get();
        let cell = upload.plan.cell(number, upload.length);
        cell.filter(|cell| cell.range.end() <= max).ok_or_else(|| {
            let last = upload.length.unwrap_or_default().get().checked_sub(1);
            let last = last.and_then(|byte| upload.plan.cell_at(byte, upload.length));
            let of = match (last, upload.length) {
                (Some(last), Some(length)) => {
                    format!("its {length} bytes are parts 1 to {}", last.number)
                }
                (None, Some(_)) => "it has no bytes".to_owned(),
                _ => format!("it can have at most {max} bytes"),
            };
            bad_parts(format!("the upload has no part {number}: {of}"))
        })
    }

    pub(super) async fn part_arrived(
        self: &Arc<Self>,
        id: UploadId,
        key: &UploadKey,
        number: PartNumber,
        etag: Option<&str>,
    ) -> Result<Written> {
        let live = match self.open(id, key).await? {
            Opened::Live(live) => live,
            Opened::Waiting(_) => return Err(EngineError::Unwritable),
            Opened::Ended(upload) => {
                let written = answer_ended(&upload, None)?;
                self.past_the_server()?;
                self.cell_of(&upload, number)?;
                return Ok(written);
            }
        };
        self.past_the_server()?;
        let cell = {
            let state = live.state();
            check_kind(&state.snapshot.upload)?;
            let cell = self.cell_of(&state.snapshot.upload, number)?;
            if state.snapshot.received.covers(cell.range) {
                drop(state);
                return Ok(written(&live));
            }
            if !state.snapshot.direct.contains_key(&number) {
                return Err(EngineError::DirectUnavailable {
                    detail: "no URL was handed out for this part".to_owned(),
                    parts: vec![number],
                });
            }
            if state.is_touched(cell) {
                return Err(partly_here(number));
            }
            cell
        };
        let found = self.parts_after(&live, before(number), 1).await?;
        let Some(part) = found.into_iter().find(|part| part.number == number) else {
            let range = cell.range;
            return Err(EngineError::NotPut { number, range });
        };
        let mismatch = |detail| EngineError::RangeMismatch {
            conflict: Conflict::Lengths,
            detail,
            length: live.length(),
            expected_offset: Some(live.offset()),
        };
        let (has, wants) = (part.size.get(), cell.range.len());
        if has != wants {
            return Err(mismatch(format!(
                "the store has {has} bytes as part {number}, which is {wants} bytes of the upload"
            )));
        }
        if etag.is_some_and(|told| bare(told) != bare(&part.etag)) {
            return Err(mismatch(format!(
                "the store has part {number} with another etag"
            )));
        }
        // A client that hangs up meanwhile does not leave the memory behind the catalog.
        let received = {
            let (engine, live) = (Arc::clone(self), Arc::clone(&live));
            self.tasks
                .spawn(async move { engine.receive(&live, &[part]).await })
        };
        let received = received
            .await
            .unwrap_or_else(|error| Err(EngineError::Internal(error.into())));
        if received? == 0 && !is_received(&live, cell.range) {
            return Err(partly_here(number));
        }
        self.kick_settling(&live);
        Ok(written(&live))
    }

    /// Looks in the store for parts that nobody has told of.
    pub(super) async fn receive_found(self: &Arc<Self>, live: &Arc<Live>) -> Result<()> {
        let awaited = {
            let state = live.state();
            let numbers = state.snapshot.direct.keys().copied();
            let mut numbers = numbers.filter(|number| state.awaits(*number).is_some());
            let first = numbers.next();
            first.map(|first| (first, numbers.next_back().unwrap_or(first)))
        };
        let Some((first, last)) = awaited else {
            return Ok(());
        };
        let mut after = before(first);
        while after.is_none_or(|after| after < last) {
            let found = self.parts_after(live, after, PAGE).await?;
            let Some(end) = found.last() else { break };
            after = Some(end.number);
            self.receive(live, &found).await?;
        }
        Ok(())
    }

    /// The parts that the store has, by their numbers; none where there is no multipart upload.
    async fn parts_after(
        &self,
        live: &Live,
        after: Option<PartNumber>,
        limit: u32,
    ) -> Result<Vec<FoundPart>> {
        let (direct, parts) = self.past_the_server()?;
        let Some(upload) = live.store_upload_id() else {
            return Ok(Vec::new());
        };
        match direct
            .parts_of(&live.store_key(), &upload, after, limit)
            .await
        {
            Err(error @ StoreError::NotFound) => {
                flight::check_gone(self, live, parts, &upload, error).await?;
                Ok(Vec::new())
            }
            found => {
                let found = found?;
                live.state().missing_since = None;
                Ok(found)
            }
        }
    }

    /// Counts parts as received that came by a URL: of those found the ones that are what they should be, and that nobody brings
    /// otherwise. Returns how many.
    async fn receive(self: &Arc<Self>, live: &Arc<Live>, found: &[FoundPart]) -> Result<usize> {
        let mut receipts = Vec::new();
        let lease = live.occupy(|state| {
            receipts = (found.iter())
                .filter_map(|part| {
                    let cell = state.awaits(part.number)?;
                    (part.size.get() == cell.range.len()).then(|| PartReceipt {
                        number: cell.number,
                        range: cell.range,
                        etag: part.etag.clone(),
                        checksum: None,
                    })
                })
                .collect();
            let ranges = receipts.iter().map(|receipt| receipt.range);
            ranges.collect::<RangeSet>()
        });
        let Some(_lease) = lease else { return Ok(0) };
        let numbers: Vec<_> = receipts.iter().map(|receipt| receipt.number).collect();
        let change = Change {
            received: receipts.iter().map(|receipt| receipt.range).collect(),
            parts: receipts,
            readback: true,
            direct: true,
            ..Change::default()
        };
        live.commit(self, change).await?;
        for number in &numbers {
            // What a writer left there that never came to commit it.
            flight::clear_tail(self, live, *number).await;
        }
        Ok(numbers.len())
    }
}

/// What to list parts from, so that this one is the first.
fn before(number: PartNumber) -> Option<PartNumber> {
    (number.0 > 1).then(|| PartNumber(number.0 - 1))
}

fn is_received(live: &Live, range: ByteRange) -> bool {
    live.state().snapshot.received.covers(range)
}

fn written(live: &Live) -> Written {
    Written {
        offset: live.offset(),
        length: live.length(),
        expires_at: live.expires_at(),
    }
}

/// An etag as its client may have got it: from a header field, with quotes.
fn bare(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// Only a file that is sent in parts of any order has parts that can go by themselves.
fn check_kind(upload: &Upload) -> Result<()> {
    if upload.protocol != Protocol::Native || upload.role != Role::Whole {
        return Err(unavailable(
            "only uploads of the native protocol have parts that can go directly",
        ));
    }
    if upload.declared.sequential {
        return Err(unavailable(
            "the upload takes its chunks in order, and parts that go directly have none",
        ));
    }
    Ok(())
}

fn unavailable(detail: &str) -> EngineError {
    EngineError::DirectUnavailable {
        detail: detail.to_owned(),
        parts: Vec::new(),
    }
}

fn checked_already() -> EngineError {
    unavailable(
        "parts came through the server first, with checksums, and this store takes no others beside them: send all of them there",
    )
}

fn partly_here(number: PartNumber) -> EngineError {
    EngineError::DirectUnavailable {
        detail: "bytes of this part came through the server: what is missing of it has to come there too"
            .to_owned(),
        parts: vec![number],
    }
}

fn bad_parts(detail: impl Into<String>) -> EngineError {
    EngineError::BadParts {
        detail: detail.into(),
    }
}
