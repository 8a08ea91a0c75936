//! The byte path: from a request's body to bytes that are durable and remembered.
//!
//! A writer is a task of its own that owns the body. It gathers what comes, hashes it in order beside receiving, and
//! brings it to rest in one of two ways: *placed* at its position in a file (a folder's staged object, or the tail of a
//! bucket), or gathered to a full cell in memory and *flown* to the store as a part. What has come to rest is committed
//! in order as *segments*; when the body ends, breaks, or a newer request displaces it, everything it holds is brought to
//! rest and committed before it answers. `engine/flight.rs` has the way of a cell to the store.

mod rest;
mod whole;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::admit::Admitted;
use super::buffer::{Frame, Gather, Grant, Holding};
use super::error::BodyError;
use super::flight::Flight;
use super::hasher::Hasher;
use super::lane::{HashLane, WriteLane};
use super::lease::Lease;
use super::live::Live;
use super::patience::Patience;
use super::{Body, Conflict, EngineError, Expected, Inner, Result, Write, Written};
use crate::model::digest::Digests;
use crate::model::{ByteRange, Digest, Length, Offset, UploadId};
use rest::{OpenCell, Save, Segment, WholeHash};

/// How many cells of one body may be on their way to the store.
const MAX_FLIGHTS: usize = 6;
/// How long the end of a body waits for cells on their way before it keeps them in the tail instead.
const FLIGHT_PATIENCE: Duration = Duration::from_secs(10);

/// A displaced writer takes what has come for so long, and stops when nothing comes for the pause: time for a read of the
/// socket, not for a client.
const LAST_BYTES_WITHIN: Duration = Duration::from_millis(300);
const LAST_BYTES_PAUSE: Duration = Duration::from_millis(10);

/// A writer with its lease, before it has read anything.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Writer {
    engine: Arc<Inner>,
    live: Arc<Live>,
    lease: Lease,
    request: Write,
    /// The offset of the body's next byte.
    at: u64,
    /// The body came with a digest.
    checksummed: bool,
    /// It has yet to match its digest before any of it counts.
    provisional: bool,
    body_hash: Option<HashLane>,
    whole_hash: Option<WholeHash>,
    writes: WriteLane,
    gather: Gather,
    ready: Vec<Frame>,
    /// The offset of the first byte that is gathered or ready.
    gathered_from: u64,
    spill: Arc<Notify>,
    holding: Option<Holding>,
    cell: Option<OpenCell>,
    segments: VecDeque<Segment>,
    flights: FuturesUnordered<Flight>,
    last_commit: Instant,
    commit_due: Instant,
    saves: u64,
    /// The next commit is due even if there are no bytes for it.
    commit_anyway: bool,
    /// A commit did not work: nothing more is committed.
    commit_failed: bool,
    /// It is displaced, and goes at the latest then.
    leaves_at: Option<Instant>,
}

/// How a body ended.
enum End {
    Whole,
    /// It ended cleanly, but before its range did.
    Short,
    /// It has more bytes than its range.
    Long,
    Broken(BodyError),
    Displaced,
    Failed(EngineError),
}

impl Writer {
    pub(super) fn new(engine: Arc<Inner>, live: Arc<Live>, lease: Lease, request: Write) -> Self {
        let provisional = request.digests.asks();
        let now = Instant::now();
        Self {
            at: request.start.get(),
            provisional,
            body_hash: provisional.then(|| {
                let hasher = Hasher::of_body(&request.digests);
                HashLane::start(hasher, engine.settings.pace.clone())
            }),
            checksummed: provisional,
            whole_hash: None,
            writes: WriteLane::start(engine.syncs(), engine.settings.pace.clone()),
            gather: Gather::new(engine.budget.clone()),
            ready: Vec::new(),
            gathered_from: request.start.get(),
            spill: Arc::default(),
            holding: None,
            cell: None,
            segments: VecDeque::new(),
            flights: FuturesUnordered::new(),
            last_commit: now,
            commit_due: now + engine.settings.commit_interval,
            saves: 0,
            commit_anyway: false,
            commit_failed: false,
            leaves_at: None,
            engine,
            live,
            lease,
            request,
        }
    }

