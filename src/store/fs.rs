//! A folder: what is staged is written in place, what is finished is a hard link to it.
//!
//! Owns two folders under one root: `staging/<upload id>` and `objects/<key>`. They are on one file system, so that an
//! object gets its name without a copy, and gets it only if nobody has it. Keys cannot name anything outside (they are safe
//! by construction), and a symbolic link inside `objects/` is never followed.

mod staged;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;

use self::staged::OpenedLater;
use super::check::{Finding, Outcome};
use super::disk::SharedFolder;
use super::file::{LocalFile, RESERVED_FROM_BYTES, StagedFile, io_error};
use super::{ByteStream, Found, InPlace, Payload, Result, Shape, Store, StoreError, Stored, disk};
use crate::model::{ByteRange, Length, Offset, StoreKey, UploadId};

/// Objects in a folder of a local disk.
#[derive(Debug, Clone)]
pub struct FsStore(Arc<Folders>);

#[derive(Debug)]
struct Folders {
    staging: SharedFolder,
    objects: SharedFolder,
    power: bool,
}

impl FsStore {
    /// Over the folder `root`, which is made if it is not there. With `durability_power`, names and bytes are synced, so that
    /// what a call has answered survives a power cut.
    ///
    /// Blocks: call it at the start.
    pub fn open(root: &Path, durability_power: bool) -> Result<Self> {
        let folders = Folders {
            staging: SharedFolder::new(root.join("staging")),
            objects: SharedFolder::new(root.join("objects")),
            power: durability_power,
        };
        for folder in [&folders.staging, &folders.objects] {
            fs::create_dir_all(folder.path()).map_err(away)?;
        }
        folders.sync_folder(root)?;
        Ok(Self(Arc::new(folders)))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Folders) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let folders = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || call(&folders))
            .await
            .map_err(|error| StoreError::Unavailable(error.into()))?
    }
}

impl Folders {
    fn staged(&self, id: UploadId) -> PathBuf {
        self.staging.path().join(id.to_string())
    }

