//! Where the bytes go: a folder or a bucket.
//!
//! Owns objects and what is staged for them. Knows nothing of keys, leases or protocols, and keeps no record: what is
//! there is found in [`crate::catalog`]. Every store can look at, read and delete objects ([`Store`]); how bytes get in
//! differs, and a store says which of two shapes it has: files that are written in place ([`InPlace`]) or parts that are
//! put whole ([`Parts`]).
//!
//! A call whose future is dropped has happened or not. Calls repeat what is safe to repeat by themselves, within their own
//! timeouts; [`StoreError`] tells the caller what to do next.

pub mod call;
pub mod check;
#[doc(hidden)]
pub mod conformance;
pub mod copy;
pub mod direct;
mod disk;
pub mod faulty;
pub mod file;
pub mod fs;
pub mod hooked;
pub mod measured;
pub mod payload;
pub mod s3;
pub mod tail;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::model::plan::MIN_PART_BYTES;
use crate::model::upload::{PartChecksum, StoreUploadId};
use crate::model::{
    ByteRange, Length, Offset, PartNumber, PartReceipt, StoreKey, Timestamp, UploadId,
};

pub use direct::Direct;
pub use file::StagedFile;
pub use payload::Payload;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot take or give anything now; trying later may work. It may have happened all the same.
    #[error("the store cannot be used now: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no room. Nothing acknowledged is lost; it works again when there is.
    #[error("the store has no room: {0}")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No such object, staged file or multipart upload.
    #[error("the store does not have it")]
    NotFound,
    /// Something else is there under this name.
    #[error("the store has something else under this name")]
    Taken,
    /// The bytes arrived changed, or the parts are not what was said of them. Sending them again may work.
    #[error("the store found the bytes changed: {0}")]
    Changed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store refuses for good: credentials, permissions, an option that it does not have. Only the operator can help.
    #[error("the store refuses: {0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Short for results of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What goes with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The upload that it belongs to, written with the object where the store can, so that it is recognised again.
    pub upload: UploadId,
    /// Its media type.
    pub content_type: Option<String>,
}

/// An object that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its size in bytes.
    pub size: Length,
    /// The store's tag for it, without quotes.
    pub etag: String,
    /// The upload that [`About`] named when it was made, where the store kept it.
    pub upload: Option<UploadId>,
}

/// An object that was just finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The store's tag for it, without quotes.
    pub etag: String,
    /// Whether the store checked all of its bytes against checksums that came with them.
    pub verified: bool,
}

/// An object that was just put whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The store's tag for it, without quotes.
    pub etag: String,
    /// The checksum that the store verified it with.
    pub checksum: Option<(PartChecksum, String)>,
}

/// What a multipart upload is made of. It is the same when the upload is begun and with each part that is put into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeOf {
    /// Parts that are put. A store may check the whole by their checksums.
    Parts,
    /// Parts without checksums. Copies of objects, and parts that are put between them: a store may want a checksum of every
    /// part, and yet give none for a copy, or take no copy where it would have to. And parts that others put, where the store
    /// takes none without a checksum beside those with one. The object has to be read back to be known.
    Unchecked,
}

/// A multipart upload that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMultipart {
    /// The key that it is for. Where the store's listing holds a name that is no safe key, it is another's and left out.
    pub key: StoreKey,
    /// The store's name for it.
    pub id: StoreUploadId,
    /// When it was begun, where the store tells.
    pub initiated: Option<Timestamp>,
}

/// The bytes of an object, in order.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// How bytes get into a store.
#[derive(Clone, Copy)]
pub enum Shape<'a> {
    /// Files that are written in place.
    InPlace(&'a dyn InPlace),
    /// Parts that are put whole.
    Parts(&'a dyn Parts),
}

/// What every store can do.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// How bytes get in.
    fn shape(&self) -> Shape<'_>;

    /// What it can do past the server, if it can.
    fn direct(&self) -> Option<&dyn Direct> {
        None
    }

    /// Looks at an object; `None` if there is none. A store that answers with a general "not found" for another reason
    /// (no such bucket) gives [`StoreError::Refused`] instead.
    async fn head(&self, key: &StoreKey) -> Result<Option<Found>>;

    /// Reads an object, or the given bytes of it. `NotFound` if there is none. A stream that breaks yields an error and ends.
    async fn read(&self, key: &StoreKey, range: Option<ByteRange>) -> Result<ByteStream>;

    /// Deletes an object. Repeatable: one that is not there is deleted.
    async fn delete(&self, key: &StoreKey) -> Result<()>;

    /// Whether the store answers at all, asked as cheaply as it can be.
    async fn ping(&self) -> Result<()>;

    /// Tries everything that the server needs, for real, with things of its own that it removes again.
    async fn check(&self) -> Vec<check::Finding>;
}

/// A store whose objects are files, written in place under the upload's name and then published under their key.
#[async_trait]
pub trait InPlace: Send + Sync {
    /// What is staged for an upload. Its file is made, if it is not there, by the first call on the handle, and
    /// [`StagedFile::sync`] makes its name durable, too. Repeatable; two handles of one upload write to the same bytes.
    async fn open(&self, id: UploadId) -> Result<std::sync::Arc<dyn StagedFile>>;

