//! Failpoints that strike.
//!
//! A power cut takes from what was not synced: of each page that was written it keeps the bytes, or leaves zeros, or
//! garbage, and a file may end before it; a name that was made is there or not; a name that was removed is back or not; the
//! last transaction's frames in the write-ahead log end anywhere. What was synced before stays as it was, also where the same
//! bytes were written once more: a disk leaves the old or the new of a sector.
//!
//! Folders that are made are not looked after; what SQLite does to its own files is, only as far as it appends to its log.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rangemap::RangeSet;

/// What a disk writes whole or not at all.
const PAGE: u64 = 4096;
/// A log of fewer bytes was never written back into its database: then the transactions in it could not be lost any more.
/// A frame is a page and 24 bytes; the catalog lets its log grow to 2,048 frames first.
const LOG_BYTES: u64 = 2000 * (PAGE + 24);

static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
    let dies_at = std::env::var("JUMAR_FAILPOINT").ok()?;
    Some(Plan {
        dies_at: dies_at.parse().expect("JUMAR_FAILPOINT is a number"),
        reached: AtomicU64::new(0),
        disk: std::env::var_os("JUMAR_FAILPOINT_POWER_CUT").map(|_| Mutex::default()),
    })
});

struct Plan {
    dies_at: u64,
    reached: AtomicU64,
    /// What a power cut would take, if there is to be one.
    disk: Option<Mutex<Unsynced>>,
}

