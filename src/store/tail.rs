//! The tail: bytes that are here to stay but do not fill a part yet.
//!
//! One spool file a cell, named after the upload and the part number, written at positions like a staged object. So the
//! catalog need not record tails: a received byte is in its part if the part's receipt is there, else in its cell's file. A
//! file is removed only after the receipt of its part is committed, or after its upload has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::SharedFolder;
use super::file::{LocalFile, StagedFile, io_error};
use super::{Result, StoreError, disk};
use crate::model::{PartNumber, UploadId};

/// Kept aside, and let go when the disk is full, so that the catalog can commit what frees space.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
const RESERVE_NAME: &str = "reserve";

/// This node's spool folder. All calls that touch files block.
pub struct Spool {
    root: SharedFolder,
    max_bytes: u64,
    power: bool,
    cells: Mutex<Cells>,
}

#[derive(Default)]
struct Cells {
    bytes: BTreeMap<(UploadId, PartNumber), u64>,
    used: u64,
    /// Files whose names may not be durable yet.
    new: BTreeSet<(UploadId, PartNumber)>,
}

impl Spool {
    /// Opens the folder, making it if need be, and counts what is in it. With `power`, names and bytes are synced.
    pub fn open(root: &Path, max_bytes: u64, power: bool) -> Result<Self> {
        std::fs::create_dir_all(root).map_err(io_error)?;
        let mut cells = Cells::default();
        for entry in std::fs::read_dir(root).map_err(io_error)? {
            let entry = entry.map_err(io_error)?;
            if let Some(cell) = entry.file_name().to_str().and_then(parse_name) {
                let bytes = entry.metadata().map_err(io_error)?.len();
                cells.used += bytes;
                cells.bytes.insert(cell, bytes);
            }
        }
        if power {
            // The process that made them may have died before it synced their names.
            disk::sync_folder(root).map_err(io_error)?;
        }
        Ok(Self {
            root: SharedFolder::new(root.to_owned()),
            max_bytes,
            power,
            cells: Mutex::new(cells),
        })
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: UploadId, number: PartNumber) -> PathBuf {
        self.root.path().join(format!("{id}.{number}"))
    }

    /// Sets room aside for bytes of a cell that are about to be written; `false` if the spool is full. A cell takes no more
    /// room than its size, however often its bytes are written. The room is given back when the cell's file is removed.
    #[must_use]
    pub fn reserve(&self, id: UploadId, number: PartNumber, bytes: u64, cell_bytes: u64) -> bool {
        let mut cells = self.cells();
        let has = cells.bytes.get(&(id, number)).copied().unwrap_or(0);
        let bytes = bytes.min(cell_bytes.saturating_sub(has));
        if cells.used + bytes > self.max_bytes {
            return false;
        }
        cells.used += bytes;
        *cells.bytes.entry((id, number)).or_default() += bytes;
        true
    }

    /// The file of a cell, made if it is not there. Two handles write to the same bytes.
    pub fn open_cell(&self, id: UploadId, number: PartNumber) -> Result<Arc<dyn StagedFile>> {
        let path = self.path(id, number);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.cells().new.insert((id, number));
                options.create(true).truncate(false);
                disk::create(&options, &path).map_err(io_error)?
            }
            opened => opened.map_err(io_error)?,
        };
        // Though nothing may ever be reserved for it: whoever removes the upload has to find it.
        self.cells().bytes.entry((id, number)).or_default();
        // Whoever finds the file while another is still making it has to make its name durable, too.
        if self.power && self.cells().new.contains(&(id, number)) {
            self.root.sync().map_err(io_error)?;
            self.cells().new.remove(&(id, number));
        }
        Ok(Arc::new(LocalFile::new(file, false)))
    }

    /// The file of a cell that was written to; `NotFound` if it is not there.
    pub fn existing_cell(&self, id: UploadId, number: PartNumber) -> Result<Arc<dyn StagedFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(id, number))
            .map_err(io_error)?;
        Ok(Arc::new(LocalFile::new(file, false)))
    }

    /// Removes a cell's file and gives its room back. Repeatable.
    pub fn remove_cell(&self, id: UploadId, number: PartNumber) -> Result<()> {
        // Taken out first: one that is opened anew meanwhile is put in again.
        let bytes = self.cells().bytes.remove(&(id, number));
        let removed = match disk::remove_file(&self.path(id, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(error)),
            _ => Ok(()),
        };
        let mut cells = self.cells();
        cells.new.remove(&(id, number));
        match (bytes, &removed) {
            (Some(bytes), Ok(())) => cells.used -= bytes,
            (Some(bytes), Err(_)) => *cells.bytes.entry((id, number)).or_default() += bytes,
            (None, _) => {}
        }
        removed
    }

    /// Whether there is anything of an upload.
    #[must_use]
    pub fn has_any_of(&self, id: UploadId) -> bool {
        self.cells().bytes.range(cells_of(id)).next().is_some()
    }

    /// Removes everything of one upload; returns how many files. Repeatable.
    pub fn remove_upload(&self, id: UploadId) -> Result<u64> {
        let numbers: Vec<PartNumber> = {
            let cells = self.cells();
            let all = cells.bytes.range(cells_of(id));
            all.map(|((_, number), _)| *number).collect()
        };
        for number in &numbers {
            self.remove_cell(id, *number)?;
        }
        Ok(numbers.len() as u64)
    }

    /// The uploads that have something here.
    #[must_use]
    pub fn uploads(&self) -> Vec<UploadId> {
        let mut ids: Vec<UploadId> = self.cells().bytes.keys().map(|(id, _)| *id).collect();
        ids.dedup();
        ids
    }

    /// How many bytes are in use.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.cells().used
    }

    /// How many bytes the disk below has left.
    pub fn free_bytes(&self) -> Result<u64> {
        free_bytes(self.root.path())
    }

    /// Keeps the reserve file where there is room for it, and lets it go where there is none.
    pub fn keep_reserve(&self) -> Result<()> {
        let path = self.root.path().join(RESERVE_NAME);
        let there = path.try_exists().map_err(io_error)?;
        let free = self.free_bytes()?;
        if there && free < RESERVE_BYTES {
            std::fs::remove_file(&path).map_err(io_error)?;
        } else if !there && free > 4 * RESERVE_BYTES {
            let file = File::create(&path).map_err(io_error)?;
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES)
                .map_err(|error| io_error(error.into()))?;
        }
        Ok(())
    }
}