    /// Copies a whole object, which may be empty, into what is staged for an upload, from `at` on. Makes what is staged if it
    /// is not there. `NotFound` if there is no such object; `Changed` if it has another size than `size`, and then nothing is
    /// written.
    ///
    /// Not atomic: after an error some of it may be written. Repeatable: the same bytes rewrite themselves. One that is
    /// dropped half-way may go on for a while, beside whatever comes next. Nothing is durable before
    /// [`publish`](Self::publish).
    async fn copy_in(
        &self,
        id: UploadId,
        at: Offset,
        source: &StoreKey,
        size: Length,
    ) -> Result<()>;

    /// Gives what is staged its final name, cut to `size`. The bytes are durable before. Repeatable: if the name is
    /// this very file already, it is done; `Taken` if it is another one; `NotFound` if nothing is staged and the name is free.
    /// What is staged stays until [`discard`](Self::discard).
    async fn publish(&self, id: UploadId, key: &StoreKey, size: Length) -> Result<Stored>;

    /// Removes what is staged, not what was published. Repeatable.
    async fn discard(&self, id: UploadId) -> Result<()>;

    /// The uploads that something is staged for, whoever's they are.
    async fn staged(&self) -> Result<Vec<UploadId>>;

    /// How many bytes the disk below has left.
    async fn free_bytes(&self) -> Result<u64>;
}

/// A store that takes parts of a plan and puts them together.
#[async_trait]
pub trait Parts: Send + Sync {
    /// The size that all parts but the last have to share, if the store insists on equal parts.
    fn equal_parts(&self) -> bool;

    /// The smallest part that it takes, but for the last one of an upload, in bytes.
    fn min_part_bytes(&self) -> u64 {
        MIN_PART_BYTES
    }

    /// Puts a whole object, which may be empty. Repeatable: the same bytes replace themselves.
    async fn put(&self, key: &StoreKey, payload: Payload, about: &About) -> Result<Put>;

    /// Begins a multipart upload. Each call begins another one.
    async fn begin(&self, key: &StoreKey, about: &About, of: MadeOf) -> Result<StoreUploadId>;

    /// Puts one part; `range` says which bytes of the upload it holds. Repeatable: the last one to land counts, and its
    /// receipt is the one to finish with. `NotFound` if the multipart upload is gone (finished, aborted or lost).
    async fn put_part(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        number: PartNumber,
        range: ByteRange,
        payload: Payload,
        of: MadeOf,
    ) -> Result<PartReceipt>;

    /// Makes one part out of an object, on the store's side: of all of it, or of `source_range`. `range` says which bytes of
    /// the upload the part holds. The multipart upload was begun as [`MadeOf::Unchecked`].
    ///
    /// A range is given only where it is less than the object: stores refuse one of a small object. A part is never empty,
    /// has at most [`MAX_PART_BYTES`](crate::model::plan::MAX_PART_BYTES), and is as large as what it is made of; the store
    /// need not see if it is not.
    ///
    /// Repeatable: the last one to land counts, put or copied, and its receipt is the one to finish with. One that is dropped
    /// half-way may land. The receipt has no checksum: nobody has checked the copy but the store itself.
    ///
    /// `NotFound` if the multipart upload is gone, or if there is no such object: [`Store::head`] of the source tells which.
    /// `Refused` if the store does not copy, or not this: it is too small or too large, or the object has no such range.
    /// Then the caller reads the object and puts the part.
    async fn copy_part(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        number: PartNumber,
        range: ByteRange,
        source: &StoreKey,
        source_range: Option<ByteRange>,
    ) -> Result<PartReceipt>;

    /// Copies a whole object of `size` bytes, at most [`MAX_PART_BYTES`](crate::model::plan::MAX_PART_BYTES), to another key, on
    /// the store's side, with what goes with it now. `Taken` if something is there already, where the store looks; so look
    /// before, too. `NotFound` if there is no such source. Repeatable.
    async fn copy(
        &self,
        source: &StoreKey,
        size: Length,
        key: &StoreKey,
        about: &About,
    ) -> Result<Stored>;

    /// Puts the parts together, in the order given. `NotFound` if the multipart upload is gone: then look at the object. When
    /// it fails, what was put stays.
    async fn finish(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        parts: &[PartReceipt],
        size: Length,
    ) -> Result<Stored>;

    /// Ends a multipart upload and removes its parts. Repeatable: one that is gone is ended.
    async fn abort(&self, key: &StoreKey, upload: &StoreUploadId) -> Result<()>;

    /// Multipart uploads under exactly this key.
    async fn multipart_of(&self, key: &StoreKey) -> Result<Vec<FoundMultipart>>;

    /// All multipart uploads under the store's own prefix, whoever's they are, at most `limit` beginning after `after`, in the store's
    /// order.
    async fn multipart_uploads(
        &self,
        after: Option<&FoundMultipart>,
        limit: u32,
    ) -> Result<Vec<FoundMultipart>>;

    /// Removes what finding out what the store can do has left where it was disturbed, if it was begun before that time. Returns
    /// how many multipart uploads that were. Repeatable.
    async fn remove_probes(&self, before: Timestamp) -> Result<u64>;
}
