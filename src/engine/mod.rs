//! What happens to uploads: creating, writing, telling, completing, aborting, pruning.
//!
//! Knows uploads; knows no HTTP, SQL or S3. A protocol turns a request into one of the commands here and an outcome or an
//! [`EngineError`] into its own kind of answer.

mod error;
pub mod hasher;
mod settings;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::model::digest::Digests;
use crate::model::upload::{Declared, Protocol};
use crate::model::{
    ByteRange, Length, Object, Offset, RangeSet, Timestamp, Upload, UploadId, UploadKey,
};
use crate::store::{ByteStream, Store};

pub use error::{BodyError, EngineError};
pub use settings::{Durability, Settings};

/// Short for results of the engine.
pub type Result<T> = std::result::Result<T, EngineError>;

/// The bytes of a request, as they come. The engine does the waiting, so it also watches for a stall.
pub type Body = Pin<Box<dyn Stream<Item = std::result::Result<Bytes, BodyError>> + Send>>;

/// Creates an upload.
#[derive(Debug, Clone)]
pub struct Create {
    /// The protocol that asks.
    pub protocol: Protocol,
    /// What is declared of the file.
    pub declared: Declared,
    /// Its length, if known.
    pub length: Option<Length>,
    /// Makes the creation repeatable: the caller's scope and the key it sent.
    pub idempotency: Option<IdempotencyKey>,
}

/// What makes a creation repeatable.
#[derive(Clone)]
pub struct IdempotencyKey {
    /// Whose key it is; the same key of another caller is another key.
    pub scope: String,
    /// As the client sent it. A secret: it hands out the upload's key.
    pub key: String,
}

/// An upload that was created, with the key that opens it. The key is shown this once.
#[derive(Debug, Clone)]
pub struct Created {
    /// The upload.
    pub upload: Upload,
    /// Its key.
    pub key: UploadKey,
}

/// Asks to write bytes to an upload.
#[derive(Debug, Clone)]
pub struct Write {
    /// Which upload.
    pub id: UploadId,
    /// The key that opens it.
    pub key: UploadKey,
    /// Where the body's first byte belongs.
    pub start: Offset,
    /// Where the byte after the body's last belongs, if that is known.
    pub end: Option<Offset>,
    /// The upload's length, if the request tells it.
    pub length: Option<Length>,
    /// What the body has to hash to. It counts whole or not at all then.
    pub digests: Digests,
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// How far the upload reaches without a hole.
    pub offset: Offset,
    /// When it expires, unless bytes arrive.
    pub expires_at: Timestamp,
}

/// What is known of an upload.
#[derive(Debug, Clone)]
pub struct Status {
    /// The upload.
    pub upload: Upload,
    /// The bytes that are there, durably.
    pub received: RangeSet,
}

/// Asks to complete an upload.
#[derive(Debug, Clone)]
pub struct Complete {
    /// Which upload.
    pub id: UploadId,
    /// The key that opens it.
    pub key: UploadKey,
    /// Digests of the whole, beside those declared at creation.
    pub digests: Digests,
    /// The upload's length, if the request tells it.
    pub length: Option<Length>,
}

/// What completing came to.
#[derive(Debug, Clone)]
pub enum Completion {
    /// The object is there.
    Done {
        /// The upload, in its state `completed`.
        upload: Upload,
        /// The object.
        object: Object,
        /// Whether it had been completed before this call.
        repeated: bool,
    },
    /// It is being made; ask again.
    Working {
        /// After how long to ask.
        retry_after: Duration,
    },
}

impl std::fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

/// Whether the server can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether the catalog can be written.
    pub catalog: bool,
    /// Whether the store answers. Without it uploads go on as far as the spool reaches.
    pub store: bool,
}

/// What a round of pruning did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct PruneReport {
    /// Uploads that became expired.
    pub expired: u64,
    /// Records of ended uploads that were removed.
    pub purged: u64,
    /// Ended uploads whose leftovers in the store were removed.
    pub swept: u64,
    /// Multipart uploads that were aborted.
    pub multipart_aborted: u64,
    /// Staged and spooled files that were removed.
    pub files_removed: u64,
    /// Multipart uploads that are not ours and were left alone.
    pub foreign: u64,
    /// Things that could not be done this time; the log says why.
    pub failed: u64,
}

/// The engine: one a process, shared by everything that serves. Cloning is cheap.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Arc<dyn Catalog>,
    store: Arc<dyn Store>,
    clock: Clock,
    settings: Settings,
}

/// A write that may begin: its range is leased, and nothing of the body was asked for yet.
pub struct Admission {}

impl Admission {
    /// Takes the body. The writing goes on to its end in a task of its own if this future is dropped.
    pub async fn run(self, body: Body) -> Result<Written> {
        todo!()
    }
}

impl Engine {
    /// Over a catalog and a store.
    pub async fn start(
        catalog: Arc<dyn Catalog>,
        store: Arc<dyn Store>,
        clock: Clock,
        settings: Settings,
    ) -> Result<Self> {
        todo!()
    }

    /// Creates an upload.
    pub async fn create(&self, create: Create) -> Result<Created> {
        todo!()
    }

    /// Checks everything that needs no body, and takes the range: whoever is in its way is displaced.
    pub async fn admit(&self, write: Write) -> Result<Admission> {
        todo!()
    }

    /// Ends every writer of the upload, fixes its length if one is told, and says how far it got.
    pub async fn displace(
        &self,
        id: UploadId,
        key: &UploadKey,
        length: Option<Length>,
    ) -> Result<Written> {
        todo!()
    }

    /// What is known. Live writers commit what they have first, and go on.
    pub async fn status(&self, id: UploadId, key: &UploadKey) -> Result<Status> {
        todo!()
    }

    /// Makes the object. Repeatable.
    pub async fn complete(&self, complete: Complete) -> Result<Completion> {
        todo!()
    }

    /// Ends an upload; all it left is removed. Repeatable.
    pub async fn abort(&self, id: UploadId, key: &UploadKey) -> Result<()> {
        todo!()
    }

    /// The object of a completed upload.
    pub async fn content(&self, id: UploadId, key: &UploadKey) -> Result<(Upload, Object)> {
        todo!()
    }

    /// The bytes of an object, or a stretch of them.
    pub async fn read(&self, object: &Object, range: Option<ByteRange>) -> Result<ByteStream> {
        todo!()
    }

    /// One round of cleaning up.
    pub async fn prune(&self, dry_run: bool) -> Result<PruneReport> {
        todo!()
    }

    /// Goes on with completions that nobody works on.
    pub async fn recover(&self) -> Result<()> {
        todo!()
    }

    /// Whether the server can do its work.
    pub async fn ready(&self) -> Readiness {
        todo!()
    }

    /// How many uploads are open, from the catalog.
    pub async fn open_uploads(&self) -> Result<u64> {
        todo!()
    }

    /// Cuts every body, saves what came of it and commits it. For the end of a drain.
    pub async fn stop(&self) {
        todo!()
    }
}