    /// How far the upload reaches durably.
    pub(super) fn progress(&self) -> watch::Receiver<Offset> {
        self.live.progress.subscribe()
    }

    /// The upload that it writes to.
    pub(super) fn id(&self) -> UploadId {
        self.live.id
    }

    /// The engine that it works for.
    pub(super) fn engine(&self) -> Arc<Inner> {
        Arc::clone(&self.engine)
    }

    /// Whether its upload was completed, or changed hands, since it was let in.
    pub(super) fn is_late(&self) -> bool {
        self.live.state().lost
    }

    /// Lets the same request in once more.
    pub(super) async fn admit_again(self: Box<Self>) -> Result<Admitted> {
        let (engine, request) = (Arc::clone(&self.engine), self.request.clone());
        drop(self);
        engine.admit(request).await
    }

    /// Where writers run.
    pub(super) fn tasks(&self) -> TaskTracker {
        self.engine.tasks.clone()
    }

    /// Takes the body to its end and answers for what came of it.
    pub(super) async fn run(mut self: Box<Self>, body: Body) -> Result<Written> {
        let mut body = if self.provisional {
            // Its digest is looked at first.
            body
        } else {
            let (engine, live) = (&self.engine, &self.live);
            engine
                .check_beginning(live, self.request.start, body)
                .await?
        };
        self.take_up_hash();
        let end = self.pump(&mut body).await;
        // From here on the rest of the body, if there is any, is whoever's who gave it.
        drop(body);
        let outcome = self.finish(end).await;
        let goes_on = outcome.is_ok() || self.request.whole.is_none();
        let live = Arc::clone(&self.live);
        let engine = Arc::clone(&self.engine);
        drop(self);
        if goes_on {
            engine.kick_settling(&live);
        }
        outcome
    }

    async fn pump(&mut self, body: &mut Body) -> End {
        let mut patience = Patience::new(self.engine.settings.body_pace);
        loop {
            let reading_since = Instant::now();
            let full = self.flights.len() >= MAX_FLIGHTS;
            let step = tokio::select! {
                biased;
                () = self.lease.cancel.cancelled() => return self.take_the_last(body).await,
                () = self.engine.stopping.cancelled() => return End::Broken(BodyError::ShuttingDown),
                Some(landing) = self.flights.next() => self.landed(landing).await.map(|()| None),
                () = self.lease.nudge.notified() => self.save_on_the_way().await.map(|()| None),
                () = self.spill.notified() => self.spill_memory().await.map(|()| None),
                () = tokio::time::sleep_until(self.commit_due) => self.save_on_the_way().await.map(|()| None),
                frame = tokio::time::timeout(patience.left(), body.next()), if !full => Ok(Some(frame)),
            };
            let waited = if full {
                Duration::ZERO
            } else {
                reading_since.elapsed()
            };
            let bytes = match step {
                Err(error) => return End::Failed(error),
                Ok(None | Some(Err(_))) => None,
                Ok(Some(Ok(None))) => return self.clean_end(),
                Ok(Some(Ok(Some(Err(error))))) => return End::Broken(error),
                Ok(Some(Ok(Some(Ok(bytes))))) => Some(bytes),
            };
            let enough = patience.waited(waited, bytes.as_ref().map_or(0, Bytes::len));
            if let Some(bytes) = bytes {
                self.lease.last_byte.now();
                match self.take(bytes).await {
                    Ok(true) => {}
                    Ok(false) => return End::Long,
                    Err(Interrupted::Displaced) => return End::Displaced,
                    Err(Interrupted::Failed(error)) => return End::Failed(error),
                }
            }
            if let Err(error) = enough {
                return End::Broken(error);
            }
        }
    }

