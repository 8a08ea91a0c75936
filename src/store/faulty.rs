//! Calls of a store that fail as they are told, for tests.
//!
//! A test puts [`Faults`] around a store, keeps a clone, says which call goes wrong how, and reads how often each was made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::call::Call;
use super::hooked::Hook;
use super::{Result, StagedFile, StoreError};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// [`StoreError::Unavailable`]; nothing is done.
    Unavailable,
    /// It is done, but the caller hears [`StoreError::Unavailable`].
    LostAnswer,
    /// Nothing happens until [`Faults::release`]; then it is done.
    Hang,
    /// It is done, and the caller hears of it after [`Faults::release`].
    HangAfter,
    /// It is done later.
    Delay(Duration),
    /// [`StoreError::NotFound`]; nothing is done.
    NotFound,
    /// [`StoreError::Full`]; of a write to a file, half of its frames are written.
    Full,
    /// [`StoreError::Changed`]; nothing is done.
    Changed,
    /// [`StoreError::Refused`]; nothing is done.
    Refused,
}

/// Which calls it strikes, counted from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Every one.
    Always,
    /// So many.
    Next(u32),
    /// Only this one, from 1.
    Nth(u32),
}

#[derive(Debug)]
struct Rule {
    call: Call,
    when: When,
    fault: Fault,
    seen: u32,
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    counts: HashMap<Call, u32>,
}

