//! What happens to uploads: creating, writing, telling, completing, aborting, pruning.
//!
//! Knows uploads; knows no HTTP, SQL or S3. A protocol turns a request into one of the commands here and an outcome or an
//! [`EngineError`] into its own kind of answer.
//!
//! The file is long because it is one thing: all that can be said to the engine and heard from it, in one place to read. What is
//! done stands in the modules.

mod abort;
mod address;
mod admit;
mod behaviour;
mod buffer;
mod complete;
mod compose;
mod content_type;
mod create;
mod direct;
mod error;
mod flight;
pub mod hasher;
mod lane;
mod lease;
mod live;
mod oversee;
mod patience;
mod prune;
mod quota;
mod readback;
mod recover;
mod settings;
mod settle;
mod status;
mod write;

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::model::digest::Digests;
use crate::model::quota::Used;
use crate::model::upload::{Declared, Protocol};
use crate::model::{
    ByteRange, Caller, Digest, DigestAlgorithm, Handle, Length, Object, Offset, PartNumber,
    RangeSet, Timestamp, Upload, UploadId, UploadKey,
};
use crate::store::tail::Spool;
use crate::store::{ByteStream, Store};

use admit::Admitted;
use buffer::Budget;
use live::Registry;
use prune::JumpGuard;
use quota::Queues;

pub use crate::catalog::{Filter, SpaceUsage};
pub use crate::store::direct::{AnswerWith, FoundPart, SignedRequest};
pub use direct::{PartUrls, SignedPart};
pub use error::{BodyError, Conflict, EngineError};
pub use lane::Pace;
pub use oversee::LastPrune;
pub use patience::BodyPace;
pub use settings::{Durability, Readers, Serve, Settings, Space, Verify};

/// Short for results of the engine.
pub type Result<T> = std::result::Result<T, EngineError>;

/// The bytes of a request, as they come. The engine does the waiting, so it also watches for a stall.
pub type Body = Pin<Box<dyn Stream<Item = std::result::Result<Bytes, BodyError>> + Send>>;

/// Creates an upload.
#[derive(Debug, Clone)]
pub struct Create {
    /// The protocol that asks.
    pub protocol: Protocol,
    /// What is declared of the file.
    pub declared: Declared,
    /// Its length, if known.
    pub length: Option<Length>,
    /// Makes the creation repeatable.
    pub idempotency: Option<IdempotencyKey>,
    /// What it is for.
    pub role: NewRole,
    /// A text to keep so that only the upload's key opens it again. [`Status::sealed`] tells it.
    pub seal: Option<Secret>,
}

/// A text that only the holder of an upload's key may read.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a new upload is for. See [`Role`](crate::model::upload::Role).
#[derive(Debug, Clone, Default)]
pub enum NewRole {
    /// A file.
    #[default]
    Whole,
    /// A stretch of a file.
    Partial,
    /// A file that is put together from partial uploads of the same protocol, in this order, once all are complete. One may
    /// stand in it more than once.
    Final(Vec<Handle>),
}

/// What makes a creation repeatable for one and the same caller. A secret: it hands out the upload's key.
#[derive(Clone)]
pub struct IdempotencyKey(pub String);

/// An upload that was created, with the key that opens it. The key is shown this once.
#[derive(Debug, Clone)]
pub struct Created {
    /// The upload.
    pub upload: Upload,
    /// Its key.
    pub key: UploadKey,
}

/// Asks to write bytes to an upload.
#[derive(Debug, Clone)]
pub struct Write {
    /// Which upload.
    pub id: UploadId,
    /// The key that opens it.
    pub key: UploadKey,
    /// Where the body's first byte belongs.
    pub start: Offset,
    /// Where the byte after the body's last belongs, if that is known.
    pub end: Option<Offset>,
    /// The upload's length, if the request tells it.
    pub length: Option<Length>,
    /// What the body has to hash to. It counts whole or not at all then.
    pub digests: Expected,
    /// The body goes exactly where the upload's bytes end: every other writer is displaced first, and if `start` is not
    /// the end then, it is refused with [`EngineError::OutOfOrder`].
    pub append: bool,
    /// The body is all of the upload.
    pub whole: Option<Whole>,
    /// If all of the upload is there when the body has ended, it is to be completed: whoever writes does so next.
    pub completes: bool,
}

/// A body that is all of its upload. Its clean end fixes the upload's length; it is held against the digests that were
/// declared as soon as it has ended; and if it breaks, nothing of it counts, since nobody will go on with it. On its way
/// nothing of it is put by for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// The most bytes that it may have.
    pub at_most: Length,
}

