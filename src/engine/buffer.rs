//! The memory that bytes on their way may take: one budget for the whole process.
//!
//! A writer takes a [`Grant`] for every frame it keeps, first come, first served. When nothing is left it stops reading its
//! socket; what frees memory then is a full cell landing in the store, or, when no cell is on its way or none lands for
//! a while, the writer with the oldest part-filled cell, which is told to spill it to disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use memmap2::MmapMut;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How often a writer that waits looks again whether somebody should spill.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// For how long it is left to the cells on their way to bring memory back; the store may hang.
const LANDING_PATIENCE: Duration = Duration::from_secs(1);

/// A frame from the network of at least this size is kept as it came. A smaller one pins more memory than it fills, so such
/// ones are copied together into buffers of this size. Of a small budget a buffer takes only a part, and where many share it, less:
/// all their buffers together take no more than a part of it either. No buffer is smaller than a page.
const BUFFER_BYTES: usize = 64 * 1024;
const BUFFER_PART: usize = 16;
const BUFFERS_PART: usize = 4;
const PAGE_BYTES: usize = 4 * 1024;
/// At most this part of the budget is kept in buffers that nobody uses.
const SPARE_PART: usize = 4;

/// The budget. Cloning shares it.
#[derive(Clone)]
pub(super) struct Budget(Arc<Shared>);

struct Shared {
    semaphore: Arc<Semaphore>,
    total: usize,
    buffer_bytes: usize,
    /// Cells that are on their way to the store from memory.
    flying: AtomicUsize,
    holders: Mutex<BTreeMap<u64, Arc<Notify>>>,
    next_holder: AtomicU64,
    spare: Mutex<Vec<MmapMut>>,
}

/// Memory that was granted; dropping it gives it back.
pub(super) struct Grant(OwnedSemaphorePermit);

/// Bytes with the memory that they take. Clones share the grant.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    grant: Arc<Grant>,
}

impl Frame {
    /// The first `at` bytes, leaving the rest in place; the two share the grant.
    pub(super) fn split_to(&mut self, at: usize) -> Self {
        Self {
            bytes: self.bytes.split_to(at),
            grant: Arc::clone(&self.grant),
        }
    }

