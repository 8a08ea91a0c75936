//! What can go wrong around a process, and the order in which its tasks come: delays, faults and the crash.
//!
//! Every call of the store and of the catalog passes here. A crash is a fuse: from the moment it blows, no call takes effect
//! and none returns, until the process is thrown away.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jumar::catalog::CatalogError;
use jumar::store::call::Call;
use jumar::store::hooked::Hook;
use jumar::store::{StagedFile, StoreError};
use tokio::sync::watch;

/// Numbers that follow from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % sides
    }
}

/// In which order the tasks of a process come: how often each step of one waits, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Mostly at once.
    Brisk,
    /// Often late: receiving, hashing, storing and committing overtake each other.
    Unruly,
}

impl Schedule {
    pub(crate) const ALL: [Self; 2] = [Self::Brisk, Self::Unruly];

    fn delay(self, dice: &mut Dice) -> Duration {
        let (none, short, long) = match self {
            Self::Brisk => (85, 97, 100),
            Self::Unruly => (40, 80, 97),
        };
        match dice.roll(100) {
            roll if roll < none => Duration::ZERO,
            roll if roll < short => Duration::from_millis(1 + dice.roll(30)),
            roll if roll < long => Duration::from_millis(30 + dice.roll(400)),
            _ => Duration::from_millis(500 + dice.roll(1500)),
        }
    }
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not done, and the caller is told to come back.
    Refused,
    /// It is done, and the caller is told to come back.
    AnswerLost,
    /// It is done after 30 seconds of silence.
    Late,
    /// It is done at once, and answered after 30 seconds.
    AnswerLate,
    /// The store says that it does not have what it has.
    NotFound,
}

/// Of what a fault strikes the next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Struck {
    Store(Call),
    /// Any call of the catalog that is made in carrying a request out.
    Catalog,
}

const SILENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Rule {
    struck: Struck,
    /// So many calls are let pass first.
    skip: u32,
    fault: Fault,
}

#[derive(Debug, Default)]
struct State {
    rules: VecDeque<Rule>,
    /// After so many calls the process ends; with `true`, after that call took effect.
    fuse: Option<(u32, bool)>,
    blown: bool,
}

/// Around one process. Clones are the same.
#[derive(Clone)]
pub(crate) struct Weather {
    state: Arc<Mutex<State>>,
    dice: Arc<Mutex<Dice>>,
    schedule: Schedule,
    blown: Arc<watch::Sender<bool>>,
    struck: Arc<AtomicU64>,
}

/// What becomes of a call.
enum Turn {
    Goes(Option<Fault>),
    /// The process ends before it.
    Never,
    /// It takes effect, and the process ends.
    Last,
}