    /// Where a key's file is or would be. `NotFound` if one of its folders is not there or is no folder.
    fn object(&self, key: &StoreKey) -> Result<PathBuf> {
        let path = self.objects.path().join(key.as_str());
        for folder in self.folders_of(&path) {
            match fs::symlink_metadata(folder) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Err(StoreError::NotFound),
                Err(error) => return Err(self.absent(error)),
            }
        }
        Ok(path)
    }

    /// The folders between `objects/` and the file, the innermost first.
    fn folders_of<'a>(&self, path: &'a Path) -> impl Iterator<Item = &'a Path> + use<'a> {
        let top = self.objects.path().to_owned();
        path.ancestors()
            .skip(1)
            .take_while(move |folder| *folder != top)
    }

    /// A missing file says something only while the folder of all files is there.
    fn absent(&self, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                if self.objects.path().is_dir() =>
            {
                StoreError::NotFound
            }
            _ => away(error),
        }
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        if self.power {
            disk::sync_folder(folder).map_err(away)?;
        }
        Ok(())
    }

    fn sync_shared(&self, folder: &SharedFolder) -> Result<()> {
        if self.power {
            folder.sync().map_err(away)?;
        }
        Ok(())
    }

    fn open_staged(&self, id: UploadId) -> Result<File> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(NO_FOLLOW);
        disk::create(&options, &self.staged(id)).map_err(away)
    }

    /// An object's file and its size.
    fn open_object(&self, key: &StoreKey) -> Result<(File, u64)> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(NO_FOLLOW)
            .open(self.object(key)?)
            .map_err(|error| self.absent(error))?;
        let meta = file.metadata().map_err(away)?;
        if !meta.is_file() {
            return Err(StoreError::NotFound);
        }
        Ok((file, meta.len()))
    }

    fn head(&self, key: &StoreKey) -> Result<Option<Found>> {
        let found = self
            .object(key)
            .and_then(|path| fs::symlink_metadata(path).map_err(|error| self.absent(error)));
        match found {
            Ok(meta) if meta.is_file() => {
                let upload = id_in(key);
                Ok(Some(Found {
                    size: Length(meta.len()),
                    etag: upload.map_or_else(|| format!("{:x}", meta.ino()), etag),
                    upload,
                }))
            }
            Ok(_) | Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, key: &StoreKey, range: Option<ByteRange>) -> Result<Option<Payload>> {
        let (file, size) = self.open_object(key)?;
        Ok(range
            .or_else(|| ByteRange::new(0, size))
            .map(|range| Payload::File {
                file: Arc::new(LocalFile::new(file, false)),
                range,
            }))
    }

    /// Copies a stretch of an object of `size` bytes from `done` on; returns how far it got.
    fn copy_stretch(
        &self,
        id: UploadId,
        at: Offset,
        source: &StoreKey,
        size: Length,
        done: u64,
    ) -> Result<u64> {
        let (mut from, there) = self.open_object(source)?;
        let differs = |bytes: u64| {
            StoreError::Changed(format!("{source} has {bytes} bytes, not {size}").into())
        };
        if there != size.get() {
            return Err(differs(there));
        }
        let mut to = self.open_staged(id)?;
        from.seek(SeekFrom::Start(done)).map_err(io_error)?;
        to.seek(SeekFrom::Start(at.get() + done))
            .map_err(io_error)?;
        let stretch = COPY_BYTES.min(there - done);
        // Of two files this is done inside the kernel, where the file system can.
        let copied = disk::copy(&mut from.take(stretch), &mut to, at.get() + done, stretch)
            .map_err(io_error)?;
        if self.power {
            // Else publishing would have all of it to sync in one go.
            disk::sync_data(&to).map_err(io_error)?;
            // Also where the file was there: the process that made it may have died before it synced the name.
            self.sync_shared(&self.staging)?;
        }
        if copied == stretch {
            Ok(done + copied)
        } else {
            Err(differs(done + copied))
        }
    }

    fn publish(&self, id: UploadId, key: &StoreKey, size: Length) -> Result<Stored> {
        let name = self.objects.path().join(key.as_str());
        let staged = self.staged(id);
        let meta = match fs::symlink_metadata(&staged) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Err(StoreError::Refused("what is staged is no file".into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match self.head(key)? {
                    Some(_) => Err(StoreError::Taken),
                    None => Err(StoreError::NotFound),
                };
            }
            Err(error) => return Err(away(error)),
        };
        if meta.len() < size.get() {
            // Making it longer would put zeros where bytes are missing.
            let error = format!("{} bytes are staged of {size}", meta.len());
            return Err(StoreError::Changed(error.into()));
        }
        if meta.len() >= RESERVED_FROM_BYTES || meta.len() != size.get() {
            self.cut(&staged, &meta, size)?;
        }
        if let Some(folder) = self.folders_of(&name).next() {
            fs::create_dir_all(folder).map_err(taken_or_away)?;
            self.object(key).map_err(|error| match error {
                StoreError::NotFound => StoreError::Taken,
                error => error,
            })?;
        }
        match disk::hard_link(&staged, &name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = fs::symlink_metadata(&name).map_err(away)?;
                if (there.dev(), there.ino()) != (meta.dev(), meta.ino()) {
                    return Err(StoreError::Taken);
                }
            }
            Err(error) => return Err(taken_or_away(error)),
        }
        for folder in self.folders_of(&name) {
            self.sync_folder(folder)?;
        }
        self.sync_shared(&self.objects)?;
        Ok(Stored {
            etag: etag(id),
            verified: true,
        })
    }

    /// Cuts what is staged to its size, and gives back what was reserved beyond it.
    fn cut(&self, staged: &Path, meta: &fs::Metadata, size: Length) -> Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(NO_FOLLOW)
            .open(staged)
            .map_err(away)?;
        disk::set_len(&file, size.get()).map_err(io_error)?;
        // What was acknowledged is synced; cut, it has to stay so.
        if self.power && meta.len() != size.get() {
            disk::sync_all(&file).map_err(io_error)?;
        }
        Ok(())
    }

    fn delete(&self, key: &StoreKey) -> Result<()> {
        let path = match self.object(key) {
            Ok(path) => path,
            Err(StoreError::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        match disk::remove_file(&path).map_err(|error| self.absent(error)) {
            Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => path.parent().map_or(Ok(()), |dir| self.sync_folder(dir)),
        }
    }

    /// Not synced: a file that a power cut brings back is found by [`InPlace::staged`] and removed again.
    fn discard(&self, id: UploadId) -> Result<()> {
        match disk::remove_file(&self.staged(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(away(error)),
            _ => Ok(()),
        }
    }

    fn list_staged(&self) -> Result<Vec<UploadId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.staging.path()).map_err(away)? {
            let name = entry.map_err(away)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<UploadId>().ok()));
        }
        Ok(ids)
    }

    fn ping(&self) -> Result<()> {
        for folder in [&self.staging, &self.objects] {
            let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            rustix::fs::access(folder.path(), wanted).map_err(|error| away(error.into()))?;
        }
        Ok(())
    }

    fn check(&self) -> Vec<Finding> {
        let id = UploadId::generate();
        let other = UploadId::generate();
        let key: StoreKey = format!("jumar-check-{id}")
            .parse()
            .expect("letters, digits and hyphens are a safe key");
        let trials: [(&'static str, Trial<'_>); 4] = [
            ("write, sync and read back", &|| {
                let file = LocalFile::new(self.open_staged(id)?, true);
                file.write_at(0, &[Bytes::from_static(CHECK_TEXT)])?;
                file.sync()?;
                let mut back = [0; CHECK_TEXT.len()];
                if file.read_at(0, &mut back)? == back.len() && back == CHECK_TEXT {
                    Ok(self.staging.path().display().to_string())
                } else {
                    Err(StoreError::Changed(
                        "what was read is not what was written".into(),
                    ))
                }
            }),
            ("publish under a key", &|| {
                self.publish(id, &key, Length(CHECK_TEXT.len() as u64))?;
                Ok(String::from("by a hard link"))
            }),
            ("refuse a key that is taken", &|| {
                self.open_staged(other)?;
                match self.publish(other, &key, Length(0)) {
                    Err(StoreError::Taken) => Ok(String::new()),
                    Err(error) => Err(error),
                    Ok(_) => Err(StoreError::Refused("a link replaced another file".into())),
                }
            }),
            ("free space", &|| {
                let free = rustix::fs::statvfs(self.staging.path()).map_err(|e| away(e.into()))?;
                let mib = free.f_bavail.saturating_mul(free.f_frsize) / (1024 * 1024);
                Ok(format!("{mib} MiB"))
            }),
        ];
        let mut findings: Vec<Finding> = trials
            .iter()
            .map(|(what, trial)| Finding {
                what,
                outcome: outcome(trial()),
            })
            .collect();
        let removed = self
            .delete(&key)
            .and_then(|()| self.discard(id))
            .and_then(|()| self.discard(other));
        findings.push(Finding {
            what: "delete",
            outcome: outcome(removed.map(|()| String::new())),
        });
        findings
    }
}