impl Plan {
    fn die(&self) -> ! {
        // Held until the end: whoever has synced since, waits here before telling anybody.
        let _disk = self.disk.as_ref().map(|disk| {
            let mut disk = lock(disk);
            disk.cut();
            disk
        });
        eprintln!("failpoint {}: dies here", self.dies_at);
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

fn lock(disk: &Mutex<Unsynced>) -> MutexGuard<'_, Unsynced> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unsynced() -> Option<MutexGuard<'static, Unsynced>> {
    PLAN.as_ref()?.disk.as_ref().map(lock)
}

/// A failpoint.
pub fn reached() {
    let Some(plan) = &*PLAN else { return };
    if plan.reached.fetch_add(1, Ordering::SeqCst) + 1 == plan.dies_at {
        plan.die();
    }
}

/// A stretch of a file is about to be written.
pub fn writing(file: &File, start: u64, len: u64) {
    if let Some(mut disk) = unsynced()
        && len > 0
    {
        disk.bytes_of(file).writing(start..start + len);
    }
}

/// Syncs a file.
pub fn sync(file: &File, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let written = unsynced().map(|mut disk| disk.bytes_of(file).unsynced.clone());
    sync()?;
    if let Some(mut disk) = unsynced() {
        let bytes = disk.bytes_of(file);
        for range in written.into_iter().flatten() {
            bytes.unsynced.remove(range.clone());
            bytes.synced.insert(range);
        }
    }
    Ok(())
}

/// A name is about to be made.
pub fn making(name: &Path) {
    if let Some(mut disk) = unsynced()
        && fs::symlink_metadata(name).is_err()
    {
        disk.made.insert(name.to_owned());
    }
}

/// A name is about to be removed.
pub fn removing(name: &Path) {
    if let Some(mut disk) = unsynced() {
        let kept = kept(name);
        let _ = fs::remove_file(&kept);
        if fs::hard_link(name, &kept).is_ok() {
            disk.made.remove(name);
            disk.removed.insert(name.to_owned());
        }
    }
}

/// Syncs a folder.
pub fn sync_folder(folder: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let inside = |name: &&PathBuf| name.parent() == Some(folder);
    let before = unsynced().map(|disk| {
        let made: Vec<PathBuf> = disk.made.iter().filter(inside).cloned().collect();
        let removed: Vec<PathBuf> = disk.removed.iter().filter(inside).cloned().collect();
        (made, removed)
    });
    sync()?;
    if let (Some(mut disk), Some((made, removed))) = (unsynced(), before) {
        for name in made {
            disk.made.remove(&name);
        }
        for name in removed {
            disk.removed.remove(&name);
            let _ = fs::remove_file(kept(&name));
        }
    }
    Ok(())
}

/// Commits a transaction of the database in this file.
pub fn commit<E>(database: Option<&str>, commit: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let log = database.map(|file| PathBuf::from(format!("{file}-wal")));
    if let (Some(mut disk), Some(log)) = (unsynced(), log) {
        let synced = fs::metadata(&log).map_or(0, |meta| meta.len());
        disk.log = Some((log, synced));
    }
    reached();
    commit()?;
    reached();
    if let Some(mut disk) = unsynced() {
        disk.log = None;
    }
    Ok(())
}

/// Where a removed file stays until its removal is durable. No name of ours ends so.
fn kept(name: &Path) -> PathBuf {
    let mut kept = name.as_os_str().to_owned();
    kept.push(".removed");
    PathBuf::from(kept)
}

/// What is not durable yet.
#[derive(Default)]
struct Unsynced {
    /// By device and inode.
    bytes: HashMap<(u64, u64), Bytes>,
    made: BTreeSet<PathBuf>,
    removed: BTreeSet<PathBuf>,
    /// The log of the transaction that is being committed, and its length before.
    log: Option<(PathBuf, u64)>,
}

struct Bytes {
    file: File,
    unsynced: RangeSet<u64>,
    synced: RangeSet<u64>,
}

impl Bytes {
    fn writing(&mut self, range: Range<u64>) {
        for gap in self.synced.gaps(&range).collect::<Vec<_>>() {
            self.unsynced.insert(gap);
        }
    }
}

impl Unsynced {
    fn bytes_of(&mut self, file: &File) -> &mut Bytes {
        let meta = file.metadata().expect("an open file has metadata");
        self.bytes
            .entry((meta.dev(), meta.ino()))
            .or_insert_with(|| Bytes {
                file: file.try_clone().expect("there are file descriptors"),
                unsynced: RangeSet::new(),
                synced: (meta.len() > 0)
                    .then_some(0..meta.len())
                    .into_iter()
                    .collect(),
            })
    }

    fn cut(&mut self) {
        for bytes in self.bytes.values() {
            let size = bytes.file.metadata().map_or(0, |meta| meta.len());
            for range in bytes.unsynced.iter() {
                cut_bytes(&bytes.file, range.start..range.end.min(size));
                if range.end >= size && range.start < size && toss(3) == 0 {
                    let _ = bytes.file.set_len(range.start + toss(size - range.start));
                }
            }
        }
        for name in &self.made {
            if toss(2) == 0 {
                let _ = fs::remove_file(name);
            }
        }
        for name in &self.removed {
            if toss(2) == 0 && fs::symlink_metadata(name).is_err() {
                let _ = fs::rename(kept(name), name);
            }
        }
        if let Some((log, synced)) = &self.log
            && let Ok(file) = OpenOptions::new().write(true).open(log)
            && let Ok(meta) = file.metadata()
            && *synced < meta.len()
            && meta.len() < LOG_BYTES
        {
            let _ = file.set_len(synced + toss(meta.len() - synced));
        }
    }
}

fn cut_bytes(file: &File, range: Range<u64>) {
    let mut start = range.start;
    while start < range.end {
        let end = range.end.min((start + 1).next_multiple_of(PAGE));
        let length = usize::try_from(end - start).expect("at most a page");
        let _ = match toss(3) {
            0 => Ok(()),
            1 => file.write_all_at(&vec![0; length], start),
            _ => file.write_all_at(&vec![0xA5; length], start),
        };
        start = end;
    }
}

/// A number below `sides`.
fn toss(sides: u64) -> u64 {
    getrandom::u64().expect("the system has randomness") % sides.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_takes_only_what_was_not_synced() {
        let folder = tempfile::tempdir().unwrap();
        let name = |name: &str| folder.path().join(name);
        let mut disk = Unsynced::default();
        for round in 0..100 {
            let path = name(&round.to_string());
            fs::write(&path, [1; 10_000]).unwrap();
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            // Seen first when it was of 10,000 bytes, all synced.
            disk.bytes_of(&file).writing(5_000..30_000);
            file.write_all_at(&vec![2; 25_000], 5_000).unwrap();
        }
        disk.cut();
        let mut outcomes = BTreeSet::new();
        for round in 0..100 {
            let bytes = fs::read(name(&round.to_string())).unwrap();
            assert_eq!(bytes[..5_000], [1; 5_000]);
            assert_eq!(bytes[5_000..10_000], [2; 5_000]);
            outcomes.extend(bytes[10_000..].iter().copied());
            outcomes.extend((bytes.len() < 30_000).then_some(1));
        }
        assert_eq!(outcomes, BTreeSet::from([0, 1, 2, 0xA5]));
    }
}
