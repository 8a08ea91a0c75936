//! The byte path: from a request's body to bytes that are durable and remembered.
//!
//! A writer is a task of its own that owns the body. It gathers what comes, hashes it in order beside receiving, and
//! brings it to rest in one of two ways: *placed* at its position in a file (a folder's staged object, or the tail of a
//! bucket), or gathered to a full cell in memory and *flown* to the store as a part. What has come to rest is committed
//! in order as *segments*; when the body ends, breaks, or a newer request displaces it, everything it holds is brought to
//! rest and committed before it answers. `engine/flight.rs` has the way of a cell to the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::buffer::{Frame, Gather, Grant, Holding};
use super::error::BodyError;
use super::flight::{self, Flight, Landing};
use super::hasher::Hasher;
use super::lane::{HashLane, Mark, WriteLane};
use super::lease::Lease;
use super::live::{Change, HashOwner, Live};
use super::{Body, EngineError, Inner, Result, Write, Written};
use crate::model::upload::HashPoint;
use crate::model::{ByteRange, Cell, Offset, PartNumber, PartReceipt};
use crate::store::{Shape, StagedFile, StoreError};

/// How many cells of one body may be on their way to the store.
const MAX_FLIGHTS: usize = 4;
/// How long the end of a body waits for cells on their way before it keeps them in the tail instead.
const FLIGHT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a writer waits for room in the spool before it gives up.
const SPOOL_PATIENCE: Duration = Duration::from_secs(10);
/// Cells that land in quick succession are committed together.
const COMMIT_TOGETHER: Duration = Duration::from_millis(250);

/// A writer with its lease, before it has read anything.
pub(super) struct Writer {
    engine: Arc<Inner>,
    live: Arc<Live>,
    lease: Lease,
    request: Write,
    /// The offset of the body's next byte.
    at: u64,
    /// The body has to match its digest before any of it counts.
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
}

/// The upload's own hash, while this writer is at its frontier.
struct WholeHash {
    lane: HashLane,
    next: u64,
}

/// The cell that bytes go into now.
struct OpenCell {
    cell: Cell,
    rest: Rest,
}

/// Where a cell's bytes come to rest.
enum Rest {
    Placed {
        file: Arc<dyn StagedFile>,
        file_start: u64,
    },
    Memory {
        frames: Vec<Frame>,
        len: u64,
    },
}

/// A stretch of the upload that this writer has brought in and not committed.
struct Segment {
    range: ByteRange,
    state: SegmentState,
}

