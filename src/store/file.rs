//! Files that are written at positions: what a folder store stages, and what the spool keeps.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::{Result, StoreError, disk};

/// Space is reserved this many bytes at a time, ahead of the writer.
const RESERVE_STEP_BYTES: u64 = 64 * 1024 * 1024;
/// For files that are shorter nothing is reserved.
pub(super) const RESERVED_FROM_BYTES: u64 = 4 * 1024 * 1024;

/// A file that several writers fill at positions of their own. All calls block; none moves a shared cursor.
pub trait StagedFile: Send + Sync {
    /// Writes the frames one after the other from `offset` on. After an error some of it may be written.
    fn write_at(&self, offset: u64, frames: &[Bytes]) -> Result<()>;

    /// Reads up to the buffer's length from `offset`; fewer bytes only at the end of the file. Returns how many.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Makes durable what was written, against a power cut.
    fn sync(&self) -> Result<()>;
}

/// A [`StagedFile`] on a local disk.
#[derive(Debug)]
pub struct LocalFile {
    file: File,
    /// How far space is reserved; 0: not known yet.
    reserved: AtomicU64,
    reserve: bool,
}

impl LocalFile {
    /// Over an open file. With `reserve`, space is reserved in bounded steps ahead of the writer, and the file's length may
    /// run ahead of its bytes until it is cut.
    #[must_use]
    pub fn new(file: File, reserve: bool) -> Self {
        Self {
            file,
            reserved: AtomicU64::new(0),
            reserve,
        }
    }

    fn reserve_up_to(&self, end: u64) {
        if !self.reserve || end < RESERVED_FROM_BYTES {
            return;
        }
        let mut reserved = self.reserved.load(Ordering::Acquire);
        if reserved == 0 {
            reserved = self.file.metadata().map_or(1, |meta| meta.len().max(1));
            self.reserved.store(reserved, Ordering::Release);
        }
        if end <= reserved {
            return;
        }
        let wanted = end.next_multiple_of(RESERVE_STEP_BYTES);
        if self
            .reserved
            .compare_exchange(reserved, wanted, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            // Only an advance payment: where the file system has no such call, or no room for the whole step, the write tells.
            let _ = rustix::fs::fallocate(
                &self.file,
                rustix::fs::FallocateFlags::KEEP_SIZE,
                reserved,
                wanted - reserved,
            );
        }
    }
}

impl StagedFile for LocalFile {
    fn write_at(&self, offset: u64, frames: &[Bytes]) -> Result<()> {
        let total: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        self.reserve_up_to(offset + total);
        disk::write_all_at(&self.file, frames, offset).map_err(io_error)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(error)),
            }
        }
        Ok(filled)
    }

    fn sync(&self) -> Result<()> {
        disk::sync_data(&self.file).map_err(io_error)
    }
}

/// What an error of the file system means to the caller.
#[must_use]
pub fn io_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full(error.into())
        }
        _ => StoreError::Unavailable(error.into()),
    }
}