/// What a body has to hash to.
#[derive(Debug, Clone)]
pub enum Expected {
    /// These digests; none of them: it may hash to anything.
    Known(Digests),
    /// Digests that are told when the body has ended.
    Trailing(Trailing),
}

impl From<Digests> for Expected {
    fn from(digests: Digests) -> Self {
        Self::Known(digests)
    }
}

/// The place where the digests of a body are told that come after it. Clones are the same place.
#[derive(Debug, Clone)]
pub struct Trailing {
    algorithms: Vec<DigestAlgorithm>,
    told: Arc<OnceLock<std::result::Result<Digests, String>>>,
}

impl Trailing {
    /// For digests of any of these algorithms.
    #[must_use]
    pub fn of(algorithms: &[DigestAlgorithm]) -> Self {
        Self {
            algorithms: algorithms.to_vec(),
            told: Arc::default(),
        }
    }

    /// Tells the digests, or why what came cannot be taken for them. To be called before the body yields its end; only the
    /// first call counts. Where it is never called, the body is refused with [`EngineError::DigestMissing`].
    pub fn tell(&self, digests: std::result::Result<Digests, String>) {
        let _ = self.told.set(digests);
    }
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// How far the upload reaches without a hole.
    pub offset: Offset,
    /// Its length, if known.
    pub length: Option<Length>,
    /// When it expires, unless bytes arrive.
    pub expires_at: Timestamp,
}

impl Written {
    /// Whether every byte is there.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.length
            .is_some_and(|length| length.get() == self.offset.get())
    }
}

/// What is known of an upload.
#[derive(Debug, Clone)]
pub struct Status {
    /// The upload.
    pub upload: Upload,
    /// The bytes that are there, durably. All of them if it is completed.
    pub received: RangeSet,
    /// What [`Create::seal`] was given.
    pub sealed: Option<Secret>,
}

/// Asks to complete an upload whose client has put parts of its own cut.
#[derive(Debug, Clone)]
pub struct CompleteWith {
    /// Which upload.
    pub id: UploadId,
    /// The key that opens it.
    pub key: UploadKey,
    /// The parts that it is, in any order. Others that the store has are left out.
    pub parts: Vec<ToldPart>,
}

/// A part as its client tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldPart {
    /// Its number.
    pub number: PartNumber,
    /// The tag that the store answered with, with quotes or without.
    pub etag: String,
}

/// Asks to complete an upload.
#[derive(Debug, Clone)]
pub struct Complete {
    /// Which upload.
    pub id: UploadId,
    /// The key that opens it.
    pub key: UploadKey,
    /// Digests of the whole, beside those declared at creation.
    pub digests: Digests,
    /// The upload's length, if the request tells it.
    pub length: Option<Length>,
}

/// What completing came to.
#[derive(Debug, Clone)]
pub enum Completion {
    /// The object is there.
    Done {
        /// The object.
        object: Object,
        /// Whether it had been completed before this call.
        repeated: bool,
    },
    /// It is being made; ask again.
    Working {
        /// After how long to ask.
        retry_after: Duration,
    },
}

impl std::fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

/// Whether the server can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether the catalog can be written.
    pub catalog: bool,
    /// Whether the store answers. Without it uploads go on as far as the spool reaches.
    pub store: bool,
}

/// What a round of pruning did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct PruneReport {
    /// Uploads that became expired.
    pub expired: u64,
    /// Records of ended uploads that were removed.
    pub purged: u64,
    /// Ended uploads whose leftovers in the store were removed.
    pub swept: u64,
    /// Multipart uploads that were aborted.
    pub multipart_aborted: u64,
    /// Staged and spooled files that were removed.
    pub files_removed: u64,
    /// Multipart uploads that are not ours and were left alone.
    pub foreign: u64,
    /// Things that could not be done this time; the log says why.
    pub failed: u64,
}

/// The engine: one a process, shared by everything that serves. Cloning is cheap.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    /// Whom it works for; nobody in particular: for whoever has an upload's key.
    caller: Option<Arc<Caller>>,
}

