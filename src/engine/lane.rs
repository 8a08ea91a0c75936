//! The two things done beside receiving: hashing and writing.
//!
//! A lane takes frames in order through a short queue and works on what is queued in one go on the blocking pool, so
//! batches grow with the speed of the client and an idle writer costs nothing. Handing a batch to a thread costs more than
//! working on a small one, so a lane waits a moment for more. A full queue stops the receiver.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::buffer::Frame;
use super::hasher::Hasher;
use crate::store::{self, StagedFile, StoreError};

/// How many frames may wait in a lane.
const QUEUE_FRAMES: usize = 16;
/// Batches below this size are hashed where they are: handing them to another thread would cost more.
const HASH_INLINE_BYTES: u64 = 16 * 1024;
/// A batch that large is worth a thread. Smaller ones wait for more, so long.
const BATCH_BYTES: u64 = 256 * 1024;
const BATCH_WAIT: Duration = Duration::from_millis(1);
/// Under `durability = "power"` at most this much waits for the disk, so that a sync never takes long.
const SYNC_EVERY_BYTES: u64 = 32 * 1024 * 1024;

/// What stands before each piece of a lane's work: nothing, but in a test that wants hashing, writing and committing to come in
/// another order. Clones are the same.
#[derive(Clone, Default)]
pub struct Pace(Option<Arc<dyn Fn() -> Duration + Send + Sync>>);

impl Pace {
    /// Waits as long as `next` says.
    #[must_use]
    pub fn of(next: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(next)))
    }

    async fn wait(&self) {
        if let Some(next) = &self.0 {
            tokio::time::sleep(next()).await;
        }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pace(…)")
    }
}

/// Hashes frames in order.
pub(super) struct HashLane {
    queue: mpsc::Sender<HashItem>,
}

enum HashItem {
    Bytes(Frame),
    Mark(oneshot::Sender<Hasher>),
}

/// The hasher as it will be when all that was pushed before is hashed.
pub(super) type Mark = oneshot::Receiver<Hasher>;

impl HashLane {
    /// Goes on from `hasher`.
    pub(super) fn start(mut hasher: Hasher, pace: Pace) -> Self {
        let (queue, mut items) = mpsc::channel::<HashItem>(QUEUE_FRAMES);
        tokio::spawn(async move {
            while let Some(work) = next_batch(&mut items).await {
                pace.wait().await;
                let bytes: u64 = work.iter().filter_map(Item::bytes).sum();
                let hash = move || {
                    for item in work {
                        item.apply(&mut hasher);
                    }
                    hasher
                };
                hasher = if bytes < HASH_INLINE_BYTES {
                    hash()
                } else {
                    match spawn_blocking(hash).await {
                        Ok(hasher) => hasher,
                        // The runtime is going down: whoever waits for a mark sees the lane closed.
                        Err(_) => return,
                    }
                };
            }
        });
        Self { queue }
    }

    /// Adds the next bytes; waits while the queue is full.
    pub(super) async fn push(&self, frame: Frame) {
        // A closed lane shows at the next mark.
        let _ = self.queue.send(HashItem::Bytes(frame)).await;
    }

    /// Asks for the hasher at this point.
    pub(super) async fn mark(&self) -> Mark {
        let (reply, mark) = oneshot::channel();
        let _ = self.queue.send(HashItem::Mark(reply)).await;
        mark
    }
}

/// What goes through a lane.
trait Item {
    /// How many bytes it brings; `None`: somebody waits for it.
    fn bytes(&self) -> Option<u64>;
}

impl Item for HashItem {
    fn bytes(&self) -> Option<u64> {
        match self {
            Self::Bytes(frame) => Some(frame.len()),
            Self::Mark(_) => None,
        }
    }
}

impl Item for WriteItem {
    fn bytes(&self) -> Option<u64> {
        match self {
            Self::Write { frame, .. } => Some(frame.len()),
            Self::Flush(_) => None,
        }
    }
}

/// What is to be worked on next; `None` at the lane's end.
async fn next_batch<T: Item>(items: &mut mpsc::Receiver<T>) -> Option<Vec<T>> {
    let mut batch = Vec::new();
    items.recv_many(&mut batch, QUEUE_FRAMES).await;
    let until = Instant::now() + BATCH_WAIT;
    while is_small(&batch) {
        let more = items.recv_many(&mut batch, QUEUE_FRAMES);
        if !matches!(tokio::time::timeout_at(until, more).await, Ok(1..)) {
            break;
        }
    }
    (!batch.is_empty()).then_some(batch)
}

