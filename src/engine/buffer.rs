//! The memory that bytes on their way may take: one budget for the whole process.
//!
//! A writer takes a [`Grant`] for every frame it keeps, first come, first served. When nothing is left it stops reading its
//! socket; what frees memory then is a full cell landing in the store, or, when no cell is on its way, the writer with
//! the oldest part-filled cell, which is told to spill it to disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How often a writer that waits looks again whether somebody should spill.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A frame from the network of at least this size is kept as it came; a smaller one pins more memory than it fills.
const KEEP_BYTES: usize = 64 * 1024;
/// Small frames are copied together into buffers of at least and at most these sizes, larger the more comes.
const SMALLEST_BUFFER_BYTES: usize = 16 * 1024;
const LARGEST_BUFFER_BYTES: usize = 128 * 1024;

/// The budget. Cloning shares it.
#[derive(Clone)]
pub(super) struct Budget(Arc<Shared>);

struct Shared {
    semaphore: Arc<Semaphore>,
    total: usize,
    /// Cells that are on their way to the store from memory.
    flying: AtomicUsize,
    holders: Mutex<BTreeMap<u64, Arc<Notify>>>,
    next_holder: AtomicU64,
}

/// Memory that was granted; dropping it gives it back.
pub(super) struct Grant(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

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
            flying: AtomicUsize::new(0),
            holders: Mutex::default(),
            next_holder: AtomicU64::new(0),
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
        loop {
            tokio::select! {
                biased;
                permit = &mut acquire => {
                    return Arc::new(Grant(permit.expect("the budget's semaphore is never closed")));
                }
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            if self.0.flying.load(Ordering::Acquire) == 0 {
                self.ask_oldest_to_spill();
            }
        }
    }

    /// A grant for a last frame that has come already: nothing is waited for, and nothing is taken.
    pub(super) fn overdraw(&self) -> Arc<Grant> {
        let permit = Arc::clone(&self.0.semaphore).try_acquire_many_owned(0);
        Arc::new(Grant(permit.expect("nothing is always there")))
    }

    /// Each is asked once: who does not get to it holds up nobody else.
    fn ask_oldest_to_spill(&self) {
        let mut holders = self
            .0
            .holders
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, oldest)) = holders.pop_first() {
            oldest.notify_one();
        }
    }

    /// Registers a part-filled cell that its writer can spill when `notice` comes. Dropping it takes it out.
    pub(super) fn hold(&self, notice: &Arc<Notify>) -> Holding {
        let number = self.0.next_holder.fetch_add(1, Ordering::Relaxed);
        self.0
            .holders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, Arc::clone(notice));
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
        self.budget
            .0
            .holders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

/// A cell on its way to the store.
pub(super) struct Flying(Budget);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.0.flying.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Gathers small frames into buffers, so that each byte kept pins about a byte.
pub(super) struct Gather {
    budget: Budget,
    buffer: BytesMut,
    grant: Option<Arc<Grant>>,
    next_capacity: usize,
}

impl Gather {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            budget,
            buffer: BytesMut::new(),
            grant: None,
            next_capacity: SMALLEST_BUFFER_BYTES,
        }
    }

    /// How much the bytes would need beyond what is held; `None`: they fit.
    pub(super) fn needs(&self, bytes: &Bytes) -> Option<usize> {
        if bytes.len() >= KEEP_BYTES {
            // The network layer reads into buffers of powers of two; a frame this large nearly fills its own.
            Some(bytes.len().next_power_of_two())
        } else if self.grant.is_some() && self.buffer.capacity() - self.buffer.len() >= bytes.len()
        {
            None
        } else {
            Some(self.next_capacity.max(bytes.len()))
        }
    }

    /// Adds bytes, with the grant that [`needs`](Self::needs) asked for. Frames that are full come out, in order.
    pub(super) fn push(&mut self, bytes: Bytes, grant: Option<Arc<Grant>>, out: &mut Vec<Frame>) {
        if bytes.len() >= KEEP_BYTES {
            self.flush(out);
            out.extend(grant.map(|grant| Frame { bytes, grant }));
            return;
        }
        if let Some(grant) = grant {
            let capacity = self.next_capacity.max(bytes.len());
            self.flush(out);
            self.buffer = BytesMut::with_capacity(capacity);
            self.grant = Some(grant);
        }
        self.buffer.extend_from_slice(&bytes);
        if self.buffer.len() == self.buffer.capacity() {
            self.flush(out);
        }
    }

    /// Brings out what is gathered, full or not.
    pub(super) fn flush(&mut self, out: &mut Vec<Frame>) {
        let buffer = std::mem::take(&mut self.buffer);
        self.next_capacity = (buffer.len() * 2).clamp(SMALLEST_BUFFER_BYTES, LARGEST_BUFFER_BYTES);
        if let Some(grant) = self.grant.take()
            && !buffer.is_empty()
        {
            out.push(Frame {
                bytes: buffer.freeze(),
                grant,
            });
        }
    }

    /// The budget that this draws on.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn gathered(&self) -> u64 {
        self.buffer.len() as u64
    }
}