/// What all commands share.
struct Inner {
    catalog: Arc<dyn Catalog>,
    store: Arc<dyn Store>,
    clock: Clock,
    settings: Settings,
    spool: Arc<Spool>,
    budget: Budget,
    registry: Registry,
    jumps: JumpGuard,
    /// An upload ended: whoever waits for a place may look.
    places: Notify,
    queues: Queues,
    /// How many cells of the tail are moved at once, and how many uploads hashed from files, over all uploads.
    moves: Semaphore,
    hashings: Semaphore,
    /// How many final uploads are put together at once, over all uploads.
    compositions: Semaphore,
    /// Writers and finishers.
    tasks: TaskTracker,
    /// Cancelled when the process is to end: bodies are cut.
    stopping: CancellationToken,
    /// Until when parts go to the tail at once, because the store has just failed.
    store_rests: Mutex<Option<Instant>>,
    /// How much room the disk had, and when.
    room: Mutex<Option<(Instant, u64)>>,
    this_boot: String,
    /// What commits remember of the boot: nothing where bytes are synced.
    boot: Option<String>,
}

/// How many cells of the tail are moved at once, and how many uploads hashed from files: each takes some buffers.
const MOVES: usize = 8;
const HASHINGS: usize = 4;
/// How many final uploads are put together at once: on a folder each keeps a thread busy.
const COMPOSITIONS: usize = 4;
/// How often uploads that nobody touches are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// How long new cells stay in the tail after the store has failed.
const STORE_RESTS: Duration = Duration::from_secs(5);
/// How long the end of the process waits for what is on its way.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A write that may begin: its range is leased, and nothing of the body was asked for yet.
pub struct Admission(Admitted);

impl Admission {
    /// How far the upload reaches durably, told anew with each commit on the way.
    #[must_use]
    pub fn progress(&self) -> Option<watch::Receiver<Offset>> {
        match &self.0 {
            Admitted::Writer(writer) => Some(writer.progress()),
            Admitted::Repeat { .. } => None,
        }
    }

    /// Takes the body. The writing goes on to its end in a task of its own if this future is dropped.
    pub async fn run(self, body: Body) -> Result<Written> {
        let admitted = match self.0 {
            // Nothing of the body was taken yet.
            Admitted::Writer(writer) if writer.is_late() => writer.admit_again().await?,
            admitted => admitted,
        };
        match admitted {
            Admitted::Writer(writer) => {
                let (tasks, engine, id) = (writer.tasks(), writer.engine(), writer.id());
                let written = tasks.spawn(writer.run(body)).await;
                match written
                    .map_err(|error| EngineError::Internal(error.into()))
                    .flatten()
                {
                    Ok(written) => {
                        engine.behaved(id).await;
                        Ok(written)
                    }
                    Err(error) => Err(engine.misbehaved(id, error).await),
                }
            }
            Admitted::Repeat {
                engine,
                object,
                start,
                end,
                written,
            } => {
                engine.compare_repeat(&object, start, end, body).await?;
                Ok(written)
            }
        }
    }
}

