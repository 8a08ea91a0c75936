//! Bringing bytes to rest: into a file at their position, or to the store as a part, and then into the catalog.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Writer, remaining, remaining_to};
use crate::engine::buffer::Frame;
use crate::engine::flight::{self, Landing, Saved};
use crate::engine::hasher::Hasher;
use crate::engine::lane::{HashLane, Mark};
use crate::engine::live::{Change, HashOwner};
use crate::engine::{EngineError, Result, settle};
use crate::model::digest::Digests;
use crate::model::upload::HashPoint;
use crate::model::{ByteRange, Cell, Length, Offset, PartNumber, PartReceipt, Plan};
use crate::store::{Shape, StagedFile, StoreError};

/// How long a writer waits for room in the spool before it gives up.
const SPOOL_PATIENCE: Duration = Duration::from_secs(10);
const SPOOL_LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Cells that land in quick succession are committed together.
const COMMIT_TOGETHER: Duration = Duration::from_millis(250);

/// The upload's own hash, while this writer is at its frontier.
pub(super) struct WholeHash {
    lane: HashLane,
    next: u64,
}

/// The cell that bytes go into now.
pub(super) struct OpenCell {
    cell: Cell,
    rest: Rest,
}

impl OpenCell {
    /// Whether all of the cell is in memory.
    pub(super) fn is_full(&self) -> bool {
        matches!(&self.rest, Rest::Memory { len, .. } if *len == self.cell.range.len())
    }

    /// It goes no further than the upload, whose length has just become known.
    pub(super) fn end_with(&mut self, plan: Plan, length: Length) {
        if let Some(cell) = plan.cell(self.cell.number, Some(length)) {
            self.cell = cell;
        }
    }
}

/// Where a cell's bytes come to rest.
enum Rest {
    Placed(Place),
    Memory { frames: Vec<Frame>, len: u64 },
}

/// A file, and the offset in the upload that its first byte has.
#[derive(Clone)]
struct Place {
    file: Arc<dyn StagedFile>,
    start: u64,
}

/// A stretch of the upload that this writer has brought in and not committed.
pub(super) struct Segment {
    range: ByteRange,
    state: SegmentState,
    /// Tells a flight that was not waited for that its bytes count now.
    saved: Option<Saved>,
}

/// What a commit is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Save {
    /// Cells have landed. What is placed stays uncommitted.
    Landed,
    /// What is placed is made durable, too.
    All,
    /// The body has come whole.
    Last,
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