/// How many bytes the disk under a path has left for us.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path).map_err(|error| io_error(error.into()))?;
    stat.f_bavail
        .checked_mul(stat.f_frsize)
        .ok_or_else(|| StoreError::Unavailable("the disk's size is not believable".into()))
}

fn cells_of(id: UploadId) -> std::ops::RangeInclusive<(UploadId, PartNumber)> {
    (id, PartNumber(0))..=(id, PartNumber(u32::MAX))
}

fn parse_name(name: &str) -> Option<(UploadId, PartNumber)> {
    let (id, number) = name.split_once('.')?;
    Some((id.parse().ok()?, PartNumber(number.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const ONE: PartNumber = PartNumber(1);

    #[test]
    fn bounded_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), 10, true).unwrap();
        let id = UploadId::generate();
        assert!(spool.reserve(id, ONE, 6, 8));
        assert!(!spool.reserve(id, PartNumber(2), 6, 8));
        for _ in 0..3 {
            assert!(spool.reserve(id, ONE, 6, 8));
        }
        assert_eq!(spool.used_bytes(), 8);
        spool
            .open_cell(id, ONE)
            .unwrap()
            .write_at(0, &[Bytes::from_static(b"abcdef")])
            .unwrap();
        assert_eq!(spool.uploads(), [id]);
        assert_eq!(spool.remove_upload(id).unwrap(), 1);
        assert_eq!(spool.used_bytes(), 0);
        assert!(spool.reserve(id, PartNumber(2), 6, 8));
    }

    #[test]
    fn bounded_a_file_that_there_was_no_room_for_is_removed_too() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), 10, false).unwrap();
        let id = UploadId::generate();
        spool.open_cell(id, ONE).unwrap();
        assert!(!spool.reserve(id, ONE, 11, 100));
        assert_eq!(spool.uploads(), [id]);
        assert_eq!(spool.remove_upload(id).unwrap(), 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(spool.uploads(), []);
    }

    #[test]
    fn never_back_what_was_spooled_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let id = UploadId::generate();
        {
            let spool = Spool::open(folder.path(), 100, true).unwrap();
            assert!(spool.reserve(id, ONE, 6, 8));
            spool
                .open_cell(id, ONE)
                .unwrap()
                .write_at(2, &[Bytes::from_static(b"cdef")])
                .unwrap();
        }
        let spool = Spool::open(folder.path(), 100, true).unwrap();
        assert_eq!((spool.uploads(), spool.used_bytes()), (vec![id], 6));
        let mut buffer = [0; 4];
        assert_eq!(
            spool
                .existing_cell(id, ONE)
                .unwrap()
                .read_at(2, &mut buffer)
                .unwrap(),
            4
        );
        assert_eq!(&buffer, b"cdef");
        assert!(matches!(
            spool.existing_cell(id, PartNumber(2)),
            Err(StoreError::NotFound)
        ));
    }

    #[test]
    fn the_reserve_is_no_upload() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), 100, false).unwrap();
        spool.keep_reserve().unwrap();
        assert!(folder.path().join(RESERVE_NAME).exists());
        assert_eq!(
            Spool::open(folder.path(), 100, false).unwrap().used_bytes(),
            0
        );
    }
}