    /// A displaced writer still takes what had come by then, so that nobody has to send it again; but nobody waits for more.
    async fn take_the_last(&mut self, body: &mut Body) -> End {
        let deadline = Instant::now() + LAST_BYTES_WITHIN;
        self.leaves_at = Some(deadline);
        while Instant::now() < deadline {
            let bytes = match tokio::time::timeout(LAST_BYTES_PAUSE, body.next()).await {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(Some(Err(_))) => {
                    // Its connection was gone, so nobody fights over the upload.
                    self.live.state().displaced_at.pop_back();
                    break;
                }
                Ok(None) | Err(_) => break,
            };
            match self.take(bytes).await {
                Ok(true) => {}
                Ok(false) | Err(Interrupted::Displaced) => break,
                Err(Interrupted::Failed(error)) => return End::Failed(error),
            }
        }
        End::Displaced
    }

    fn clean_end(&self) -> End {
        let all = self.request.whole.and_then(|_| self.live.length());
        let end = self.request.end.map(Offset::get).or(all.map(Length::get));
        match end {
            Some(end) if self.at < end => End::Short,
            _ => End::Whole,
        }
    }

    /// Takes the next bytes of the body; `false` if there are more than its range has.
    async fn take(&mut self, mut bytes: Bytes) -> std::result::Result<bool, Interrupted> {
        metrics::counter!("jumar_received_bytes_total", "protocol" => self.live.protocol().name())
            .increment(bytes.len() as u64);
        let most = self.engine.settings.max_checksummed_chunk_bytes;
        if self.checksummed && self.at + bytes.len() as u64 - self.request.start.get() > most {
            let max = Length(most);
            return Err(Interrupted::Failed(EngineError::TooLarge { max }));
        }
        let room = self.claim_room(bytes.len() as u64);
        let fits = bytes.len() as u64 <= room;
        if !fits {
            bytes.truncate(usize::try_from(room).expect("less than the frame's length"));
        }
        while !bytes.is_empty() {
            let wanted = self
                .lease
                .want
                .overlapping(remaining(self.at, bytes.len()))
                .next();
            let (keep, len) = match wanted {
                Some(range) if range.start() == self.at => (true, range.len()),
                Some(range) => (false, range.start() - self.at),
                None => (false, bytes.len() as u64),
            };
            let piece = bytes.split_to(usize::try_from(len).expect("within the frame"));
            if keep {
                self.keep(piece).await?;
            } else {
                self.skip(piece).await?;
            }
        }
        Ok(fits)
    }

    /// How many of the next bytes belong to the range and to the upload, whose length may have become known in the meantime.
    fn claim_room(&self, bytes: u64) -> u64 {
        let largest = self.engine.largest_for(&self.live);
        let state = self.live.state();
        let end = state.snapshot.upload.length.unwrap_or(largest).get();
        let end = self.request.end.map_or(end, |asked| asked.get().min(end));
        let end = self
            .request
            .whole
            .map_or(end, |whole| whole.at_most.get().min(end));
        let room = end.saturating_sub(self.at).min(bytes);
        self.lease.last_byte.reaches(self.at + room);
        room
    }

    /// Bytes that are there already: read past, but hashed where the body as a whole is.
    async fn skip(&mut self, bytes: Bytes) -> std::result::Result<(), Interrupted> {
        self.bring_out_gathered().await?;
        let len = bytes.len() as u64;
        if self.body_hash.is_some() {
            let grant = self.take_memory(bytes.len()).await?;
            if let Some(lane) = &self.body_hash {
                lane.push(Frame::passing(bytes, grant)).await;
            }
        }
        self.at += len;
        self.gathered_from = self.at;
        Ok(())
    }

    async fn keep(&mut self, bytes: Bytes) -> std::result::Result<(), Interrupted> {
        let mut displaced = false;
        let grant = match self.gather.needs(&bytes) {
            Some(needed) => match self.take_memory(needed).await {
                // They have come, so they are kept; there is memory for them, since they are there.
                Err(Interrupted::Displaced) => {
                    displaced = true;
                    Some(self.engine.budget.overdraw())
                }
                grant => Some(grant?),
            },
            None => None,
        };
        self.at += bytes.len() as u64;
        self.gather.push(bytes, grant, &mut self.ready);
        if self.holding.is_none() {
            self.holding = Some(self.engine.budget.hold(&self.spill));
        }
        self.place_ready().await?;
        if displaced {
            return Err(Interrupted::Displaced);
        }
        Ok(())
    }