/// Whether it is worth waiting for more.
fn is_small<T: Item>(batch: &[T]) -> bool {
    let bytes: Option<u64> = batch.iter().map(Item::bytes).sum();
    !batch.is_empty() && bytes.is_some_and(|bytes| bytes < BATCH_BYTES)
}

impl HashItem {
    fn apply(self, hasher: &mut Hasher) {
        match self {
            Self::Bytes(frame) => hasher.update(&frame.bytes),
            Self::Mark(reply) => {
                let _ = reply.send(hasher.clone());
            }
        }
    }
}

/// Writes frames to files at their positions.
pub(super) struct WriteLane {
    queue: mpsc::Sender<WriteItem>,
}

enum WriteItem {
    Write {
        file: Arc<dyn StagedFile>,
        at: u64,
        frame: Frame,
    },
    Flush(oneshot::Sender<store::Result<()>>),
}

impl WriteLane {
    /// With `sync`, what a flush answers for is synced to the disk.
    pub(super) fn start(sync: bool, pace: Pace) -> Self {
        let (queue, mut items) = mpsc::channel(QUEUE_FRAMES);
        tokio::spawn(async move {
            let mut state = WriteState {
                sync,
                dirty: Vec::new(),
                dirty_bytes: 0,
                error: None,
                failed: false,
            };
            while let Some(work) = next_batch(&mut items).await {
                pace.wait().await;
                let write = move || {
                    state.work(work);
                    state
                };
                match spawn_blocking(write).await {
                    Ok(next) => state = next,
                    Err(_) => return,
                }
            }
        });
        Self { queue }
    }

    /// Adds bytes; waits while the queue is full. An error shows at the next flush.
    pub(super) async fn push(&self, file: &Arc<dyn StagedFile>, at: u64, frame: Frame) {
        let _ = self
            .queue
            .send(WriteItem::Write {
                file: Arc::clone(file),
                at,
                frame,
            })
            .await;
    }

    /// Waits until all that was pushed is written, and synced if that was asked for.
    pub(super) async fn flush(&self) -> store::Result<()> {
        let (reply, done) = oneshot::channel();
        let _ = self.queue.send(WriteItem::Flush(reply)).await;
        done.await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("writing has stopped".into())))
    }
}

struct WriteState {
    sync: bool,
    dirty: Vec<Arc<dyn StagedFile>>,
    dirty_bytes: u64,
    error: Option<StoreError>,
    /// Once something could not be written, no later flush vouches for anything.
    failed: bool,
}

impl WriteState {
    fn outcome(&mut self) -> store::Result<()> {
        match self.error.take() {
            Some(error) => Err(error),
            None if self.failed => Err(StoreError::Unavailable("an earlier write failed".into())),
            None => Ok(()),
        }
    }

    fn fail(&mut self, error: StoreError) {
        self.failed = true;
        self.error.get_or_insert(error);
    }

    fn work(&mut self, items: Vec<WriteItem>) {
        let mut items = items.into_iter().peekable();
        while let Some(item) = items.next() {
            match item {
                WriteItem::Flush(reply) => {
                    self.sync_dirty();
                    let _ = reply.send(self.outcome());
                }
                WriteItem::Write { file, at, frame } => {
                    let mut end = at + frame.len();
                    let mut frames = vec![frame.bytes.clone()];
                    let mut grants = vec![frame];
                    while let Some(WriteItem::Write { frame, .. }) =
                        items.next_if(|next| continues(next, &file, end))
                    {
                        end += frame.len();
                        frames.push(frame.bytes.clone());
                        grants.push(frame);
                    }
                    self.write(&file, at, &frames, end - at);
                }
            }
        }
        if self.dirty_bytes >= SYNC_EVERY_BYTES {
            self.sync_dirty();
        }
    }

    fn write(&mut self, file: &Arc<dyn StagedFile>, at: u64, frames: &[bytes::Bytes], len: u64) {
        if self.failed {
            return;
        }
        if let Err(error) = file.write_at(at, frames) {
            self.fail(error);
            return;
        }
        self.dirty_bytes += len;
        if self.sync && !self.dirty.iter().any(|dirty| Arc::ptr_eq(dirty, file)) {
            self.dirty.push(Arc::clone(file));
        }
    }

    fn sync_dirty(&mut self) {
        self.dirty_bytes = 0;
        for file in std::mem::take(&mut self.dirty) {
            if let Err(error) = file.sync() {
                self.fail(error);
            }
        }
    }
}

fn continues(next: &WriteItem, file: &Arc<dyn StagedFile>, end: u64) -> bool {
    matches!(next, WriteItem::Write { file: other, at, .. } if Arc::ptr_eq(other, file) && *at == end)
}
