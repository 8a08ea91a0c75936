//! Uploads that this process works on: what the catalog knows of them, and who is at work.
//!
//! An upload comes into memory with the first request that touches it, under an epoch of its own, and leaves some time
//! after the last. The committed facts here are only ever changed after the catalog has them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::complete::HOLD;
use super::hasher::Hasher;
use super::lease::WriterEntry;
use super::{EngineError, Inner, Result};
use crate::catalog::{Assemble, CatalogError, Commit};
use crate::model::upload::{Epoch, HashPoint, Protocol, Role, Snapshot, StoreUploadId};
use crate::model::{
    ByteRange, Caller, KeyHash, Length, Offset, PartNumber, PartReceipt, Plan, StoreKey, Timestamp,
    Upload, UploadId, UploadKey, UploadOwner, UploadState,
};

/// How long an upload that nobody touches stays in memory, and how long where there are many.
const IDLE: Duration = Duration::from_mins(1);
const IDLE_AMONG_MANY: Duration = Duration::from_secs(1);
/// So many uploads in memory are many.
const MANY: usize = 4096;

/// An upload that this process owns.
pub(super) struct Live {
    pub(super) id: UploadId,
    pub(super) plan: Plan,
    pub(super) created_at: Timestamp,
    pub(super) max_size: Option<Length>,
    owner: UploadOwner,
    key_hash: KeyHash,
    state: Mutex<State>,
    /// Held while the multipart upload is begun, so that there is one.
    pub(super) beginning: tokio::sync::Mutex<()>,
    /// Held while the upload turns to assembling, so that it happens once.
    pub(super) turning: tokio::sync::Mutex<()>,
    /// A writer left, a cell came free, or the upload was lost.
    pub(super) changed: Notify,
    /// How far the upload reaches durably.
    pub(super) progress: watch::Sender<Offset>,
}

/// What changes while an upload is worked on.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct State {
    /// What the catalog has, but for a length that is committed with the next bytes.
    pub(super) snapshot: Snapshot,
    pub(super) writers: Vec<WriterEntry>,
    pub(super) next_writer: u64,
    /// Who hashes on from the committed hash point.
    pub(super) hash_owner: Option<HashOwner>,
    /// Cells with a call to the store on its way. Each has one at a time.
    pub(super) busy: BTreeSet<PartNumber>,
    /// Cells with bytes in the tail.
    pub(super) spooled: BTreeSet<PartNumber>,
    /// Cells of the tail that were put as parts while their client may still replace them by a URL. The tail keeps their bytes.
    pub(super) held: BTreeMap<PartNumber, PartReceipt>,
    /// An earlier try put the object together and did not live to tell.
    pub(super) put_together: bool,
    /// The store has parts under other tags than it had answered with, and they were taken for what was sent.
    pub(super) retagged: bool,
    /// The multipart upload that a part has landed in, whether that is committed or not.
    pub(super) landed_in: Option<StoreUploadId>,
    /// Requests up to this number were told to go; they do not get in any more.
    pub(super) displaced_to: u64,
    pub(super) displaced_at: VecDeque<Instant>,
    pub(super) settling: bool,
    /// The key that it is brought together under is claimed for it.
    pub(super) key_claimed: bool,
    pub(super) finishing: Option<watch::Receiver<Option<super::complete::Finished>>>,
    /// Since when the store says that what the upload is made of is not there.
    pub(super) missing_since: Option<Timestamp>,
    /// Parts that were made of others' objects. A process that takes the upload over makes them again.
    pub(super) composed: BTreeMap<PartNumber, PartReceipt>,
    /// The catalog knows that something is put in one piece under the store key.
    pub(super) object_announced: bool,
    /// How often in a row its client got it wrong.
    pub(super) failures: u32,
    /// Another process took it over, or it has ended.
    pub(super) lost: bool,
    last_used: Instant,
}