impl Engine {
    /// Over a catalog and a store. Goes on with what an earlier process left unfinished.
    pub fn start(
        catalog: Arc<dyn Catalog>,
        store: Arc<dyn Store>,
        clock: Clock,
        settings: Settings,
    ) -> crate::store::Result<Self> {
        let power = settings.durability == Durability::Power;
        let spool = Spool::open(&settings.spool_path, settings.spool_max_bytes, power)?;
        let this_boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned();
        let inner = Arc::new(Inner {
            spool: Arc::new(spool),
            budget: Budget::new(settings.memory_budget_bytes),
            registry: Registry::default(),
            jumps: JumpGuard::new(clock.now()),
            places: Notify::new(),
            queues: Queues::default(),
            moves: Semaphore::new(MOVES),
            hashings: Semaphore::new(HASHINGS),
            compositions: Semaphore::new(COMPOSITIONS),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            store_rests: Mutex::default(),
            room: Mutex::default(),
            boot: (!power).then(|| this_boot.clone()),
            this_boot,
            catalog,
            store,
            clock,
            settings,
        });
        let swept = Arc::downgrade(&inner);
        tokio::spawn(async move {
            while let Some(inner) = swept.upgrade() {
                inner.registry.sweep();
                inner.budget.trim();
                inner.report();
                drop(inner);
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        });
        Ok(Self {
            inner,
            caller: None,
        })
    }

    /// The same engine, which does for `caller` what they may have done alone.
    #[must_use]
    pub fn on_behalf_of(&self, caller: Caller) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            caller: Some(Arc::new(caller)),
        }
    }

    async fn check(&self, id: UploadId, key: &UploadKey) -> Result<()> {
        match &self.caller {
            Some(caller) => self.inner.check_owner(id, key, caller).await,
            None => Ok(()),
        }
    }

    /// Creates an upload. Where as many are open as its caller may have, it waits for a place first.
    pub async fn create(&self, create: Create) -> Result<Created> {
        self.inner.create(create, self.caller.as_deref()).await
    }

    /// Checks everything that needs no body, and takes the range: whoever is in its way is displaced.
    pub async fn admit(&self, write: Write) -> Result<Admission> {
        self.check(write.id, &write.key).await?;
        let id = write.id;
        match self.inner.admit(write).await {
            Ok(admitted) => Ok(Admission(admitted)),
            Err(error) => Err(self.inner.misbehaved(id, error).await),
        }
    }

    /// Ends every writer of the upload, fixes its length if one is told, and says how far it got.
    pub async fn displace(
        &self,
        id: UploadId,
        key: &UploadKey,
        length: Option<Length>,
    ) -> Result<Written> {
        self.check(id, key).await?;
        self.inner
            .displace(id, key, length)
            .await
            .map_err(come_back)
    }

    /// Ends every writer of the upload, and tells what is known: its offset is final, until somebody writes again. Fails with
    /// `Unavailable` if a writer cannot be ended just now.
    pub async fn halt(&self, id: UploadId, key: &UploadKey) -> Result<Status> {
        self.check(id, key).await?;
        self.inner.halt(id, key).await.map_err(come_back)
    }

    /// What is known. Live writers commit what they have first, and go on.
    pub async fn status(&self, id: UploadId, key: &UploadKey) -> Result<Status> {
        self.check(id, key).await?;
        self.inner.status(id, key).await
    }

    /// Signs requests that put parts into the store, past the server. All of them or none.
    pub async fn part_urls(&self, ask: PartUrls) -> Result<Vec<SignedPart>> {
        self.check(ask.id, &ask.key).await?;
        self.inner.part_urls(ask).await.map_err(come_back)
    }

    /// Counts a part as received that was put by its URL, if the store has it, with this etag if one is told. Repeatable. A part
    /// that nobody tells of is found when the upload is completed.
    pub async fn part_arrived(
        &self,
        id: UploadId,
        key: &UploadKey,
        number: PartNumber,
        etag: Option<&str>,
    ) -> Result<Written> {
        self.check(id, key).await?;
        let arrived = self.inner.part_arrived(id, key, number, etag).await;
        arrived.map_err(come_back)
    }

    /// Signs requests that put parts of any cut into the store, each good for any number of bytes. For uploads of
    /// [`Protocol::S3`] alone; with every call their expiry moves on. `NotFound` for an upload of another protocol.
    pub async fn adopted_urls(
        &self,
        id: UploadId,
        key: &UploadKey,
        numbers: Vec<PartNumber>,
    ) -> Result<Vec<(PartNumber, SignedRequest)>> {
        self.check(id, key).await?;
        let signed = self.inner.adopted_urls(id, key, numbers).await;
        signed.map_err(come_back)
    }

    /// The parts that the store has of such an upload, by their numbers.
    pub async fn adopted_parts(&self, id: UploadId, key: &UploadKey) -> Result<Vec<FoundPart>> {
        self.check(id, key).await?;
        self.inner.adopted_parts(id, key).await.map_err(come_back)
    }

    /// Makes the object of the parts that are named, if the store has them. Repeatable.
    pub async fn complete_with(&self, complete: CompleteWith) -> Result<Completion> {
        self.check(complete.id, &complete.key).await?;
        let completion = self.inner.complete_with(complete).await;
        completion.map_err(come_back)
    }

    /// Makes the object. Repeatable.
    pub async fn complete(&self, complete: Complete) -> Result<Completion> {
        self.check(complete.id, &complete.key).await?;
        self.inner.complete(complete).await.map_err(come_back)
    }

    /// Ends an upload; all it left is removed. Repeatable.
    pub async fn abort(&self, id: UploadId, key: &UploadKey) -> Result<()> {
        self.check(id, key).await?;
        self.inner.abort(id, key).await.map_err(come_back)
    }

    /// Ends an upload whatever its state; also a completed one, whose object goes too unless `uploads.delete_completed` is
    /// off. Waits for one that is being completed. `Gone` if it was ended before. `NotFound` for a completed one of the S3 plugin:
    /// what opens it is in the link to its content.
    pub async fn terminate(&self, id: UploadId, key: &UploadKey) -> Result<()> {
        self.check(id, key).await?;
        self.inner.terminate(id, key).await.map_err(come_back)
    }

    /// The object of a completed upload, for whoever may read it: with its key whose it is; without, whom the space lets read.
    pub async fn content(&self, id: UploadId, key: Option<&UploadKey>) -> Result<(Upload, Object)> {
        self.inner.content(id, key, self.caller.as_deref()).await
    }

    /// The same for whoever has a link that was signed for it.
    pub async fn linked_content(&self, id: UploadId) -> Result<(Upload, Object)> {
        self.inner.linked_content(id).await
    }

    /// The largest upload that the caller may make.
    #[must_use]
    pub fn max_size(&self) -> Length {
        let held_to = self.inner.held_to(self.caller.as_deref()).max_size;
        let everywhere = Length(self.inner.settings.max_size_bytes);
        held_to.map_or(everywhere, |size| size.min(everywhere))
    }

    /// How much of each limit the caller has used up.
    pub async fn used(&self) -> Result<Vec<Used>> {
        match &self.caller {
            Some(caller) => self.inner.used(caller).await,
            None => Ok(Vec::new()),
        }
    }

    /// The bytes of an object, or a stretch of them.
    pub async fn read(&self, object: &Object, range: Option<ByteRange>) -> Result<ByteStream> {
        Ok(self.inner.store.read(&object.key, range).await?)
    }

    /// The object that has this SHA-256, where objects are addressed by their content, if the caller may read it.
    pub async fn object_with(&self, sha256: &Digest) -> Result<Option<Object>> {
        let found = self.inner.catalog.object_with(sha256.clone()).await?;
        let may = |object: &Object| match &self.caller {
            Some(caller) => caller.reads_all_of(&object.space),
            None => true,
        };
        Ok(found.filter(may))
    }

    /// A request that gets an object straight from the store, which answers as it is told; `None` where content goes through
    /// the server, because it was configured so or because the store cannot sign.
    pub async fn signed_read(
        &self,
        object: &Object,
        with: &AnswerWith,
    ) -> Result<Option<SignedRequest>> {
        self.inner.signed_read(object, with).await
    }

    /// One round of cleaning up.
    pub async fn prune(&self, dry_run: bool) -> Result<PruneReport> {
        self.inner.prune(dry_run).await
    }

    /// Goes on with completions that nobody works on. With `at_start`, also with those that an earlier process holds.
    pub async fn recover(&self, at_start: bool) -> Result<()> {
        self.inner.recover(at_start).await
    }

    /// Whether the server can do its work.
    pub async fn ready(&self) -> Readiness {
        self.inner.ready().await
    }

    /// How many bytes of the memory budget are taken just now.
    #[must_use]
    pub fn memory_used_bytes(&self) -> u64 {
        let budget = &self.inner.budget;
        budget.total_bytes() - budget.free_bytes()
    }

    /// How many uploads are open, from the catalog.
    pub async fn open_uploads(&self) -> Result<u64> {
        Ok(self.inner.catalog.open().await?.uploads)
    }

    /// Cuts every body, saves what came of it and commits it. For the end of a drain.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(STOP_WITHIN, self.inner.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "some uploads could not be saved in time; what was acknowledged is safe"
            );
        }
    }

    /// The limits that clients are told.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }
}

/// Only a writer can be displaced. Whoever else finds the upload in other hands comes back and finds out how it stands.
fn come_back(error: EngineError) -> EngineError {
    match error {
        EngineError::Displaced => EngineError::Unavailable {
            retry_after: Duration::from_secs(1),
            source: Box::new(EngineError::Displaced),
        },
        other => other,
    }
}

impl Inner {
    /// Whether bytes and names are synced to the disk before they count.
    fn syncs(&self) -> bool {
        self.settings.durability == Durability::Power
    }

    /// After a failed call, new cells are not sent from memory for a while: clients go on into the tail.
    fn rest_the_store(&self) {
        *self
            .store_rests
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + STORE_RESTS);
    }

    fn store_rests(&self) -> bool {
        self.store_rests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn report(&self) {
        let free = self.budget.free_bytes();
        metrics::gauge!("jumar_memory_budget_bytes", "state" => "free").set(free as f64);
        metrics::gauge!("jumar_memory_budget_bytes", "state" => "used")
            .set((self.budget.total_bytes() - free) as f64);
        metrics::gauge!("jumar_spool_bytes").set(self.spool.used_bytes() as f64);
    }
}
