//! Settling: hashing what came ahead of the hash, and moving covered cells from the tail to the store.
//!
//! Runs beside writers and before finishing, and can be run by anybody at any time: the hash has one owner, a cell one call
//! at a time, and each step is committed before the next depends on it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use tokio::time::Instant;

use super::flight::{self, Reserved};
use super::hasher::Hasher;
use super::live::{Change, HashOwner, Live, State};
use super::{EngineError, Inner, Result};
use crate::model::upload::{FailureReason, HashPoint};
use crate::model::{ByteRange, Cell, Offset, Plan, Timestamp};
use crate::store::{self, Shape, StagedFile, StoreError};

/// How much is hashed between two commits of the hash state.
const HASH_STEP_BYTES: u64 = 64 * 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;
/// How many cells of one upload are moved at once.
const MOVES: usize = 4;
/// After a failure, how long until settling is tried again by itself.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long finishing waits for hashing or calls that others are at, and how often it looks.
const STUCK: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

impl Inner {
    /// Settles an upload in the background, if there is something to settle and nobody at it.
    pub(super) fn kick_settling(self: &Arc<Self>, live: &Arc<Live>) {
        {
            let mut state = live.state();
            if state.settling || state.lost || !has_work(live.plan, &state, self.clock.now()) {
                return;
            }
            state.settling = true;
        }
        let (engine, live) = (Arc::clone(self), Arc::clone(live));
        tokio::spawn(async move {
            loop {
                match engine.settle_step(&live).await {
                    Ok(true) => {}
                    Ok(false) => {
                        {
                            let mut state = live.state();
                            if state.lost || !has_work(live.plan, &state, engine.clock.now()) {
                                state.settling = false;
                                break;
                            }
                        }
                        // Somebody else is at it just now.
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                    // It has ended, or is another process's.
                    Err(EngineError::Displaced) => {
                        live.state().settling = false;
                        break;
                    }
                    Err(error) => {
                        live.state().settling = false;
                        tracing::warn!(upload = %live.id, %error, "settling waits for the store");
                        engine.kick_later(&live);
                        break;
                    }
                }
            }
            live.changed.notify_waiters();
        });
    }

    fn kick_later(self: &Arc<Self>, live: &Arc<Live>) {
        let (engine, live) = (Arc::downgrade(self), Arc::downgrade(live));
        tokio::spawn(async move {
            tokio::time::sleep(TRY_AGAIN).await;
            if let (Some(engine), Some(live)) = (engine.upgrade(), live.upgrade()) {
                engine.kick_settling(&live);
            }
        });
    }

    /// Hashes a stretch or moves some cells; `false` if there is nothing to do just now.
    pub(super) async fn settle_step(self: &Arc<Self>, live: &Arc<Live>) -> Result<bool> {
        if live.state().lost {
            return Err(EngineError::Displaced);
        }
        let hashed = self.hash_on(live).await?;
        let moved = self.move_cells(live).await?;
        Ok(hashed || moved)
    }

    async fn hash_on(self: &Arc<Self>, live: &Arc<Live>) -> Result<bool> {
        if unhashed(&live.state()).is_none() {
            return Ok(false);
        }
        let _place = self.hashings.acquire().await;
        let Some(turn) = HashTurn::take(live) else {
            return Ok(false);
        };
        let mut stretch = turn.stretch;
        let (file, file_start): (Arc<dyn StagedFile>, u64) = match self.store.shape() {
            Shape::InPlace(files) => (files.open(live.id).await?, 0),
            Shape::Parts(_) => {
                let cell = live
                    .plan
                    .cell_at(stretch.start(), live.length())
                    .ok_or(StoreError::NotFound)?;
                if live.state().snapshot.parts.contains_key(&cell.number) {
                    // The byte is in a part, and parts of an open multipart upload cannot be read back.
                    self.set_readback(live).await?;
                    return Ok(true);
                }
                stretch = stretch
                    .intersection(cell.range)
                    .ok_or(StoreError::NotFound)?;
                let (engine, id) = (Arc::clone(self), live.id);
                let opened = blocking(move || engine.spool.existing_cell(id, cell.number)).await;
                if live.state().snapshot.parts.contains_key(&cell.number) {
                    // It has just left for the store.
                    return Ok(true);
                }
                (self.or_lost(live, opened).await?, cell.range.start())
            }
        };
        let hasher = turn.hasher.clone();
        let outcome = blocking(move || hash_file(hasher, file.as_ref(), stretch, file_start)).await;
        let hasher = self.or_lost(live, outcome).await?;
        let hash = HashPoint {
            offset: Offset(stretch.end()),
            state: hasher.state(),
        };
        live.commit(
            self,
            Change {
                hash: Some(hash),
                ..Change::default()
            },
        )
        .await?;
        drop(turn);
        Ok(true)
    }

    async fn move_cells(self: &Arc<Self>, live: &Arc<Live>) -> Result<bool> {
        if !matches!(self.store.shape(), Shape::Parts(_)) {
            return Ok(false);
        }
        let now = self.clock.now();
        let cells: Vec<Cell> = movable(live.plan, &live.state(), now).take(MOVES).collect();
        let mut moves: FuturesUnordered<_> = cells
            .into_iter()
            .map(|cell| self.move_cell(live, cell))
            .collect();
        let mut any = false;
        let mut outcome = Ok(());
        while let Some(result) = moves.next().await {
            match result {
                Ok(done) => any |= done,
                // The first one says why; if it ended the upload, the others find it ended.
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome.map(|()| any)
    }

    async fn move_cell(self: &Arc<Self>, live: &Arc<Live>, cell: Cell) -> Result<bool> {
        let _place = self.moves.acquire().await;
        let Some(_reserved) = Reserved::take(live, cell.number) else {
            return Ok(false);
        };
        let held = {
            let state = live.state();
            if state.snapshot.parts.contains_key(&cell.number) {
                return Ok(false);
            }
            state.snapshot.direct.contains_key(&cell.number) && state.is_assembling()
        };
        let payload = flight::tail_payload(self, live, cell).await;
        let payload = self.or_lost(live, payload).await?;
        if held {
            self.put_held(live, cell, payload).await?;
        } else {
            let receipt = flight::put_cell(self, live, cell, payload).await?;
            flight::record_part(self, live, receipt).await?;
        }
        Ok(true)
    }

    /// What was acknowledged and is not there any more ends the upload.
    pub(super) async fn or_lost<T>(&self, live: &Live, result: store::Result<T>) -> Result<T> {
        if matches!(result, Err(StoreError::NotFound)) {
            self.fail(live, FailureReason::StoreLost).await?;
            return Err(EngineError::Failed {
                reason: FailureReason::StoreLost,
            });
        }
        Ok(result?)
    }

    /// Stops waiting for the hash where whole cells wait for it: they go to the store unhashed.
    pub(super) async fn give_up_hashing(&self, live: &Live) -> Result<()> {
        let waits = {
            let state = live.state();
            let hashed = state.snapshot.upload.hash.offset.get();
            !state.snapshot.upload.readback
                && covered(live.plan, &state).any(|cell| {
                    cell.range.end() > hashed && !state.is_open(cell.number, self.clock.now())
                })
        };
        if waits {
            self.set_readback(live).await
        } else {
            Ok(())
        }
    }

    async fn set_readback(&self, live: &Live) -> Result<()> {
        tracing::info!(upload = %live.id, "hashing in order is given up; the object will be read once");
        live.commit(
            self,
            Change {
                readback: true,
                ..Change::default()
            },
        )
        .await
    }

    /// Settles all of an upload whose every byte is there.
    pub(super) async fn settle_all(self: &Arc<Self>, live: &Arc<Live>) -> Result<()> {
        let mut last_step = Instant::now();
        loop {
            let changed = live.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_settled(live, matches!(self.store.shape(), Shape::Parts(_))) {
                return Ok(());
            }
            if self.settle_step(live).await? {
                last_step = Instant::now();
            } else if last_step.elapsed() > STUCK {
                return Err(EngineError::unavailable(
                    "somebody else's call to the store does not return",
                ));
            } else {
                let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
            }
        }
    }
}

/// The settler's turn at the hash; dropping it lets others have it.
struct HashTurn<'a> {
    live: &'a Live,
    hasher: Hasher,
    stretch: ByteRange,
}

impl<'a> HashTurn<'a> {
    fn take(live: &'a Live) -> Option<Self> {
        let mut state = live.state();
        let stretch = unhashed(&state)?;
        let hasher = Hasher::at(
            &state.snapshot.upload.declared.digests,
            &state.snapshot.upload.hash,
        )?;
        state.hash_owner = Some(HashOwner::Settler);
        drop(state);
        Some(Self {
            live,
            hasher,
            stretch,
        })
    }
}

impl Drop for HashTurn<'_> {
    fn drop(&mut self) {
        self.live.state().hash_owner = None;
    }
}

/// What can be hashed now: bytes that are there from the frontier on.
fn unhashed(state: &State) -> Option<ByteRange> {
    let upload = &state.snapshot.upload;
    if upload.readback || state.hash_owner.is_some() {
        return None;
    }
    let from = upload.hash.offset.get();
    let to = state
        .snapshot
        .received
        .contiguous_from(from)
        .min(from.saturating_add(HASH_STEP_BYTES));
    ByteRange::new(from, to)
}

/// Cells of the tail that are there as a whole, and that no call is on its way for.
fn covered(plan: Plan, state: &State) -> impl Iterator<Item = Cell> {
    let snapshot = &state.snapshot;
    state
        .spooled
        .iter()
        .filter(|number| {
            !state.busy.contains(number)
                && !snapshot.parts.contains_key(number)
                && !state.held.contains_key(number)
        })
        .filter_map(move |number| plan.cell(*number, snapshot.upload.length))
        .filter(|cell| snapshot.received.covers(cell.range))
}

/// Covered cells that may leave: they are hashed, or hashing was given up; and no client can put another part in their place,
/// or it is time to put everything together.
fn movable(plan: Plan, state: &State, now: Timestamp) -> impl Iterator<Item = Cell> {
    let upload = &state.snapshot.upload;
    let assembling = state.is_assembling();
    covered(plan, state)
        .filter(|cell| upload.readback || cell.range.end() <= upload.hash.offset.get())
        .filter(move |cell| assembling || !state.is_open(cell.number, now))
}

fn has_work(plan: Plan, state: &State, now: Timestamp) -> bool {
    unhashed(state).is_some() || movable(plan, state, now).next().is_some()
}

fn is_settled(live: &Live, in_parts: bool) -> bool {
    let state = live.state();
    let upload = &state.snapshot.upload;
    let length = upload.length.unwrap_or_default().get();
    let hashed = upload.readback || upload.hash.offset.get() == length;
    let all = ByteRange::new(0, length);
    let is_put = |cell: Cell| {
        state.snapshot.parts.contains_key(&cell.number) || state.held.contains_key(&cell.number)
    };
    let moved = !in_parts
        || state.put_together
        || all.is_none_or(|all| live.plan.cells(all, upload.length).all(is_put));
    hashed && moved
}

fn hash_file(
    mut hasher: Hasher,
    file: &dyn StagedFile,
    stretch: ByteRange,
    file_start: u64,
) -> store::Result<Hasher> {
    let mut buffer = vec![0; READ_BYTES];
    let mut at = stretch.start();
    while at < stretch.end() {
        let wanted = usize::try_from(stretch.end() - at)
            .unwrap_or(READ_BYTES)
            .min(READ_BYTES);
        if file.read_at(at - file_start, &mut buffer[..wanted])? < wanted {
            return Err(StoreError::NotFound);
        }
        hasher.update(&buffer[..wanted]);
        at += wanted as u64;
    }
    Ok(hasher)
}

/// Runs something that blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> store::Result<T> + Send + 'static,
) -> store::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::Unavailable(error.into())))
}