/// Who hashes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashOwner {
    Writer(u64),
    Settler,
}

/// What a commit adds. See [`Commit`].
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Change {
    pub(super) received: Vec<ByteRange>,
    pub(super) parts: Vec<PartReceipt>,
    pub(super) hash: Option<HashPoint>,
    pub(super) readback: bool,
    /// Its parts were put by the client.
    pub(super) direct: bool,
    /// The length, where it is not known before.
    pub(super) length: Option<Length>,
    /// The expiry moves on without bytes, too: they are on their way.
    pub(super) alive: bool,
    /// The upload is to be brought together, if all of it is there then.
    pub(super) assemble: bool,
}

impl Live {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        let upload = &snapshot.upload;
        let spooled = match upload.plan {
            Plan::OneCell => BTreeSet::new(),
            plan => snapshot
                .received
                .iter()
                .flat_map(|range| plan.cells(range, upload.length))
                .map(|cell| cell.number)
                .filter(|number| !snapshot.parts.contains_key(number))
                .collect(),
        };
        Self {
            id: upload.id,
            plan: upload.plan,
            created_at: upload.created_at,
            max_size: upload.max_size,
            owner: upload.owner.clone(),
            key_hash: upload.key_hash,
            beginning: tokio::sync::Mutex::default(),
            turning: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            progress: watch::Sender::new(snapshot.received.contiguous()),
            state: Mutex::new(State {
                snapshot,
                writers: Vec::new(),
                next_writer: 0,
                hash_owner: None,
                busy: BTreeSet::new(),
                spooled,
                held: BTreeMap::new(),
                put_together: false,
                retagged: false,
                landed_in: None,
                displaced_to: 0,
                displaced_at: VecDeque::new(),
                settling: false,
                key_claimed: false,
                finishing: None,
                missing_since: None,
                composed: BTreeMap::new(),
                object_announced: false,
                failures: 0,
                lost: false,
                last_used: Instant::now(),
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.state().snapshot.upload.protocol
    }

    pub(super) fn role(&self) -> Role {
        self.state().snapshot.upload.role
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.state().snapshot.upload.epoch
    }

    pub(super) fn length(&self) -> Option<Length> {
        self.state().snapshot.upload.length
    }

    pub(super) fn offset(&self) -> Offset {
        self.state().snapshot.received.contiguous()
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        self.state().snapshot.upload.expires_at
    }

    /// The key that its bytes are brought together under.
    pub(super) fn store_key(&self) -> StoreKey {
        self.state().snapshot.upload.store_key.clone()
    }

    pub(super) fn store_upload_id(&self) -> Option<StoreUploadId> {
        self.state().snapshot.upload.store_upload_id.clone()
    }

    /// Remembers something durably, and then here.
    pub(super) async fn commit(&self, engine: &Inner, change: Change) -> Result<()> {
        let now = engine.clock.now();
        // Whoever turns it already goes on from what is committed then.
        let turning = change
            .assemble
            .then(|| self.turning.try_lock().ok())
            .flatten();
        let until = now.after(HOLD);
        let slides = change.alive || !change.received.is_empty();
        let (commit, expires_at) = {
            let state = self.state();
            let upload = &state.snapshot.upload;
            // Others may have very many ranges, and it makes no difference to them.
            let full = upload.protocol == Protocol::Objects
                && is_full_with(&state.snapshot, &change.received);
            let expires_at = engine.expiry(upload.protocol, full, self.created_at, now);
            let numbers = change.parts.iter().map(|part| part.number);
            let closed = numbers.filter(|number| {
                // A receipt beside it would say that the part came by the URL.
                !change.direct && state.snapshot.direct.contains_key(number)
            });
            let commit = Commit {
                id: self.id,
                epoch: upload.epoch,
                received: change.received.clone(),
                parts: change.parts.clone(),
                closed: closed.collect(),
                hash: change.hash.clone(),
                length: upload.length.or(change.length),
                readback: change.readback,
                boot: engine.boot.clone(),
                now,
                expires_at: slides.then_some(expires_at),
                assemble: turning.is_some().then(|| Assemble::of(upload, until)),
            };
            (commit, expires_at)
        };
        let closed = commit.closed.clone();
        let assembled = engine
            .catalog
            .commit(commit)
            .await
            .map_err(|error| self.catalog_failed(error))?;
        let mut state = self.state();
        state.key_claimed |= assembled.claimed;
        let Snapshot {
            upload,
            received,
            parts,
            direct,
        } = &mut state.snapshot;
        if slides {
            upload.expires_at = expires_at;
        }
        if !change.received.is_empty() && upload.state == UploadState::Pending {
            upload.state = UploadState::Uploading;
        }
        upload.length = upload.length.or(change.length);
        for range in change.received {
            received.insert(range);
        }
        self.progress.send_if_modified(|reach| {
            let news = *reach != received.contiguous();
            *reach = received.contiguous();
            news
        });
        for number in closed {
            direct.remove(&number);
        }
        parts.extend(change.parts.into_iter().map(|part| (part.number, part)));
        upload.readback |= change.readback;
        // More algorithms may have been asked for while this hash was on its way: it is of no use then.
        if let Some(hash) = change.hash
            && Hasher::at(&upload.declared.digests, &hash).is_some()
        {
            upload.hash = hash;
        }
        if let Some(boot) = &engine.boot {
            upload.boot.clone_from(boot);
        }
        if assembled.begun {
            upload.state = UploadState::Assembling { attempts: 0, until };
            drop(state);
            engine.places.notify_waiters();
        }
        Ok(())
    }

    /// What an error of the catalog means for an upload that is worked on: lost, if another has it.
    pub(super) fn catalog_failed(&self, error: CatalogError) -> EngineError {
        if matches!(error, CatalogError::Stale | CatalogError::NotFound) {
            self.lose();
        }
        error.into()
    }

    /// Ends all work on it here: another process has it, or it has ended.
    pub(super) fn lose(&self) {
        let mut state = self.state();
        state.lost = true;
        for writer in &state.writers {
            writer.cancel.cancel();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Tells every writer to commit what it has, and waits for them, but not longer than `within`.
    pub(super) async fn save_writers(&self, within: Duration) {
        let waiting: Vec<_> = {
            let state = self.state();
            state
                .writers
                .iter()
                .map(|writer| {
                    let mut saves = writer.saves.clone();
                    saves.borrow_and_update();
                    writer.nudge.notify_one();
                    saves
                })
                .collect()
        };
        let all = async {
            for mut saves in waiting {
                // An error means that the writer is gone, and has saved what it had.
                let _ = saves.changed().await;
            }
        };
        let _ = tokio::time::timeout(within, all).await;
    }

    /// Waits until nobody settles it. One that is lost is settled no further.
    pub(super) async fn unsettled(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.state().settling {
                return;
            }
            changed.await;
        }
    }

    /// As for any upload, but not while somebody writes to it: the next commit moves the expiry.
    pub(super) fn check_expiry(&self, now: Timestamp) -> Result<()> {
        let state = self.state();
        if state.writers.is_empty() {
            check_expiry(&state.snapshot.upload, now)
        } else {
            Ok(())
        }
    }

    pub(super) fn touch(&self) {
        self.state().last_used = Instant::now();
    }

    fn is_idle(&self, after: Duration) -> bool {
        let state = self.state();
        let at_work = !state.writers.is_empty()
            || state.settling
            || state.finishing.is_some()
            // Else the store could never stay with it for long enough.
            || (state.missing_since.is_some()
                && matches!(
                    state.snapshot.upload.state,
                    UploadState::Assembling { .. }
                ))
            || !state.busy.is_empty();
        state.lost || (!at_work && state.last_used.elapsed() > after)
    }
}

/// An upload that a request found.
pub(super) enum Opened {
    /// Bytes may still come, or it is being finished.
    Live(Arc<Live>),
    /// A final one whose parts are not complete. Nothing is done here; the catalog turns it to assembling with the last part.
    Waiting(Box<Upload>),
    /// Nothing will change any more.
    Ended(Box<Upload>),
}

/// The uploads in memory.
#[derive(Default)]
pub(super) struct Registry {
    slots: Mutex<HashMap<UploadId, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    live: tokio::sync::Mutex<Option<Arc<Live>>>,
}

impl Registry {
    fn slots(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upload, if it is in memory and still ours.
    pub(super) async fn get(&self, id: UploadId) -> Option<Arc<Live>> {
        let slot = self.slots().get(&id).cloned()?;
        let live = slot.live.lock().await.clone()?;
        let lost = live.state().lost;
        (!lost).then_some(live)
    }

    /// Puts an upload in that this process owns already, and returns the one that is there now: one under an older epoch is
    /// lost, and one under a newer epoch, that was opened in the meantime, stays.
    pub(super) async fn insert(&self, snapshot: Snapshot) -> Arc<Live> {
        let live = Arc::new(Live::new(snapshot));
        let (slot, many) = {
            let mut slots = self.slots();
            let slot = Arc::clone(slots.entry(live.id).or_default());
            (
                slot,
                slots.len() > MANY && slots.len().is_multiple_of(MANY / 4),
            )
        };
        if many {
            self.sweep();
        }
        let mut place = slot.live.lock().await;
        match place.take() {
            Some(newer) if newer.epoch() > live.epoch() && !newer.state().lost => {
                *place = Some(Arc::clone(&newer));
                return newer;
            }
            Some(older) => older.lose(),
            None => {}
        }
        *place = Some(Arc::clone(&live));
        live
    }

    /// Forgets an upload that has ended.
    pub(super) fn remove(&self, live: &Live) {
        live.lose();
        let mut slots = self.slots();
        let is_this = |slot: &Arc<Slot>| {
            slot.live.try_lock().is_ok_and(|place| {
                place
                    .as_deref()
                    .is_none_or(|other| std::ptr::eq(other, live))
            })
        };
        if slots.get(&live.id).is_some_and(is_this) {
            slots.remove(&live.id);
        }
    }

    /// Forgets what nobody has touched for a while.
    pub(super) fn sweep(&self) {
        let mut slots = self.slots();
        let idle = if slots.len() > MANY {
            IDLE_AMONG_MANY
        } else {
            IDLE
        };
        slots.retain(|_, slot| {
            let Ok(mut live) = slot.live.try_lock() else {
                return true;
            };
            if live
                .as_ref()
                .is_some_and(|live| Arc::strong_count(live) == 1 && live.is_idle(idle))
            {
                *live = None;
            }
            // A slot that someone else holds is about to be filled.
            live.is_some() || Arc::strong_count(slot) > 1
        });
    }
}

impl Inner {
    /// Finds an upload by its id and key, and takes it over if it can still change. The key is checked before anything
    /// else happens, and a wrong one looks like no upload.
    pub(super) async fn open(&self, id: UploadId, key: &UploadKey) -> Result<Opened> {
        let hash = key.hash();
        self.open_if(id, |key_hash| *key_hash == hash).await
    }

    /// The same by its id alone, for those who look after the server.
    pub(super) async fn open_any(&self, id: UploadId) -> Result<Opened> {
        self.open_if(id, |_| true).await
    }

    async fn open_if(&self, id: UploadId, fits: impl Fn(&KeyHash) -> bool) -> Result<Opened> {
        if let Some(live) = self.registry.get(id).await {
            if !fits(&live.key_hash) {
                return Err(EngineError::NotFound);
            }
            live.check_expiry(self.clock.now())?;
            live.touch();
            return Ok(Opened::Live(live));
        }
        let snapshot = self.catalog.load(id).await?.ok_or(EngineError::NotFound)?;
        if !fits(&snapshot.upload.key_hash) {
            return Err(EngineError::NotFound);
        }
        check_expiry(&snapshot.upload, self.clock.now())?;
        if snapshot.upload.state.has_ended() {
            return Ok(Opened::Ended(Box::new(snapshot.upload)));
        }
        if snapshot.upload.role == Role::Final && snapshot.upload.state.takes_bytes() {
            return Ok(Opened::Waiting(Box::new(snapshot.upload)));
        }
        let slot = Arc::clone(self.registry.slots().entry(id).or_default());
        let mut place = slot.live.lock().await;
        if let Some(live) = place.as_ref().filter(|live| !live.state().lost) {
            return Ok(Opened::Live(Arc::clone(live)));
        }
        let snapshot = self.catalog.claim(id, self.clock.now()).await?;
        if snapshot.upload.state.has_ended() {
            return Ok(Opened::Ended(Box::new(snapshot.upload)));
        }
        let live = Arc::new(Live::new(self.distrust(snapshot)));
        *place = Some(Arc::clone(&live));
        Ok(Opened::Live(live))
    }

    /// Refuses whoever has the key of an upload and is not the one whose it is. A wrong key looks like no upload.
    pub(super) async fn check_owner(
        &self,
        id: UploadId,
        key: &UploadKey,
        caller: &Caller,
    ) -> Result<()> {
        let (key_hash, owner) = match self.registry.get(id).await {
            Some(live) => (live.key_hash, live.owner.clone()),
            None => self.catalog.owner(id).await?.ok_or(EngineError::NotFound)?,
        };
        if key_hash != key.hash() {
            return Err(EngineError::NotFound);
        }
        if owner.is(caller) {
            Ok(())
        } else {
            Err(EngineError::NotYours)
        }
    }

    /// What is known of an upload, without taking it over.
    pub(super) async fn peek(
        &self,
        id: UploadId,
        key: &UploadKey,
    ) -> Result<(Option<Arc<Live>>, Snapshot)> {
        if let Some(live) = self.registry.get(id).await {
            if live.key_hash != key.hash() {
                return Err(EngineError::NotFound);
            }
            live.touch();
            let snapshot = live.state().snapshot.clone();
            return Ok((Some(live), snapshot));
        }
        let snapshot = self.catalog.load(id).await?.ok_or(EngineError::NotFound)?;
        if snapshot.upload.key_hash != key.hash() {
            return Err(EngineError::NotFound);
        }
        Ok((None, snapshot))
    }

    /// A hash state that cannot be gone on from is dropped, and hashing starts again: it is of another version, or of bytes
    /// that were not synced and written under another boot of the machine, of which a power cut may have left something else.
    pub(super) fn distrust(&self, mut snapshot: Snapshot) -> Snapshot {
        let upload = &mut snapshot.upload;
        let other_boot = !upload.boot.is_empty() && upload.boot != self.this_boot;
        if other_boot || Hasher::at(&upload.declared.digests, &upload.hash).is_none() {
            upload.hash = HashPoint {
                offset: Offset(0),
                state: Vec::new(),
            };
        }
        snapshot
    }
}

/// Whether every byte is there once these are, too.
fn is_full_with(snapshot: &Snapshot, more: &[ByteRange]) -> bool {
    let mut received = snapshot.received.clone();
    for range in more {
        received.insert(*range);
    }
    let length = snapshot.upload.length;
    length.is_some_and(|length| received.covers_length(length))
}

/// An upload past its expiry is gone, whether the pruner has come by or not.
pub(super) fn check_expiry(upload: &Upload, now: Timestamp) -> Result<()> {
    if upload.state.takes_bytes() && upload.expires_at <= now {
        Err(EngineError::Gone)
    } else {
        Ok(())
    }
}
