//! The handle of a staged file.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Folders;
use crate::model::UploadId;
use crate::store::Result;
use crate::store::file::{LocalFile, StagedFile};

/// What is staged for an upload, opened by its first call: calls block, and asking for a handle does not.
pub(super) struct OpenedLater {
    folders: Arc<Folders>,
    id: UploadId,
    file: OnceLock<LocalFile>,
    /// Its name is durable.
    named: AtomicBool,
}

impl OpenedLater {
    pub(super) fn new(folders: Arc<Folders>, id: UploadId) -> Self {
        Self {
            folders,
            id,
            file: OnceLock::new(),
            named: AtomicBool::new(false),
        }
    }

    fn file(&self) -> Result<&LocalFile> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = LocalFile::new(self.folders.open_staged(self.id)?, true);
        Ok(self.file.get_or_init(|| file))
    }
}

impl StagedFile for OpenedLater {
    fn write_at(&self, offset: u64, frames: &[Bytes]) -> Result<()> {
        self.file()?.write_at(offset, frames)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file()?.read_at(offset, buffer)
    }

    fn sync(&self) -> Result<()> {
        self.file()?.sync()?;
        if !self.named.load(Ordering::Acquire) {
            // Also where the file was there: the process that made it may have died before it synced the name.
            self.folders.sync_shared(&self.folders.staging)?;
            self.named.store(true, Ordering::Release);
        }
        Ok(())
    }
}