/// The test's handle. Clones share the script.
#[derive(Debug, Clone)]
pub struct Faults {
    script: Arc<Mutex<Script>>,
    released: Arc<watch::Sender<u64>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            script: Arc::default(),
            released: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Faults {
    /// Lets a call fail. The first rule that strikes decides.
    pub fn fail(&self, call: Call, when: When, fault: Fault) {
        self.script().rules.push(Rule {
            call,
            when,
            fault,
            seen: 0,
        });
    }

    /// Takes all faults back and lets go what hangs.
    pub fn heal(&self) {
        self.script().rules.clear();
        self.release();
    }

    /// Lets go what hangs now: every such call that [`count`](Self::count) knows of.
    pub fn release(&self) {
        self.released.send_modify(|times| *times += 1);
    }

    /// How often a call was made, whatever came of it.
    #[must_use]
    pub fn count(&self, call: Call) -> u32 {
        self.script().counts.get(&call).copied().unwrap_or(0)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strike(&self, call: Call) -> Option<Fault> {
        let mut script = self.script();
        *script.counts.entry(call).or_default() += 1;
        let mut struck = None;
        for rule in script.rules.iter_mut().filter(|rule| rule.call == call) {
            rule.seen += 1;
            let strikes = match rule.when {
                When::Always => true,
                When::Next(count) => rule.seen <= count,
                When::Nth(nth) => rule.seen == nth,
            };
            if strikes && struck.is_none() {
                struck = Some(rule.fault);
            }
        }
        struck
    }

    /// To be taken before the call counts, so that a test that waits for the count can release it.
    fn watch(&self) -> Hang {
        Hang(self.released.subscribe())
    }
}

/// What a call that hangs waits for.
struct Hang(watch::Receiver<u64>);

impl Hang {
    async fn wait(mut self) {
        // An error means that no handle is left to release it.
        let _ = self.0.changed().await;
    }

    fn block(self) {
        while !self.0.has_changed().unwrap_or(true) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The error of a fault that stands for one.
fn error(fault: Fault) -> StoreError {
    let why = "as the test wishes".into();
    match fault {
        Fault::NotFound => StoreError::NotFound,
        Fault::Full => StoreError::Full(why),
        Fault::Changed => StoreError::Changed(why),
        Fault::Refused => StoreError::Refused(why),
        _ => StoreError::Unavailable(why),
    }
}

impl Hook for Faults {
    async fn around<T: Send>(
        &self,
        call: Call,
        run: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let hang = self.watch();
        match self.strike(call) {
            None => run.await,
            Some(Fault::LostAnswer) => run.await.and(Err(error(Fault::LostAnswer))),
            Some(Fault::Hang) => {
                hang.wait().await;
                run.await
            }
            Some(Fault::HangAfter) => {
                let result = run.await;
                hang.wait().await;
                result
            }
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                run.await
            }
            Some(fault) => Err(error(fault)),
        }
    }

    fn opened(&self, file: Arc<dyn StagedFile>) -> Arc<dyn StagedFile> {
        Arc::new(FaultyFile {
            inner: file,
            faults: self.clone(),
        })
    }
}

/// A staged file whose writes fail as the store's calls do.
struct FaultyFile {
    inner: Arc<dyn StagedFile>,
    faults: Faults,
}

impl FaultyFile {
    fn struck<T>(&self, call: Call, done: impl FnOnce() -> Result<T>) -> Result<T> {
        let hang = self.faults.watch();
        match self.faults.strike(call) {
            None => done(),
            Some(Fault::LostAnswer) => done().and(Err(error(Fault::LostAnswer))),
            Some(Fault::Hang) => {
                hang.block();
                done()
            }
            Some(Fault::HangAfter) => {
                let result = done();
                hang.block();
                result
            }
            Some(Fault::Delay(delay)) => {
                std::thread::sleep(delay);
                done()
            }
            Some(fault) => Err(error(fault)),
        }
    }
}

impl StagedFile for FaultyFile {
    fn write_at(&self, offset: u64, frames: &[Bytes]) -> Result<()> {
        let result = self.struck(Call::WriteAt, || self.inner.write_at(offset, frames));
        if matches!(result, Err(StoreError::Full(_))) {
            // As a disk does that fills up in the middle of it.
            self.inner.write_at(offset, &frames[..frames.len() / 2])?;
        }
        result
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.struck(Call::ReadAt, || self.inner.read_at(offset, buffer))
    }

    fn sync(&self) -> Result<()> {
        self.struck(Call::Sync, || self.inner.sync())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Length, StoreKey, UploadId};
    use crate::store::fs::FsStore;
    use crate::store::hooked::Hooked;
    use crate::store::{InPlace, Store as _};

    fn store(root: &std::path::Path) -> (Hooked<Faults>, Faults) {
        let faults = Faults::default();
        let inner = Arc::new(FsStore::open(root, false).unwrap());
        (Hooked::new(inner, faults.clone()), faults)
    }

    #[tokio::test]
    async fn an_answer_is_lost_after_the_effect_and_an_error_comes_before_it() {
        let root = tempfile::tempdir().unwrap();
        let (store, faults) = store(root.path());
        let id = UploadId::generate();
        let key: StoreKey = "key".parse().unwrap();
        let file = InPlace::open(&store, id).await.unwrap();
        file.write_at(0, &[]).unwrap();
        faults.fail(Call::Publish, When::Next(1), Fault::Unavailable);
        faults.fail(Call::Publish, When::Nth(2), Fault::LostAnswer);
        for there in [false, true] {
            let failed = store.publish(id, &key, Length(0)).await;
            assert!(matches!(failed, Err(StoreError::Unavailable(_))));
            assert_eq!(store.head(&key).await.unwrap().is_some(), there);
        }
        store.publish(id, &key, Length(0)).await.unwrap();
        assert_eq!(faults.count(Call::Publish), 3);
    }

    #[tokio::test]
    async fn what_hangs_goes_on_when_it_is_released() {
        let root = tempfile::tempdir().unwrap();
        let (store, faults) = store(root.path());
        let id = UploadId::generate();
        faults.fail(Call::Open, When::Always, Fault::Hang);
        let mut opened = InPlace::open(&store, id);
        assert!(futures_util::poll!(&mut opened).is_pending());
        assert_eq!(store.staged().await.unwrap(), []);
        faults.release();
        opened.await.unwrap().write_at(0, &[]).unwrap();
        assert_eq!(store.staged().await.unwrap(), [id]);
    }

    #[tokio::test]
    async fn a_full_disk_takes_some_of_a_write() {
        let root = tempfile::tempdir().unwrap();
        let (store, faults) = store(root.path());
        let file = InPlace::open(&store, UploadId::generate()).await.unwrap();
        faults.fail(Call::WriteAt, When::Next(1), Fault::Full);
        let frames = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let full = file.write_at(0, &frames);
        assert!(matches!(full, Err(StoreError::Full(_))));
        assert_eq!(file.read_at(0, &mut [0; 6]).unwrap(), 3);
        file.write_at(0, &frames).unwrap();
        assert_eq!(file.read_at(0, &mut [0; 6]).unwrap(), 6);
    }
}