    /// Memory from the budget. While there is none, cells land, and this writer may be the one that has to spill.
    async fn take_memory(&mut self, bytes: usize) -> std::result::Result<Arc<Grant>, Interrupted> {
        let budget = self.engine.budget.clone();
        let grant = budget.take(bytes);
        let (cancel, leaves_at) = (self.lease.cancel.clone(), self.leaves_at);
        let has_to_leave = async {
            match leaves_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => cancel.cancelled().await,
            }
        };
        tokio::pin!(grant, has_to_leave);
        loop {
            tokio::select! {
                biased;
                () = &mut has_to_leave => return Err(Interrupted::Displaced),
                () = self.engine.stopping.cancelled() => return Err(Interrupted::Displaced),
                grant = &mut grant => return Ok(grant),
                () = self.spill.notified() => self.spill_memory().await?,
                Some(landing) = self.flights.next() => self.landed(landing).await?,
                () = self.lease.nudge.notified() => self.save_on_the_way().await?,
            }
        }
    }

    /// Sends gathered frames where they belong.
    async fn place_ready(&mut self) -> Result<()> {
        for frame in std::mem::take(&mut self.ready) {
            let at = self.gathered_from;
            self.gathered_from += frame.len();
            if let Some(lane) = &self.body_hash {
                lane.push(frame.clone()).await;
            }
            self.hash_whole(at, &frame).await;
            self.put(at, frame).await?;
        }
        Ok(())
    }

    async fn bring_out_gathered(&mut self) -> Result<()> {
        self.gather.flush(&mut self.ready);
        self.place_ready().await
    }

    /// Brings everything to rest, commits it, and says what came of the body.
    async fn finish(&mut self, end: End) -> Result<Written> {
        let ended_whole = matches!(end, End::Whole);
        let rested = self.come_to_rest(&end).await;
        let verified = match &rested {
            Ok(()) if ended_whole => self.verify().await,
            _ => Ok(()),
        };
        let whole_or_nothing = self.provisional || self.request.whole.is_some();
        // What comes behind bytes that were not committed would leave a hole that the hash has gone over.
        let all_came = ended_whole && rested.is_ok();
        let counts = verified.is_ok() && (all_came || !whole_or_nothing) && !self.commit_failed;
        let saved = if counts {
            self.land_and_commit(&end).await
        } else {
            self.let_go(&end).await;
            Ok(())
        };
        if !counts || saved.is_err() {
            // A byte is its writer's until the last write of it has returned: a later one would land on the next writer's.
            let _ = self.writes.flush().await;
        }
        let written = Written {
            offset: self.live.offset(),
            length: self.live.length(),
            expires_at: self.live.expires_at(),
        };
        match end {
            End::Failed(error) => return Err(self.instead(error)),
            End::Displaced => return Err(EngineError::Displaced),
            _ => {}
        }
        rested
            .and(verified)
            .and(saved)
            .map_err(|error| self.instead(error))?;
        let length = self.live.length();
        match end {
            End::Broken(source) => Err(EngineError::BodyBroken {
                offset: written.offset,
                source,
            }),
            End::Short => Err(EngineError::RangeMismatch {
                conflict: Conflict::Short,
                detail: format!(
                    "the body ended at byte {}, before its range did; what came is kept",
                    self.at
                ),
                length,
                expected_offset: Some(written.offset),
            }),
            End::Long if self.is_beyond_all() => Err(EngineError::TooLarge { max: self.most() }),
            End::Long => Err(EngineError::RangeMismatch {
                conflict: Conflict::Beyond,
                detail: "the body has more bytes than its range; those within the range are kept"
                    .to_owned(),
                length,
                expected_offset: Some(written.offset),
            }),
            End::Whole | End::Displaced | End::Failed(_) => Ok(written),
        }
    }

    /// A writer whose upload was lost to another process or has ended answers `displaced`, whatever else went wrong.
    fn instead(&self, error: EngineError) -> EngineError {
        if self.lease.cancel.is_cancelled() || self.live.state().lost {
            EngineError::Displaced
        } else {
            error
        }
    }

    async fn come_to_rest(&mut self, end: &End) -> Result<()> {
        if self.request.whole.is_some() && !matches!(end, End::Whole) {
            return Ok(());
        }
        self.bring_out_gathered().await?;
        self.holding = None;
        if self.request.whole.is_some() {
            self.fix_length()?;
        }
        let full = self.cell.as_ref().is_some_and(OpenCell::is_full);
        // A body that has yet to be verified may have filled a cell exactly; it flies when the digest is known to match.
        if self.provisional && full && matches!(end, End::Whole) {
            return Ok(());
        }
        self.close_cell().await
    }

    async fn verify(&mut self) -> Result<()> {
        if self.provisional {
            self.verify_body().await?;
        }
        if self.request.whole.is_some() {
            self.verify_whole().await?;
        }
        Ok(())
    }

    async fn verify_body(&mut self) -> Result<()> {
        let Some(lane) = &self.body_hash else {
            return Ok(());
        };
        let gone =
            |error: tokio::sync::oneshot::error::RecvError| EngineError::Internal(error.into());
        let digests = lane.mark().await.await.map_err(gone)?.finish();
        if let Some(wrong) = self.request.digests.told()?.first_conflict(&digests) {
            return Err(EngineError::DigestMismatch {
                algorithm: wrong.algorithm(),
            });
        }
        self.provisional = false;
        self.close_cell().await
    }

    async fn land_and_commit(&mut self, end: &End) -> Result<()> {
        self.await_flights(end).await?;
        let mut grounded = Ok(());
        for index in 0..self.segments.len() {
            if grounded.is_ok() {
                grounded = self.ground(index).await;
            }
        }
        let save = if matches!(end, End::Whole) {
            Save::Last
        } else {
            Save::All
        };
        self.commit_rested(save).await.and(grounded)
    }

    /// Takes in the cells that land, for as long as it may be waited for them.
    async fn await_flights(&mut self, end: &End) -> Result<()> {
        let patience = match end {
            End::Displaced | End::Broken(BodyError::ShuttingDown) => Duration::ZERO,
            // Its client waits for the object anyway, and nothing is put by before that has failed.
            End::Whole if self.request.whole.is_some() => Duration::MAX,
            _ => FLIGHT_PATIENCE,
        };
        let given_up = tokio::time::sleep(patience);
        tokio::pin!(given_up);
        while !self.flights.is_empty() {
            let landing = tokio::select! {
                biased;
                Some(landing) = self.flights.next() => landing,
                () = self.lease.cancel.cancelled() => break,
                () = self.engine.stopping.cancelled() => break,
                () = &mut given_up => break,
            };
            self.landed(landing).await?;
        }
        Ok(())
    }
}