enum SegmentState {
    /// In a file; durable after the next flush.
    Placed,
    /// On its way to the store; the frames are kept until it is there.
    Flying {
        number: PartNumber,
        frames: Vec<Frame>,
        mark: Option<Mark>,
    },
    /// In the store.
    Landed {
        receipt: PartReceipt,
        mark: Option<Mark>,
    },
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
        let provisional = !request.digests.is_empty();
        let now = Instant::now();
        Self {
            at: request.start.get(),
            provisional,
            body_hash: provisional.then(|| HashLane::start(Hasher::of_body(&request.digests))),
            whole_hash: None,
            writes: WriteLane::start(engine.syncs()),
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
            engine,
            live,
            lease,
            request,
        }
    }

    /// Where writers run.
    pub(super) fn tasks(&self) -> TaskTracker {
        self.engine.tasks.clone()
    }

    /// Takes the body to its end and answers for what came of it.
    pub(super) async fn run(mut self: Box<Self>, mut body: Body) -> Result<Written> {
        self.take_up_hash();
        let end = self.pump(&mut body).await;
        // From here on the rest of the body, if there is any, is whoever's who gave it.
        drop(body);
        let outcome = self.finish(end).await;
        let live = Arc::clone(&self.live);
        let engine = Arc::clone(&self.engine);
        drop(self);
        engine.kick_settling(&live);
        outcome
    }

    async fn pump(&mut self, body: &mut Body) -> End {
        let mut patience = self.engine.settings.body_stall;
        loop {
            let reading_since = Instant::now();
            let full = self.flights.len() >= MAX_FLIGHTS;
            let frame = tokio::select! {
                biased;
                () = self.lease.cancel.cancelled() => return End::Displaced,
                () = self.engine.stopping.cancelled() => return End::Broken(BodyError::ShuttingDown),
                Some(landing) = self.flights.next() => {
                    if let Err(error) = self.landed(landing).await {
                        return End::Failed(error);
                    }
                    None
                }
                () = self.lease.nudge.notified() => {
                    if let Err(error) = self.save_on_the_way().await {
                        return End::Failed(error);
                    }
                    None
                }
                () = self.spill.notified() => {
                    if let Err(error) = self.spill_memory().await {
                        return End::Failed(error);
                    }
                    None
                }
                () = tokio::time::sleep_until(self.commit_due) => {
                    if let Err(error) = self.save_on_the_way().await {
                        return End::Failed(error);
                    }
                    None
                }
                frame = tokio::time::timeout(patience, body.next()), if !full => Some(frame),
            };
            match frame {
                None => {
                    patience = patience.saturating_sub(if full {
                        Duration::ZERO
                    } else {
                        reading_since.elapsed()
                    })
                }
                Some(Err(_)) => {
                    return End::Broken(BodyError::Stalled(self.engine.settings.body_stall));
                }
                Some(Ok(None)) => return self.clean_end(),
                Some(Ok(Some(Err(error)))) => return End::Broken(error),
                Some(Ok(Some(Ok(bytes)))) => {
                    patience = self.engine.settings.body_stall;
                    self.lease.last_byte.now();
                    match self.take(bytes).await {
                        Ok(true) => {}
                        Ok(false) => return End::Long,
                        Err(Interrupted::Displaced) => return End::Displaced,
                        Err(Interrupted::Failed(error)) => return End::Failed(error),
                    }
                }
            }
        }
    }

    fn clean_end(&self) -> End {
        match self.request.end {
            Some(end) if self.at < end.get() => End::Short,
            _ => End::Whole,
        }
    }

    /// Takes the next bytes of the body; `false` if there are more than its range has.
    async fn take(&mut self, mut bytes: Bytes) -> std::result::Result<bool, Interrupted> {
        metrics::counter!("jumar_received_bytes_total", "protocol" => self.live.protocol().name())
            .increment(bytes.len() as u64);
        let limit = self
            .request
            .end
            .map_or_else(|| self.engine.open_end(&self.live), Offset::get);
        let room = limit - self.at;
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

    /// Bytes that are there already: read past, but hashed where the body as a whole is.
    async fn skip(&mut self, bytes: Bytes) -> std::result::Result<(), Interrupted> {
        self.bring_out_gathered().await?;
        let len = bytes.len() as u64;
        if let Some(lane) = &self.body_hash {
            let budget = self.gather.budget().clone();
            let grant = budget.take(bytes.len()).await;
            let mut frames = Vec::new();
            // A gatherer of its own: these bytes are hashed and forgotten.
            let mut gather = Gather::new(budget);
            gather.push(bytes, Some(grant), &mut frames);
            gather.flush(&mut frames);
            for frame in frames {
                lane.push(frame).await;
            }
        }
        self.at += len;
        self.gathered_from = self.at;
        Ok(())
    }

    async fn keep(&mut self, bytes: Bytes) -> std::result::Result<(), Interrupted> {
        let grant = match self.gather.needs(&bytes) {
            Some(needed) => Some(self.take_memory(needed).await?),
            None => None,
        };
        self.at += bytes.len() as u64;
        self.gather.push(bytes, grant, &mut self.ready);
        if self.holding.is_none() {
            self.holding = Some(self.engine.budget.hold(&self.spill));
        }
        self.place_ready().await?;
        Ok(())
    }

    /// Memory from the budget. While there is none, cells land, and this writer may be the one that has to spill.
    async fn take_memory(&mut self, bytes: usize) -> std::result::Result<Arc<Grant>, Interrupted> {
        let budget = self.engine.budget.clone();
        let grant = budget.take(bytes);
        tokio::pin!(grant);
        loop {
            tokio::select! {
                biased;
                () = self.lease.cancel.cancelled() => return Err(Interrupted::Displaced),
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

    /// Takes the upload's hash over if this writer's next byte is the frontier's and nobody else hashes.
    fn take_up_hash(&mut self) {
        let next = self.at;
        let mut state = self.live.state();
        let upload = &state.snapshot.upload;
        let at_the_frontier =
            upload.hash.offset.get() == next && self.lease.want.covers(remaining(next, 1));
        if self.whole_hash.is_some()
            || upload.readback
            || state.hash_owner.is_some()
            || !at_the_frontier
        {
            return;
        }
        let Some(hasher) = Hasher::at(&upload.declared.digests, &upload.hash) else {
            return;
        };
        state.hash_owner = Some(HashOwner::Writer(self.lease.number));
        drop(state);
        self.whole_hash = Some(WholeHash {
            lane: HashLane::start(hasher),
            next,
        });
    }

    async fn hash_whole(&mut self, at: u64, frame: &Frame) {
        match &mut self.whole_hash {
            Some(hash) if hash.next == at => {
                hash.lane.push(frame.clone()).await;
                hash.next += frame.len();
            }
            // There are bytes in between that somebody else brought: whoever settles the upload hashes on from there, from
            // what is stored. What this writer hashed so far is committed with its next segments.
            _ => {}
        }
    }

    /// Whether bytes at `at` are, or need not be, hashed on their way: only those may leave memory for a part.
    fn may_fly(&self, at: u64) -> bool {
        self.whole_hash.as_ref().is_some_and(|hash| hash.next > at)
            || self.live.state().snapshot.upload.readback
    }

    /// Brings a frame to its cell, or to its cells.
    async fn put(&mut self, mut at: u64, mut frame: Frame) -> Result<()> {
        while frame.len() > 0 {
            if self
                .cell
                .as_ref()
                .is_none_or(|open| open.cell.range.end() <= at || open.cell.range.start() > at)
            {
                self.close_cell().await?;
                self.cell = Some(self.open_cell(at).await?);
            }
            let open = self.cell.as_mut().expect("just opened");
            let room = open.cell.range.end() - at;
            let piece = if frame.len() > room {
                frame.split_to(usize::try_from(room).expect("less than the frame"))
            } else {
                let len = frame.bytes.len();
                frame.split_to(len)
            };
            let (start, end) = (at, at + piece.len());
            at = end;
            match &mut open.rest {
                Rest::Memory { frames, len } => {
                    *len += piece.len();
                    frames.push(piece);
                    if end == open.cell.range.end() && !self.provisional {
                        self.close_cell().await?;
                    }
                }
                Rest::Placed { file, file_start } => {
                    let (file, file_start, number) =
                        (Arc::clone(file), *file_start, open.cell.number);
                    self.place(&file, file_start, number, start, piece).await?;
                }
            }
        }
        Ok(())
    }

    async fn open_cell(&self, at: u64) -> Result<OpenCell> {
        let length = self.live.length();
        let cell = self
            .live
            .plan
            .cell_at(at, length)
            .ok_or_else(|| EngineError::TooLarge {
                max: self.engine.largest(self.live.plan),
            })?;
        if let Shape::InPlace(files) = self.engine.store.shape() {
            let file = files.open(self.live.id).await?;
            return Ok(OpenCell {
                cell,
                rest: Rest::Placed {
                    file,
                    file_start: 0,
                },
            });
        }
        let small_enough = cell.range.len() <= self.engine.budget.largest_cell();
        let whole = cell.range.start() == at && {
            let state = self.live.state();
            self.lease.want.covers(
                cell.range
                    .intersection(self.asked(at))
                    .unwrap_or(cell.range),
            ) && state
                .snapshot
                .received
                .overlapping(cell.range)
                .next()
                .is_none()
                && !state.busy.contains(&cell.number)
        };
        if small_enough && whole && self.may_fly(at) && !self.engine.store_rests() {
            return Ok(OpenCell {
                cell,
                rest: Rest::Memory {
                    frames: Vec::new(),
                    len: 0,
                },
            });
        }
        Ok(OpenCell {
            cell,
            rest: self.placed_in_tail(cell).await?,
        })
    }

    /// What this body may still bring, from `at` on.
    fn asked(&self, at: u64) -> ByteRange {
        remaining_to(at, self.request.end.map_or(u64::MAX, Offset::get))
    }

    async fn placed_in_tail(&self, cell: Cell) -> Result<Rest> {
        let (engine, id) = (Arc::clone(&self.engine), self.live.id);
        let file = tokio::task::spawn_blocking(move || engine.spool.open_cell(id, cell.number))
            .await
            .map_err(|error| EngineError::Internal(error.into()))??;
        self.live.state().spooled.insert(cell.number);
        Ok(Rest::Placed {
            file,
            file_start: cell.range.start(),
        })
    }

    /// Writes a frame to a file, and counts it as a segment.
    async fn place(
        &mut self,
        file: &Arc<dyn StagedFile>,
        file_start: u64,
        number: PartNumber,
        start: u64,
        frame: Frame,
    ) -> Result<()> {
        if matches!(self.engine.store.shape(), Shape::Parts(_)) {
            self.reserve_tail(number, frame.len()).await?;
        }
        let range = remaining(start, frame.bytes.len());
        self.writes.push(file, start - file_start, frame).await;
        self.add_placed(range);
        Ok(())
    }

    fn add_placed(&mut self, range: ByteRange) {
        match self.segments.back_mut() {
            Some(Segment {
                range: last,
                state: SegmentState::Placed,
            }) if last.end() == range.start() => {
                *last = remaining_to(last.start(), range.end());
            }
            _ => self.segments.push_back(Segment {
                range,
                state: SegmentState::Placed,
            }),
        }
    }

    /// Room in the spool. Where there is none, an upload whose bytes wait for their turn to be hashed stops waiting for it:
    /// its cells go to the store unhashed, and its object is read once at the end.
    async fn reserve_tail(&self, number: PartNumber, bytes: u64) -> Result<()> {
        let deadline = Instant::now() + SPOOL_PATIENCE;
        loop {
            if self.engine.spool.reserve(self.live.id, number, bytes) {
                return Ok(());
            }
            self.engine.give_up_hashing(&self.live).await?;
            self.engine.kick_settling(&self.live);
            if Instant::now() > deadline || self.lease.cancel.is_cancelled() {
                return Err(StoreError::Full("the spool is full".into()).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Done with the open cell: what fills it flies, what does not is placed.
    async fn close_cell(&mut self) -> Result<()> {
        let Some(OpenCell {
            cell,
            rest: Rest::Memory { frames, len },
        }) = self.cell.take()
        else {
            return Ok(());
        };
        if len == 0 {
            return Ok(());
        }
        if len == cell.range.len() && !self.provisional {
            self.fly(cell, frames).await;
            Ok(())
        } else {
            self.place_frames(cell, frames, cell.range.start()).await
        }
    }

    async fn fly(&mut self, cell: Cell, frames: Vec<Frame>) {
        let mark = match &self.whole_hash {
            Some(hash) if hash.next == cell.range.end() => Some(hash.lane.mark().await),
            _ => None,
        };
        self.flights
            .push(flight::launch(&self.engine, &self.live, cell, &frames));
        let state = SegmentState::Flying {
            number: cell.number,
            frames,
            mark,
        };
        self.segments.push_back(Segment {
            range: cell.range,
            state,
        });
    }

    async fn place_frames(&mut self, cell: Cell, frames: Vec<Frame>, mut at: u64) -> Result<()> {
        let Rest::Placed { file, file_start } = self.placed_in_tail(cell).await? else {
            return Ok(());
        };
        for frame in frames {
            let len = frame.len();
            self.place(&file, file_start, cell.number, at, frame)
                .await?;
            at += len;
        }
        Ok(())
    }

    /// Moves what is in memory, and not on its way, to the tail.
    async fn spill_memory(&mut self) -> Result<()> {
        self.bring_out_gathered().await?;
        self.holding = None;
        if let Some(OpenCell {
            cell,
            rest: Rest::Memory { frames, len },
        }) = self
            .cell
            .take_if(|open| matches!(open.rest, Rest::Memory { .. }))
            && len > 0
        {
            self.place_frames(cell, frames, cell.range.start()).await?;
            self.cell = Some(OpenCell {
                cell,
                rest: self.placed_in_tail(cell).await?,
            });
        }
        Ok(())
    }

    /// A cell's flight has ended. Where the store did not take it, it stays here.
    async fn landed(&mut self, landing: Landing) -> Result<()> {
        let Some(index) = self.segments.iter().position(
            |segment| matches!(&segment.state, SegmentState::Flying { number, .. } if *number == landing.cell.number),
        ) else {
            return Ok(());
        };
        match landing.result {
            Ok(receipt) => {
                let segment = &mut self.segments[index];
                let SegmentState::Flying { mark, .. } =
                    std::mem::replace(&mut segment.state, SegmentState::Placed)
                else {
                    return Ok(());
                };
                segment.state = SegmentState::Landed { receipt, mark };
                if self.last_commit.elapsed() >= COMMIT_TOGETHER {
                    self.commit_rested(false).await?;
                }
                Ok(())
            }
            Err(error) => {
                self.engine.rest_the_store();
                tracing::warn!(upload = %self.live.id, part = %landing.cell.number, %error, "the store did not take a part; it stays in the tail");
                self.ground(index).await
            }
        }
    }

    /// Brings the bytes of a flying segment to rest in the tail. Its flight goes on, and if it lands, so much the better.
    async fn ground(&mut self, index: usize) -> Result<()> {
        let Segment {
            range,
            state: SegmentState::Flying { number, frames, .. },
        } = &self.segments[index]
        else {
            return Ok(());
        };
        let (range, number, frames) = (*range, *number, frames.clone());
        let Rest::Placed { file, file_start } = self.placed_in_tail(Cell { number, range }).await?
        else {
            return Ok(());
        };
        let mut at = range.start();
        for frame in frames {
            let len = frame.len();
            self.reserve_tail(number, len).await?;
            self.writes.push(&file, at - file_start, frame).await;
            at += len;
        }
        self.segments[index].state = SegmentState::Placed;
        Ok(())
    }

    /// Commits what can be committed without waiting for flights, in the middle of a body.
    async fn save_on_the_way(&mut self) -> Result<()> {
        self.commit_due = Instant::now() + self.engine.settings.commit_interval;
        if !self.provisional {
            self.spill_memory().await?;
            self.commit_rested(true).await?;
        }
        self.saves += 1;
        self.lease.saves.send_replace(self.saves);
        Ok(())
    }

    /// Commits the segments that rest, up to the first that still flies. With `flush`, what is placed is made durable first.
    async fn commit_rested(&mut self, flush: bool) -> Result<()> {
        let flushed = if flush {
            self.writes.flush().await
        } else {
            Ok(())
        };
        let placed_counts = flush && flushed.is_ok();
        let mut change = Change::default();
        let mut end = None;
        let mut last_mark = None;
        while let Some(segment) = self.segments.front() {
            match segment.state {
                SegmentState::Flying { .. } => break,
                SegmentState::Placed if !placed_counts => break,
                SegmentState::Placed | SegmentState::Landed { .. } => {}
            }
            let Segment { range, state } = self.segments.pop_front().expect("just looked at");
            change.received.push(range);
            end = Some(range.end());
            if let SegmentState::Landed { receipt, mark } = state {
                change.parts.push(receipt);
                last_mark = mark.map(|mark| (range.end(), mark)).or(last_mark);
            }
        }
        if let Some(hash) = &self.whole_hash
            && end.is_some_and(|end| end >= hash.next)
        {
            last_mark = Some((hash.next, hash.lane.mark().await));
        }
        if let Some((offset, mark)) = last_mark
            && let Ok(hasher) = mark.await
        {
            change.hash = Some(HashPoint {
                offset: Offset(offset),
                state: hasher.state(),
            });
        }
        self.last_commit = Instant::now();
        if !change.received.is_empty() {
            self.live.commit(&self.engine, change).await?;
        }
        flushed?;
        self.hand_over_hash();
        if self.whole_hash.is_none()
            && self.segments.is_empty()
            && self.gather.gathered() == 0
            && self.ready.is_empty()
        {
            self.take_up_hash();
            self.engine.kick_settling(&self.live);
        }
        Ok(())
    }

    /// Gives the hash back when this writer has gone past bytes that it did not bring.
    fn hand_over_hash(&mut self) {
        if self.whole_hash.as_ref().is_some_and(|hash| {
            self.gathered_from > hash.next
                && self.live.state().snapshot.upload.hash.offset.get() >= hash.next
        }) {
            self.whole_hash = None;
            let mut state = self.live.state();
            if state.hash_owner == Some(HashOwner::Writer(self.lease.number)) {
                state.hash_owner = None;
            }
        }
    }

    /// Brings everything to rest, commits it, and says what came of the body.
    async fn finish(&mut self, end: End) -> Result<Written> {
        let rested = self.come_to_rest(&end).await;
        let verified = match (&rested, self.provisional) {
            (Ok(()), true) if matches!(end, End::Whole) => self.verify_body().await,
            _ => Ok(()),
        };
        let counts = verified.is_ok() && (!self.provisional || matches!(end, End::Whole));
        let saved = if counts {
            self.land_and_commit(&end).await
        } else {
            Ok(())
        };
        if !counts {
            self.segments.clear();
        }
        let written = Written {
            offset: self.live.offset(),
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
                detail: format!(
                    "the body ended at byte {}, before its range did; what came is kept",
                    self.at
                ),
                length,
                expected_offset: Some(written.offset),
            }),
            End::Long => Err(EngineError::RangeMismatch {
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
        self.bring_out_gathered().await?;
        self.holding = None;
        let full = self.cell.as_ref().is_some_and(|open| match &open.rest {
            Rest::Memory { len, .. } => *len == open.cell.range.len(),
            Rest::Placed { .. } => false,
        });
        // A body that has yet to be verified may have filled a cell exactly; it flies when the digest is known to match.
        if self.provisional && full && matches!(end, End::Whole) {
            return Ok(());
        }
        self.close_cell().await
    }

    async fn verify_body(&mut self) -> Result<()> {
        let Some(lane) = &self.body_hash else {
            return Ok(());
        };
        let gone =
            |error: tokio::sync::oneshot::error::RecvError| EngineError::Internal(error.into());
        let digests = lane.mark().await.await.map_err(gone)?.finish();
        if let Some(wrong) = self.request.digests.first_conflict(&digests) {
            return Err(EngineError::DigestMismatch {
                algorithm: wrong.algorithm(),
            });
        }
        self.provisional = false;
        self.close_cell().await
    }

    async fn land_and_commit(&mut self, end: &End) -> Result<()> {
        let hurry = matches!(end, End::Displaced | End::Broken(BodyError::ShuttingDown));
        let deadline = Instant::now()
            + if hurry {
                Duration::ZERO
            } else {
                FLIGHT_PATIENCE
            };
        loop {
            let landing = tokio::select! {
                biased;
                Some(landing) = self.flights.next() => landing,
                () = self.lease.cancel.cancelled(), if !hurry => break,
                () = self.engine.stopping.cancelled(), if !hurry => break,
                () = tokio::time::sleep_until(deadline), if !self.flights.is_empty() => break,
                else => break,
            };
            self.landed(landing).await?;
        }
        let mut grounded = Ok(());
        for index in 0..self.segments.len() {
            if grounded.is_ok() {
                grounded = self.ground(index).await;
            }
        }
        self.commit_rested(true).await.and(grounded)
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
