//! Who may write which bytes: leases, and how a newer request displaces an older one.
//!
//! A byte belongs to at most one writer, and stays its writer's until that one's last I/O has returned and what it held
//! is committed. A newcomer never waits for a network timeout: it tells whoever is in its way to go, and they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::live::{HashOwner, Live, State};
use super::{EngineError, Result};
use crate::model::{ByteRange, Offset, RangeSet};

/// How long what a cut connection left unread may take to be found, and to be read.
const UNREAD_WITHIN: Duration = Duration::from_millis(5);
const DRAIN_WITHIN: Duration = Duration::from_millis(50);
/// A newcomer waits this long for those in its way to save what they hold, and is then told to come back.
const DISPLACE_WITHIN: Duration = Duration::from_millis(900);
/// This many displacements within [`DAMPING_WINDOW`] are a fight, and the holder keeps it.
const DAMPING_COUNT: usize = 3;
const DAMPING_WINDOW: Duration = Duration::from_secs(10);
/// A writer that got a byte so recently is no half-open connection.
const FLOWING: Duration = Duration::from_secs(2);

/// A writer, as others see it.
pub(super) struct WriterEntry {
    number: u64,
    want: RangeSet,
    /// Ends it: it saves what it holds and goes.
    pub(super) cancel: CancellationToken,
    /// Makes it commit what it has and go on.
    pub(super) nudge: Arc<Notify>,
    /// Changes with every commit.
    pub(super) saves: watch::Receiver<u64>,
    last_byte: Arc<LastByte>,
    /// It takes a body.
    is_chunk: bool,
}

/// When a writer last got a byte, and which.
pub(super) struct LastByte {
    start: Instant,
    after_millis: AtomicU64,
    /// Where the last byte that it took ends.
    reach: AtomicU64,
}

impl LastByte {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            after_millis: AtomicU64::new(0),
            reach: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) {
        let after = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.after_millis.store(after, Ordering::Relaxed);
    }

    /// To be told while the upload's state is locked, so that nobody fixes a length below it.
    pub(super) fn reaches(&self, end: u64) {
        self.reach.fetch_max(end, Ordering::AcqRel);
    }

    fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(
            self.after_millis.load(Ordering::Relaxed),
        ))
    }
}

/// The right to write the bytes of [`want`](Self::want). Dropping it gives them back; by then the last I/O has returned.
pub(super) struct Lease {
    live: Arc<Live>,
    pub(super) number: u64,
    /// The bytes that were missing when the lease was taken.
    pub(super) want: RangeSet,
    pub(super) cancel: CancellationToken,
    pub(super) nudge: Arc<Notify>,
    pub(super) saves: watch::Sender<u64>,
    pub(super) last_byte: Arc<LastByte>,
}

/// What a writer asks for.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    /// The bytes that its body may bring, if there is any.
    pub(super) range: Option<ByteRange>,
    /// It has to begin here, where the upload's bytes end, and nobody writes beside it.
    pub(super) append_at: Option<Offset>,
    /// How many writers an upload may have.
    pub(super) max_parallel: usize,
}

impl Live {
    /// Leases what is missing of the range asked for. Writers in the way are displaced; in a sequential upload, and by one
    /// that appends, every other one is.
    pub(super) async fn lease(self: &Arc<Self>, ask: Ask) -> Result<Lease> {
        let number = {
            let mut state = self.state();
            state.next_writer += 1;
            state.next_writer
        };
        self.once_saved(|| self.try_lease(number, ask)).await
    }

    /// Ends every writer and waits until they have saved what they hold.
    pub(super) async fn displace_all(&self) -> Result<()> {
        let newest = self.state().next_writer;
        self.once_saved(|| {
            let mut state = self.state();
            let gone = displace(&mut state, |writer| writer.number <= newest)?;
            state.displaced_to = state.displaced_to.max(newest);
            Ok(gone.then_some(()))
        })
        .await
    }

    /// A client whose connection was cut asks how far it got while much of what it sent is in the system's buffers, and maybe even
    /// the head of its request: if that came in after the answer, it would have to send all of it again. So where
    /// nobody writes, it gets a moment to be found there.
    pub(super) async fn find_unread(&self) {
        if self.state().writers.is_empty() {
            tokio::time::sleep(UNREAD_WITHIN).await;
        }
    }

    /// The same where writers go on that are connected: those whose connection was cut soon have all that came of it.
    pub(super) async fn drain_writers(&self) {
        self.find_unread().await;
        let until = Instant::now() + DRAIN_WITHIN;
        let flows = |writer: &WriterEntry| writer.last_byte.age() < UNREAD_WITHIN;
        while Instant::now() < until && self.state().writers.iter().any(flows) {
            let changed = self.changed.notified();
            let _ = tokio::time::timeout(UNREAD_WITHIN, changed).await;
        }
    }