    /// Bytes as they came, kept for a moment.
    pub(super) fn passing(bytes: Bytes, grant: Arc<Grant>) -> Self {
        Self { bytes, grant }
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Budget {
    pub(super) fn new(total_bytes: u64) -> Self {
        let total = usize::try_from(total_bytes)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            semaphore: Arc::new(Semaphore::new(total)),
            total,
            buffer_bytes: (total / BUFFER_PART).clamp(PAGE_BYTES, BUFFER_BYTES),
            flying: AtomicUsize::new(0),
            holders: Mutex::default(),
            next_holder: AtomicU64::new(0),
            spare: Mutex::default(),
        }))
    }

    /// The largest cell that may be gathered in memory: a quarter of the budget.
    pub(super) fn largest_cell(&self) -> u64 {
        self.0.total as u64 / 4
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.0.semaphore.available_permits() as u64
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.0.total as u64
    }

    /// Waits for memory. Whoever waits sees to it that some will come free.
    pub(super) async fn take(&self, bytes: usize) -> Arc<Grant> {
        let wanted = u32::try_from(bytes.min(self.0.total)).unwrap_or(u32::MAX);
        let acquire = Arc::clone(&self.0.semaphore).acquire_many_owned(wanted);
        tokio::pin!(acquire);
        let mut spill_at = Instant::now() + LANDING_PATIENCE;
        loop {
            tokio::select! {
                biased;
                permit = &mut acquire => {
                    return Arc::new(Grant(permit.expect("the budget's semaphore is never closed")));
                }
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            if self.0.flying.load(Ordering::Acquire) == 0 || Instant::now() >= spill_at {
                self.ask_oldest_to_spill();
                spill_at = Instant::now() + LANDING_PATIENCE;
            }
        }
    }

    /// A grant for a last frame that has come already: nothing is waited for, and nothing is taken.
    pub(super) fn overdraw(&self) -> Arc<Grant> {
        let permit = Arc::clone(&self.0.semaphore).try_acquire_many_owned(0);
        Arc::new(Grant(permit.expect("nothing is always there")))
    }

    /// How large a buffer for a frame of so many bytes is now.
    fn buffer_for(&self, bytes: usize) -> usize {
        let share = self.0.total / BUFFERS_PART / (self.holders().len() + 1);
        let pages = (share / PAGE_BYTES).max(1) * PAGE_BYTES;
        pages
            .max(bytes.next_power_of_two())
            .min(self.0.buffer_bytes)
    }

    fn holders(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.0
            .holders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<MmapMut>> {
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the buffers that nobody uses just now.
    pub(super) fn trim(&self) {
        self.spare().clear();
    }

    /// Each is asked once: who does not get to it holds up nobody else.
    fn ask_oldest_to_spill(&self) {
        if let Some((_, oldest)) = self.holders().pop_first() {
            oldest.notify_one();
        }
    }

    /// Registers a part-filled cell that its writer can spill when `notice` comes. Dropping it takes it out.
    pub(super) fn hold(&self, notice: &Arc<Notify>) -> Holding {
        let number = self.0.next_holder.fetch_add(1, Ordering::Relaxed);
        self.holders().insert(number, Arc::clone(notice));
        Holding {
            budget: self.clone(),
            number,
        }
    }

    /// Counts a cell as on its way to the store until the guard is dropped.
    pub(super) fn fly(&self) -> Flying {
        self.0.flying.fetch_add(1, Ordering::AcqRel);
        Flying(self.clone())
    }
}

/// A part-filled cell in memory.
pub(super) struct Holding {
    budget: Budget,
    number: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.budget.holders().remove(&self.number);
    }
}

/// A cell on its way to the store.
pub(super) struct Flying(Budget);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.0.flying.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A buffer that is used again when the last frame of it is dropped. Its memory is mapped rather than allocated: buffers that
/// come and go between long-lived things would leave holes in the heap, which the budget does not see.
struct Buffer {
    memory: Option<MmapMut>,
    len: usize,
    budget: Budget,
}

impl Buffer {
    fn new(budget: &Budget, size: usize) -> Self {
        let spare = if size == budget.0.buffer_bytes {
            budget.spare().pop()
        } else {
            None
        };
        let memory = spare.unwrap_or_else(|| {
            MmapMut::map_anon(size).expect("there is memory for what the budget allows")
        });
        Self {
            memory: Some(memory),
            len: 0,
            budget: budget.clone(),
        }
    }

    fn room(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.len()) - self.len
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(memory) = &mut self.memory {
            memory[self.len..end].copy_from_slice(bytes);
        }
        self.len = end;
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.memory
            .as_ref()
            .map_or(&[], |memory| &memory[..self.len])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let full = self.budget.0.buffer_bytes;
        let kept = self.memory.take_if(|memory| memory.len() == full);
        let mut spare = self.budget.spare();
        if spare.len() < self.budget.0.total / SPARE_PART / full {
            spare.extend(kept);
        }
    }
}

/// Gathers small frames into buffers, so that each byte kept pins about a byte.
pub(super) struct Gather {
    budget: Budget,
    buffer: Option<(Buffer, Arc<Grant>)>,
}

