//! No failpoints.

use std::fs::File;
use std::io;
use std::path::Path;

/// A failpoint.
#[inline]
pub fn reached() {}

/// A stretch of a file is about to be written.
#[inline]
pub fn writing(_file: &File, _start: u64, _len: u64) {}

/// Syncs a file.
#[inline]
pub fn sync(_file: &File, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    sync()
}

/// A name is about to be made.
#[inline]
pub fn making(_name: &Path) {}

/// A name is about to be removed.
#[inline]
pub fn removing(_name: &Path) {}

/// Syncs a folder.
#[inline]
pub fn sync_folder(_folder: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    sync()
}

/// Commits a transaction of the database in this file.
#[inline]
pub fn commit<E>(_database: Option<&str>, commit: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    commit()
}