impl Expected {
    /// The digests, which have to be known when the body has ended.
    fn told(&self) -> Result<&Digests> {
        let trailing = match self {
            Self::Known(digests) => return Ok(digests),
            Self::Trailing(trailing) => trailing,
        };
        let missing = |detail: &str| EngineError::DigestMissing {
            detail: detail.to_owned(),
        };
        match trailing.told.get() {
            Some(Ok(digests)) if digests.is_empty() => Err(missing("there is no digest in it")),
            Some(Ok(digests)) => {
                let hashed = |digest: &Digest| trailing.algorithms.contains(&digest.algorithm());
                if digests.iter().all(hashed) {
                    Ok(digests)
                } else {
                    Err(missing(
                        "the digest is of another algorithm than was asked for",
                    ))
                }
            }
            Some(Err(why)) => Err(missing(why)),
            None => Err(missing(
                "the digest that was to follow the body did not come",
            )),
        }
    }
}

/// Why taking bytes stopped.
enum Interrupted {
    Displaced,
    Failed(EngineError),
}

impl From<EngineError> for Interrupted {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

fn remaining(at: u64, len: usize) -> ByteRange {
    remaining_to(at, at + len as u64)
}

fn remaining_to(at: u64, end: u64) -> ByteRange {
    ByteRange::new(at, end).expect("there is at least a byte")
}