impl Weather {
    pub(crate) fn new(schedule: Schedule, seed: u64) -> Self {
        Self {
            state: Arc::default(),
            dice: Arc::new(Mutex::new(Dice::new(seed))),
            schedule,
            blown: Arc::new(watch::Sender::new(false)),
            struck: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call of this kind fails, after `skip` others.
    pub(crate) fn strike(&self, struck: Struck, skip: u32, fault: Fault) {
        let rule = Rule {
            struck,
            skip,
            fault,
        };
        self.state().rules.push_back(rule);
    }

    /// The process ends with the `calls`th call from now on: before it, or after it took effect.
    pub(crate) fn light_fuse(&self, calls: u32, after: bool) {
        self.state().fuse = Some((calls, after));
    }

    pub(crate) fn blow(&self) {
        self.state().blown = true;
        self.blown.send_replace(true);
    }

    /// Nothing more goes wrong.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.fuse = None;
    }

    /// Whether something may go wrong just now.
    pub(crate) fn is_calm(&self) -> bool {
        let state = self.state();
        state.rules.is_empty() && state.fuse.is_none() && !state.blown
    }

    /// How many calls something went wrong with.
    pub(crate) fn struck(&self) -> u64 {
        self.struck.load(Ordering::SeqCst)
    }

    /// Waits for the end of the process.
    pub(crate) async fn has_blown(&self) {
        // The sender is held here, so this does not fail.
        let _ = self.blown.subscribe().wait_for(|blown| *blown).await;
    }

    pub(crate) fn delay(&self) -> Duration {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        self.schedule.delay(&mut dice)
    }

    /// Waits at a seam, as the schedule has it.
    pub(crate) async fn pause(&self) {
        let delay = self.delay();
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
    }

    fn turn(&self, struck: Struck) -> Turn {
        let mut state = self.state();
        if state.blown {
            return Turn::Never;
        }
        if let Some((calls, after)) = &mut state.fuse {
            if *calls == 0 {
                let after = *after;
                state.blown = true;
                drop(state);
                if after {
                    return Turn::Last;
                }
                self.blown.send_replace(true);
                return Turn::Never;
            }
            *calls -= 1;
        }
        let place = state.rules.iter().position(|rule| rule.struck == struck);
        let fault = place.and_then(|place| {
            let rule = &mut state.rules[place];
            if rule.skip > 0 {
                rule.skip -= 1;
                return None;
            }
            state.rules.remove(place).map(|rule| rule.fault)
        });
        self.struck
            .fetch_add(u64::from(fault.is_some()), Ordering::SeqCst);
        Turn::Goes(fault)
    }

    /// Makes a call, or does with it what the weather wants.
    pub(crate) async fn around<T, E>(
        &self,
        struck: Struck,
        run: impl Future<Output = Result<T, E>>,
        error: impl Fn(Fault) -> E,
    ) -> Result<T, E> {
        self.pause().await;
        let fault = match self.turn(struck) {
            Turn::Never => return std::future::pending().await,
            Turn::Last => {
                let _ = run.await;
                self.blown.send_replace(true);
                return std::future::pending().await;
            }
            Turn::Goes(fault) => fault,
        };
        let result = match fault {
            None => run.await,
            Some(Fault::AnswerLost) => run.await.and(Err(error(Fault::AnswerLost))),
            Some(Fault::Late) => {
                tokio::time::sleep(SILENCE).await;
                if self.state().blown {
                    std::future::pending::<()>().await;
                }
                run.await
            }
            Some(Fault::AnswerLate) => {
                let result = run.await;
                tokio::time::sleep(SILENCE).await;
                result
            }
            Some(fault) => Err(error(fault)),
        };
        if self.state().blown {
            return std::future::pending().await;
        }
        self.pause().await;
        result
    }

    /// The same for a call that blocks: it cannot be held up for ever, so it fails after the end.
    fn around_file<T>(
        &self,
        call: Call,
        run: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.turn(Struck::Store(call)) {
            Turn::Never | Turn::Goes(Some(Fault::Refused | Fault::NotFound)) => {
                Err(store_error(Fault::Refused))
            }
            Turn::Last => {
                let _ = run();
                self.blown.send_replace(true);
                Err(store_error(Fault::Refused))
            }
            Turn::Goes(Some(Fault::AnswerLost)) => run().and(Err(store_error(Fault::AnswerLost))),
            Turn::Goes(_) => run(),
        }
    }

    /// The clock of a runtime that is idle runs on; not while something blocks. So something does while others' threads work.
    async fn standing_still<T>(&self, work: impl Future<Output = T>) -> T {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let weather = self.clone();
        let blocker = tokio::task::spawn_blocking(move || {
            let look = Duration::from_millis(2);
            while wait.recv_timeout(look) == Err(RecvTimeoutError::Timeout)
                && !*weather.blown.borrow()
            {}
        });
        let result = work.await;
        drop(done);
        let _ = blocker.await;
        result
    }

    /// A call of the catalog. Simulated time stands still while the catalog's own thread works.
    pub(crate) async fn around_catalog<T>(
        &self,
        run: impl Future<Output = Result<T, CatalogError>>,
    ) -> Result<T, CatalogError> {
        let unavailable = |_| CatalogError::Unavailable("as the weather is".into());
        self.around(Struck::Catalog, self.standing_still(run), unavailable)
            .await
    }
}

fn store_error(fault: Fault) -> StoreError {
    match fault {
        Fault::NotFound => StoreError::NotFound,
        _ => StoreError::Unavailable("as the weather is".into()),
    }
}

impl Hook for Weather {
    async fn around<T: Send>(
        &self,
        call: Call,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        Self::around(self, Struck::Store(call), run, store_error).await
    }

    fn opened(&self, file: Arc<dyn StagedFile>) -> Arc<dyn StagedFile> {
        Arc::new(File {
            inner: file,
            weather: self.clone(),
        })
    }
}

struct File {
    inner: Arc<dyn StagedFile>,
    weather: Weather,
}

impl StagedFile for File {
    fn write_at(&self, offset: u64, frames: &[Bytes]) -> Result<(), StoreError> {
        let write = || self.inner.write_at(offset, frames);
        self.weather.around_file(Call::WriteAt, write)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let read = || self.inner.read_at(offset, buffer);
        self.weather.around_file(Call::ReadAt, read)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.weather.around_file(Call::Sync, || self.inner.sync())
    }
}