type Trial<'a> = &'a dyn Fn() -> Result<String>;

/// `O_NOFOLLOW` and `O_CLOEXEC` as the standard library takes them.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// How much is copied in one go, so that no thread is busy with it for long.
const COPY_BYTES: u64 = 64 * 1024 * 1024;

const CHECK_TEXT: &[u8] = b"jumar was here";

fn outcome(result: Result<String>) -> Outcome {
    match result {
        Ok(how) => Outcome::Works(how),
        Err(error) => Outcome::Broken(format!("{error}; see store.fs.path")),
    }
}

/// The tag of an object: its upload's id. An upload's bytes never change once they are published.
fn etag(id: UploadId) -> String {
    hex::encode(id.as_bytes())
}

/// The upload that a key names, if it names one: the id is part of every key that the server makes.
fn id_in(key: &StoreKey) -> Option<UploadId> {
    let text = key.as_str();
    (0..text.len())
        .rev()
        .filter_map(|start| text.get(start..start.checked_add(36)?))
        .find_map(|candidate| candidate.parse().ok())
}

/// An error of the folder itself: it says nothing about what is in it.
fn away(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::Unavailable(error.into()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
            StoreError::Refused(error.into())
        }
        _ => io_error(error),
    }
}

fn taken_or_away(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => StoreError::Taken,
        _ => away(error),
    }
}

#[async_trait]
impl Store for FsStore {
    fn shape(&self) -> Shape<'_> {
        Shape::InPlace(self)
    }

    async fn head(&self, key: &StoreKey) -> Result<Option<Found>> {
        let key = key.clone();
        self.blocking(move |folders| folders.head(&key)).await
    }

    async fn read(&self, key: &StoreKey, range: Option<ByteRange>) -> Result<ByteStream> {
        let key = key.clone();
        let payload = self
            .blocking(move |folders| folders.read(&key, range))
            .await?;
        Ok(payload.map_or_else(
            || futures_util::stream::empty().boxed(),
            |payload| payload.stream(),
        ))
    }

    async fn delete(&self, key: &StoreKey) -> Result<()> {
        let key = key.clone();
        self.blocking(move |folders| folders.delete(&key)).await
    }

    async fn ping(&self) -> Result<()> {
        self.blocking(Folders::ping).await
    }

    async fn check(&self) -> Vec<Finding> {
        let findings = self.blocking(|folders| Ok(folders.check())).await;
        findings.unwrap_or_default()
    }
}