impl Writer {
    /// Takes the upload's hash over if this writer's next byte is the frontier's and nobody else hashes.
    pub(super) fn take_up_hash(&mut self) {
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
            lane: HashLane::start(hasher, self.engine.settings.pace.clone()),
            next,
        });
    }

    pub(super) async fn hash_whole(&mut self, at: u64, frame: &Frame) {
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

    /// The digests of all bytes up to `end`, if it is this writer that has hashed them.
    pub(super) async fn hashed_to(&self, end: u64) -> Option<Digests> {
        let hash = self.whole_hash.as_ref().filter(|hash| hash.next == end)?;
        Some(hash.lane.mark().await.await.ok()?.finish())
    }

    /// Whether bytes at `at` are, or need not be, hashed on their way: only those may leave memory for a part.
    fn may_fly(&self, at: u64) -> bool {
        self.whole_hash.as_ref().is_some_and(|hash| hash.next > at)
            || self.live.state().snapshot.upload.readback
    }

    /// Brings a frame to its cell, or to its cells.
    pub(super) async fn put(&mut self, mut at: u64, mut frame: Frame) -> Result<()> {
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
                Rest::Placed(place) => {
                    let (place, number) = (place.clone(), open.cell.number);
                    self.place(&place, number, start, piece).await?;
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
                max: self.engine.largest_for(&self.live),
            })?;
        if let Shape::InPlace(files) = self.engine.store.shape() {
            let file = files.open(self.live.id).await?;
            return Ok(OpenCell {
                cell,
                rest: Rest::Placed(Place { file, start: 0 }),
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
                && !state.is_open(cell.number, self.engine.clock.now())
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
            rest: Rest::Placed(self.place_in_tail(cell).await?),
        })
    }

    /// What this body may still bring, from `at` on.
    fn asked(&self, at: u64) -> ByteRange {
        remaining_to(at, self.request.end.map_or(u64::MAX, Offset::get))
    }

    async fn place_in_tail(&self, cell: Cell) -> Result<Place> {
        let (engine, id) = (Arc::clone(&self.engine), self.live.id);
        let file = settle::blocking(move || engine.spool.open_cell(id, cell.number)).await?;
        self.live.state().spooled.insert(cell.number);
        Ok(Place {
            file,
            start: cell.range.start(),
        })
    }

    /// Writes a frame to a file, and counts it as a segment.
    async fn place(
        &mut self,
        place: &Place,
        number: PartNumber,
        at: u64,
        frame: Frame,
    ) -> Result<()> {
        if matches!(self.engine.store.shape(), Shape::Parts(_)) {
            self.reserve_tail(number, frame.len()).await?;
        }
        let range = remaining(at, frame.bytes.len());
        self.writes.push(&place.file, at - place.start, frame).await;
        self.add_placed(range);
        Ok(())
    }

    fn add_placed(&mut self, range: ByteRange) {
        match self.segments.back_mut() {
            Some(Segment {
                range: last,
                state: SegmentState::Placed,
                ..
            }) if last.end() == range.start() => {
                *last = remaining_to(last.start(), range.end());
            }
            _ => self.segments.push_back(Segment {
                range,
                state: SegmentState::Placed,
                saved: None,
            }),
        }
    }

    /// Room in the spool. Where there is none, an upload whose bytes wait for their turn to be hashed stops waiting for it:
    /// its cells go to the store unhashed, and its object is read once at the end.
    async fn reserve_tail(&self, number: PartNumber, bytes: u64) -> Result<()> {
        let deadline = Instant::now() + SPOOL_PATIENCE;
        let cell = self.live.plan.cell(number, None);
        let cell_bytes = cell.map_or(u64::MAX, |cell| cell.range.len());
        loop {
            let spool = &self.engine.spool;
            if spool.reserve(self.live.id, number, bytes, cell_bytes) {
                return Ok(());
            }
            self.engine.give_up_hashing(&self.live).await?;
            self.engine.kick_settling(&self.live);
            if Instant::now() > deadline || self.lease.cancel.is_cancelled() {
                return Err(StoreError::Full("the spool is full".into()).into());
            }
            tokio::time::sleep(SPOOL_LOOK_AGAIN).await;
        }
    }

    /// Done with the open cell: what fills it flies, what does not is placed.
    pub(super) async fn close_cell(&mut self) -> Result<()> {
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
            self.place_frames(cell, frames).await.map(drop)
        }
    }

    async fn fly(&mut self, cell: Cell, frames: Vec<Frame>) {
        let mark = match &self.whole_hash {
            Some(hash) if hash.next == cell.range.end() => Some(hash.lane.mark().await),
            _ => None,
        };
        let flight = flight::launch(&self.engine, &self.live, cell, &frames);
        let saved = Some(flight.saved.clone());
        self.flights.push(flight);
        let state = SegmentState::Flying {
            number: cell.number,
            frames,
            mark,
        };
        self.segments.push_back(Segment {
            range: cell.range,
            state,
            saved,
        });
    }

    /// Places what memory has of a cell, and says where the rest of it goes.
    async fn place_frames(&mut self, cell: Cell, frames: Vec<Frame>) -> Result<Place> {
        let place = self.place_in_tail(cell).await?;
        let mut at = cell.range.start();
        for frame in frames {
            let len = frame.len();
            self.place(&place, cell.number, at, frame).await?;
            at += len;
        }
        Ok(place)
    }

    /// Moves what is in memory, and not on its way, to the tail.
    pub(super) async fn spill_memory(&mut self) -> Result<()> {
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
            let place = self.place_frames(cell, frames).await?;
            self.cell = Some(OpenCell {
                cell,
                rest: Rest::Placed(place),
            });
        }
        Ok(())
    }

    /// A cell's flight has ended. Where the store did not take it, it stays here.
    pub(super) async fn landed(&mut self, landing: Landing) -> Result<()> {
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
                    self.commit_rested(Save::Landed).await?;
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
    pub(super) async fn ground(&mut self, index: usize) -> Result<()> {
        let Segment {
            range,
            state: SegmentState::Flying { number, frames, .. },
            ..
        } = &self.segments[index]
        else {
            return Ok(());
        };
        let (range, number, frames) = (*range, *number, frames.clone());
        let place = self.place_in_tail(Cell { number, range }).await?;
        let mut at = range.start();
        for frame in frames {
            let len = frame.len();
            self.reserve_tail(number, len).await?;
            self.writes.push(&place.file, at - place.start, frame).await;
            at += len;
        }
        self.segments[index].state = SegmentState::Placed;
        Ok(())
    }

    /// Commits what can be committed without waiting for flights, in the middle of a body.
    pub(super) async fn save_on_the_way(&mut self) -> Result<()> {
        self.commit_due = Instant::now() + self.engine.settings.commit_interval;
        if !self.provisional {
            if self.request.whole.is_some() {
                // Nobody goes on with it, so memory is as good a place as any; but it is being worked on.
                self.commit_anyway = true;
            } else {
                self.spill_memory().await?;
            }
            self.commit_rested(Save::All).await?;
        }
        self.saves += 1;
        self.lease.saves.send_replace(self.saves);
        Ok(())
    }

    /// Commits the segments that rest, up to the first that still flies.
    pub(super) async fn commit_rested(&mut self, save: Save) -> Result<()> {
        let flush = save != Save::Landed;
        let flushed = if flush {
            self.writes.flush().await
        } else {
            Ok(())
        };
        let placed_counts = flush && flushed.is_ok();
        let mut change = Change::default();
        let mut end = None;
        let mut last_mark = None;
        let mut saves = Vec::new();
        while let Some(segment) = self.segments.front() {
            match segment.state {
                SegmentState::Flying { .. } => break,
                SegmentState::Placed if !placed_counts => break,
                SegmentState::Placed | SegmentState::Landed { .. } => {}
            }
            let Segment {
                range,
                state,
                saved,
            } = self.segments.pop_front().expect("just looked at");
            saves.extend(saved);
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
        if std::mem::take(&mut self.commit_anyway) || !change.received.is_empty() {
            change.alive = self.request.whole.is_some();
            change.assemble = self.request.completes && save == Save::Last;
            let landed: Vec<_> = change.parts.iter().map(|part| part.number).collect();
            let committed = self.live.commit(&self.engine, change).await;
            self.commit_failed |= committed.is_err();
            committed?;
            // While cells land, nothing has to be spilled for the sake of a commit.
            self.commit_due = self.last_commit + self.engine.settings.commit_interval;
            for saved in saves {
                saved.set();
            }
            for number in landed {
                flight::clear_tail(&self.engine, &self.live, number).await;
            }
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
}
