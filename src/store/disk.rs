//! The system calls that change what is on the disk, each between two failpoints.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::failpoints;

/// How many pieces the kernel takes at once (`IOV_MAX`).
const MAX_SLICES: usize = 1024;

/// Makes a file if it is not there, and opens it. Its name is durable when its folder is synced.
pub(super) fn create(options: &OpenOptions, path: &Path) -> io::Result<File> {
    failpoints::making(path);
    between(|| options.open(path))
}

/// Writes the frames one after the other from `at` on.
pub(super) fn write_all_at(file: &File, frames: &[Bytes], mut at: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
    let mut left = slices.as_mut_slice();
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let some = left.len().min(MAX_SLICES);
        let len = left[..some].iter().map(|slice| slice.len() as u64).sum();
        failpoints::writing(file, at, len);
        match between(|| Ok(rustix::io::pwritev(file, &left[..some], at)?)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut left, written);
                at += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes from a file's cursor `at` on, `len` bytes at most.
pub(super) fn copy(from: &mut impl io::Read, to: &mut File, at: u64, len: u64) -> io::Result<u64> {
    failpoints::writing(to, at, len);
    between(|| io::copy(from, to))
}

pub(super) fn set_len(file: &File, len: u64) -> io::Result<()> {
    between(|| file.set_len(len))
}

/// The file's bytes, and what of its metadata is needed to read them.
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    between(|| failpoints::sync(file, || file.sync_data()))
}

pub(super) fn sync_all(file: &File) -> io::Result<()> {
    between(|| failpoints::sync(file, || file.sync_all()))
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    between(|| failpoints::sync_folder(folder, || File::open(folder)?.sync_all()))
}

/// A folder in which many names are made at once: a sync that begins makes all of them durable, so those that come while
/// one is under way share the next.
#[derive(Debug)]
pub(super) struct SharedFolder {
    path: PathBuf,
    syncs: Mutex<Syncs>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Syncs {
    /// How many have begun, and which of them was the last that succeeded.
    begun: u64,
    succeeded: u64,
    running: bool,
}

impl SharedFolder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            syncs: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes durable what names are there now.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut syncs = self.syncs();
        let needed = syncs.begun + 1;
        while syncs.succeeded < needed {
            if syncs.running {
                syncs = self
                    .ended
                    .wait(syncs)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            syncs.running = true;
            syncs.begun += 1;
            let this = syncs.begun;
            drop(syncs);
            let outcome = sync_folder(&self.path);
            syncs = self.syncs();
            syncs.running = false;
            self.ended.notify_all();
            // The others try for themselves.
            outcome?;
            syncs.succeeded = this;
        }
        Ok(())
    }

    fn syncs(&self) -> MutexGuard<'_, Syncs> {
        self.syncs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    failpoints::making(to);
    between(|| fs::hard_link(from, to))
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    failpoints::removing(path);
    between(|| fs::remove_file(path))
}

fn between<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    failpoints::reached();
    let result = call();
    failpoints::reached();
    result
}