impl Gather {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            budget,
            buffer: None,
        }
    }

    /// How much the bytes would need beyond what is held; `None`: they fit.
    pub(super) fn needs(&self, bytes: &Bytes) -> Option<usize> {
        let buffer_bytes = self.budget.0.buffer_bytes;
        if bytes.len() >= buffer_bytes {
            // The network layer reads into buffers of powers of two; a frame this large nearly fills its own.
            return Some(bytes.len().next_power_of_two());
        }
        let fits = self
            .buffer
            .as_ref()
            .is_some_and(|(buffer, _)| buffer.room() >= bytes.len());
        (!fits).then(|| self.budget.buffer_for(bytes.len()))
    }

    /// Adds bytes, with the grant that [`needs`](Self::needs) asked for. Frames that are full come out, in order.
    pub(super) fn push(&mut self, bytes: Bytes, grant: Option<Arc<Grant>>, out: &mut Vec<Frame>) {
        if bytes.len() >= self.budget.0.buffer_bytes {
            self.flush(out);
            out.extend(grant.map(|grant| Frame { bytes, grant }));
            return;
        }
        if let Some(grant) = grant {
            self.flush(out);
            let size = grant.0.num_permits().max(bytes.len());
            self.buffer = Some((Buffer::new(&self.budget, size), grant));
        }
        let (buffer, _) = self
            .buffer
            .as_mut()
            .expect("there is room, or a grant for some");
        buffer.push(&bytes);
        if buffer.room() == 0 {
            self.flush(out);
        }
    }

    /// Brings out what is gathered, full or not.
    pub(super) fn flush(&mut self, out: &mut Vec<Frame>) {
        if let Some((buffer, grant)) = self.buffer.take() {
            out.push(Frame {
                bytes: Bytes::from_owner(buffer),
                grant,
            });
        }
    }

    pub(super) fn gathered(&self) -> u64 {
        self.buffer
            .as_ref()
            .map_or(0, |(buffer, _)| buffer.len as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn bounded_the_buffers_of_many_are_small() {
        let budget = Budget::new(64 * MIB);
        assert_eq!(budget.buffer_for(1), 64 * 1024);
        let notice = Arc::default();
        let few: Vec<_> = (0..511).map(|_| budget.hold(&notice)).collect();
        assert_eq!(budget.buffer_for(1), 32 * 1024);
        let many: Vec<_> = (0..5000).map(|_| budget.hold(&notice)).collect();
        assert_eq!(budget.buffer_for(1), PAGE_BYTES);
        let large = Bytes::from(vec![7; 9000]);
        let mut gathering = Gather::new(budget.clone());
        assert_eq!(gathering.needs(&large), Some(16 * 1024));
        let out = gather(&mut gathering, &[large.clone(), large.clone()]).await;
        assert_eq!(out.len(), 2, "the second did not fit");
        assert!(out[0].bytes == large);
        drop((few, many));
        assert_eq!(budget.buffer_for(1), 64 * 1024);
    }

    async fn gather(gather: &mut Gather, frames: &[Bytes]) -> Vec<Frame> {
        let mut out = Vec::new();
        for bytes in frames {
            let grant = match gather.needs(bytes) {
                Some(bytes) => Some(gather.budget.take(bytes).await),
                None => None,
            };
            gather.push(bytes.clone(), grant, &mut out);
        }
        gather.flush(&mut out);
        out
    }

    #[tokio::test]
    async fn bounded_small_frames_pin_about_what_they_hold() {
        let budget = Budget::new(MIB);
        let mut small = Gather::new(budget.clone());
        let frames: Vec<_> = (0..200_u8).map(|n| Bytes::from(vec![n; 1500])).collect();
        let gathered = gather(&mut small, &frames).await;
        let bytes: Vec<u8> = gathered
            .iter()
            .flat_map(|frame| &frame.bytes)
            .copied()
            .collect();
        assert_eq!(bytes, frames.concat());
        assert_eq!(gathered.len(), 5, "43 frames fit a buffer");
        assert_eq!(MIB - budget.free_bytes(), 5 * BUFFER_BYTES as u64);
        drop(gathered);
        assert_eq!(budget.free_bytes(), MIB);
    }

    #[tokio::test]
    async fn buffers_are_used_again_and_few_are_kept() {
        let budget = Budget::new(MIB);
        let mut small = Gather::new(budget.clone());
        let frame = [Bytes::from(vec![7; 40_000])];
        let first = gather(&mut small, &frame).await;
        let place = first[0].bytes.as_ptr();
        drop(first);
        let again = gather(&mut small, &frame).await;
        assert_eq!(again[0].bytes.as_ptr(), place);
        assert_eq!(again[0].bytes, frame[0]);
        let many = gather(&mut small, &vec![frame[0].clone(); 6]).await;
        assert_eq!(many.len(), 6);
        drop((again, many));
        assert_eq!(budget.spare().len(), 4, "a quarter of the budget");
        budget.trim();
        assert!(budget.spare().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn bounded_the_oldest_is_asked_to_spill_also_while_a_call_hangs() {
        let budget = Budget::new(MIB);
        let _flying = budget.fly();
        let all = budget.take(1 << 20).await;
        let notice = Arc::default();
        let _holding = budget.hold(&notice);
        let waiting = tokio::spawn(async move { budget.take(1).await });
        let asked = tokio::time::timeout(2 * LANDING_PATIENCE, notice.notified()).await;
        asked.expect("asked to spill");
        drop(all);
        waiting.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_frame_that_is_large_is_not_copied() {
        let mut small = Gather::new(Budget::new(MIB));
        let frames = [
            Bytes::from_static(b"small"),
            Bytes::from(vec![1; BUFFER_BYTES]),
        ];
        let gathered = gather(&mut small, &frames).await;
        assert_eq!(gathered.len(), 2);
        assert_eq!(gathered[1].bytes.as_ptr(), frames[1].as_ptr());
    }
}