#[async_trait]
impl InPlace for FsStore {
    async fn open(&self, id: UploadId) -> Result<Arc<dyn StagedFile>> {
        Ok(Arc::new(OpenedLater::new(Arc::clone(&self.0), id)))
    }

    async fn copy_in(
        &self,
        id: UploadId,
        at: Offset,
        source: &StoreKey,
        size: Length,
    ) -> Result<()> {
        let mut done = 0;
        loop {
            let source = source.clone();
            let copied = move |folders: &Folders| folders.copy_stretch(id, at, &source, size, done);
            done = self.blocking(copied).await?;
            if done == size.get() {
                return Ok(());
            }
        }
    }

    async fn publish(&self, id: UploadId, key: &StoreKey, size: Length) -> Result<Stored> {
        let key = key.clone();
        self.blocking(move |folders| folders.publish(id, &key, size))
            .await
    }

    async fn discard(&self, id: UploadId) -> Result<()> {
        self.blocking(move |folders| folders.discard(id)).await
    }

    async fn staged(&self) -> Result<Vec<UploadId>> {
        self.blocking(Folders::list_staged).await
    }

    async fn free_bytes(&self) -> Result<u64> {
        self.blocking(|folders| super::tail::free_bytes(folders.objects.path()))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_inside_the_folder_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), b"secret").unwrap();
        let store = FsStore::open(root.path(), false).unwrap();
        let objects = root.path().join("objects");
        std::os::unix::fs::symlink(outside.path(), objects.join("folder")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), objects.join("file")).unwrap();
        for key in ["folder/secret", "file"] {
            let key: StoreKey = key.parse().unwrap();
            assert_eq!(store.head(&key).await.unwrap(), None);
            assert!(store.read(&key, None).await.is_err());
            let id = UploadId::generate();
            let copied = store.copy_in(id, Offset(0), &key, Length(6)).await;
            assert!(copied.is_err());
            let file = InPlace::open(&store, id).await.unwrap();
            file.write_at(0, &[]).unwrap();
            let refused = store.publish(id, &key, Length(0)).await;
            assert!(matches!(refused, Err(StoreError::Taken)), "{refused:?}");
        }
        store
            .delete(&"folder/secret".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    }

    #[tokio::test]
    async fn a_folder_that_went_away_proves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = FsStore::open(&root.path().join("data"), false).unwrap();
        fs::remove_dir_all(root.path().join("data")).unwrap();
        let key: StoreKey = "key".parse().unwrap();
        assert!(matches!(
            store.head(&key).await,
            Err(StoreError::Unavailable(_))
        ));
        assert!(matches!(
            store.delete(&key).await,
            Err(StoreError::Unavailable(_))
        ));
        let copied = store.copy_in(UploadId::generate(), Offset(0), &key, Length(0));
        assert!(matches!(copied.await, Err(StoreError::Unavailable(_))));
        assert!(store.ping().await.is_err());
    }

    #[tokio::test]
    async fn space_that_was_reserved_and_not_needed_is_given_back() {
        let root = tempfile::tempdir().unwrap();
        let store = FsStore::open(root.path(), false).unwrap();
        let id = UploadId::generate();
        let file = InPlace::open(&store, id).await.unwrap();
        let bytes = bytes::Bytes::from(vec![1; 5 << 20]);
        file.write_at(0, std::slice::from_ref(&bytes)).unwrap();
        let size = Length(bytes.len() as u64);
        let key: StoreKey = "key".parse().unwrap();
        store.publish(id, &key, size).await.unwrap();
        let meta = fs::metadata(root.path().join("objects/key")).unwrap();
        assert_eq!(meta.len(), size.get());
        assert!(
            meta.blocks() * 512 < 6 << 20,
            "{} bytes are taken",
            meta.blocks() * 512
        );
    }

    #[tokio::test]
    async fn exact_bytes_a_short_file_is_not_filled_with_zeros() {
        let root = tempfile::tempdir().unwrap();
        let store = FsStore::open(root.path(), true).unwrap();
        let id = UploadId::generate();
        let file = InPlace::open(&store, id).await.unwrap();
        file.write_at(0, &[bytes::Bytes::from_static(b"123")])
            .unwrap();
        let key: StoreKey = "key".parse().unwrap();
        let refused = store.publish(id, &key, Length(4)).await;
        assert!(
            matches!(refused, Err(StoreError::Changed(_))),
            "{refused:?}"
        );
        assert_eq!(store.head(&key).await.unwrap(), None);
    }
}