    /// Tries again whenever something has changed, until it works or those in the way have had their time.
    async fn once_saved<T>(&self, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + DISPLACE_WITHIN;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(EngineError::Unavailable {
                    retry_after: Duration::from_secs(1),
                    source: "an older request could not be saved in time".into(),
                });
            }
        }
    }

    fn try_lease(self: &Arc<Self>, number: u64, ask: Ask) -> Result<Option<Lease>> {
        let mut state = self.state();
        if state.lost || number <= state.displaced_to {
            return Err(EngineError::Displaced);
        }
        let there = state.snapshot.received.contiguous();
        let out_of_order = Err(EngineError::OutOfOrder { expected: there });
        if let Some(at) = ask.append_at
            && (at < there || at.get() > state.reach())
        {
            // Whatever the others still bring, it cannot fit, and is no reason to displace them.
            return out_of_order;
        }
        let sequential = state.snapshot.upload.declared.sequential;
        let want: RangeSet = ask
            .range
            .map(|range| state.snapshot.received.gaps(range).collect())
            .unwrap_or_default();
        let alone = ask.append_at.is_some() || (sequential && !want.is_empty());
        let in_the_way = |writer: &WriterEntry| {
            alone
                || want
                    .iter()
                    .any(|gap| writer.want.overlapping(gap).next().is_some())
        };
        if state
            .writers
            .iter()
            .any(|writer| in_the_way(writer) && writer.number > number)
        {
            return Err(EngineError::Displaced);
        }
        if !displace(&mut state, in_the_way)? {
            return Ok(None);
        }
        let fits = match ask.append_at {
            Some(at) => at == there,
            None => !sequential || ask.range.is_none_or(|range| range.start() <= there.get()),
        };
        if !fits {
            return out_of_order;
        }
        if state
            .writers
            .iter()
            .filter(|writer| writer.is_chunk && !writer.cancel.is_cancelled())
            .count()
            >= ask.max_parallel
        {
            return Err(EngineError::TooManyChunks {
                max: ask.max_parallel,
            });
        }
        Ok(Some(self.enter(&mut state, number, want, true)))
    }

    /// Leases bytes that nobody else has a lease on: `choose` looks which. For whoever brings them in one go, without a body.
    /// `None` if there are none.
    pub(super) fn occupy(
        self: &Arc<Self>,
        choose: impl FnOnce(&State) -> RangeSet,
    ) -> Option<Lease> {
        let mut state = self.state();
        let want = choose(&state);
        if state.lost || want.is_empty() {
            return None;
        }
        state.next_writer += 1;
        let (number, end) = (state.next_writer, want.end());
        let lease = self.enter(&mut state, number, want, false);
        lease.last_byte.reaches(end);
        Some(lease)
    }

    fn enter(
        self: &Arc<Self>,
        state: &mut State,
        number: u64,
        want: RangeSet,
        is_chunk: bool,
    ) -> Lease {
        let (saves, seen) = watch::channel(0);
        let lease = Lease {
            live: Arc::clone(self),
            number,
            want: want.clone(),
            cancel: CancellationToken::new(),
            nudge: Arc::default(),
            saves,
            last_byte: Arc::new(LastByte::new()),
        };
        state.writers.push(WriterEntry {
            number,
            want,
            cancel: lease.cancel.clone(),
            nudge: Arc::clone(&lease.nudge),
            saves: seen,
            last_byte: Arc::clone(&lease.last_byte),
            is_chunk,
        });
        lease
    }
}

impl State {
    /// Whether a writer has a lease on a byte of the range.
    pub(super) fn is_leased(&self, range: ByteRange) -> bool {
        let mut writers = self.writers.iter();
        writers.any(|writer| writer.want.overlapping(range).next().is_some())
    }

    /// Where the bytes end that are there or that a writer holds.
    pub(super) fn reach(&self) -> u64 {
        let held = self
            .writers
            .iter()
            .map(|writer| writer.last_byte.reach.load(Ordering::Acquire));
        held.max().unwrap_or(0).max(self.snapshot.received.end())
    }
}

impl WriterEntry {
    /// Tells the writer to go; whether that is news to it.
    fn displace(&self) -> bool {
        let news = !self.cancel.is_cancelled();
        if news {
            self.cancel.cancel();
            metrics::counter!("jumar_displaced_total").increment(1);
        }
        news
    }
}

/// Tells those in the way to go; whether none is left. Where too many were told so lately, one whose bytes flow stays, and
/// whoever asks has to give way.
fn displace(state: &mut State, in_the_way: impl Fn(&WriterEntry) -> bool) -> Result<bool> {
    state
        .displaced_at
        .retain(|at| at.elapsed() < DAMPING_WINDOW);
    let damped = state.displaced_at.len() >= DAMPING_COUNT;
    let mut gone = true;
    let mut displaced = 0;
    for writer in state.writers.iter().filter(|writer| in_the_way(writer)) {
        if damped && !writer.cancel.is_cancelled() && writer.last_byte.age() < FLOWING {
            return Err(EngineError::Displaced);
        }
        displaced += usize::from(writer.displace());
        gone = false;
    }
    state
        .displaced_at
        .extend(std::iter::repeat_n(Instant::now(), displaced));
    Ok(gone)
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.live.state();
        state.writers.retain(|writer| writer.number != self.number);
        if state.hash_owner == Some(HashOwner::Writer(self.number)) {
            state.hash_owner = None;
        }
        drop(state);
        self.live.touch();
        self.live.changed.notify_waiters();
    }
}
