//! An upload: what was declared about it, what is known of it, and the states it goes through.
//!
//! `pending → uploading → assembling → completed`, or `failed`, `aborted`, `expired`. The states carry what only they
//! have; the catalog turns one into the next by compare-and-set.

use std::collections::BTreeMap;
use std::fmt;

use super::caller::SpaceName;
use super::digest::Digests;
use super::handle::{KeyHash, UploadId};
use super::key::StoreKey;
use super::plan::{PartNumber, Plan};
use super::quota::UploadOwner;
use super::range::{ByteRange, Length, Offset, RangeSet};
use super::time::Timestamp;

/// Counts who may write to an upload: each process that takes it over adds one, and a commit under another number fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The protocol that an upload came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Sessions and Content-Range, `/v1/uploads`.
    Native,
    /// tus 1.0.0, `/files`.
    Tus,
    /// The IETF's resumable uploads, `/resumable`.
    Ietf,
    /// What Uppy's S3 plugin speaks, `/s3`.
    S3,
    /// A file in one request, `/v1/objects`.
    Objects,
}

impl Protocol {
    /// Its name in the catalog, the log and the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tus => "tus",
            Self::Ietf => "ietf",
            Self::S3 => "s3",
            Self::Objects => "objects",
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = UnknownWord;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "native" => Ok(Self::Native),
            "tus" => Ok(Self::Tus),
            "ietf" => Ok(Self::Ietf),
            "s3" => Ok(Self::S3),
            "objects" => Ok(Self::Objects),
            _ => Err(UnknownWord(name.to_owned())),
        }
    }
}

/// What an upload is for. Partial ones are the parts that a final one is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// A file.
    #[default]
    Whole,
    /// A stretch of a file. Its object has a key of its own among what is staged, causes no event, and goes when the
    /// upload expires.
    Partial,
    /// A file that takes no bytes: it is put together from partial uploads once all of them are complete.
    Final,
}

impl Role {
    /// Its name in the catalog.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partial => "partial",
            Self::Final => "final",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownWord;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "whole" => Ok(Self::Whole),
            "partial" => Ok(Self::Partial),
            "final" => Ok(Self::Final),
            _ => Err(UnknownWord(name.to_owned())),
        }
    }
}

/// A word in the catalog that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a word that this version knows")]
pub struct UnknownWord(pub String);

/// What a client declares about a file when it creates an upload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declared {
    /// The file's name: data, never a path.
    pub filename: Option<String>,
    /// The media type to answer content with.
    pub content_type: Option<String>,
    /// The application's own words.
    pub metadata: BTreeMap<String, String>,
    /// The metadata as the client wrote it, where its protocol gives it back to the letter.
    pub metadata_field: Option<String>,
    /// What the whole has to hash to.
    pub digests: Digests,
    /// Whether a chunk that leaves a hole before it is refused.
    pub sequential: bool,
}

/// How far the bytes were hashed in order, and the hasher's inner state there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashPoint {
    /// All bytes before this one are in `state`.
    pub offset: Offset,
    /// As [`crate::engine::hasher`] writes it, with its format tag. Empty: nothing hashed yet.
    pub state: Vec<u8>,
}

/// What is known of an upload, without its ranges and parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its name.
    pub id: UploadId,
    /// The hash of the key that opens it.
    pub key_hash: KeyHash,
    /// Whose it is.
    pub owner: UploadOwner,
    /// The most bytes that it may have, where its creator was held to less than the server allows.
    pub max_size: Option<Length>,
    /// Its content has to be of the type that was declared.
    pub typed: bool,
    /// The protocol that created it.
    pub protocol: Protocol,
    /// What it is for.
    pub role: Role,
    /// What its client declared.
    pub declared: Declared,
    /// Where it stands.
    pub state: UploadState,
    /// How many bytes it has in all, once that is known. It never changes again.
    pub length: Option<Length>,
    /// How it is cut into parts.
    pub plan: Plan,
    /// Who may write.
    pub epoch: Epoch,
    /// How far it is hashed.
    pub hash: HashPoint,
    /// Its parts went to the store unhashed: the object is read once before it counts as complete.
    pub readback: bool,
    /// Which boot of the machine wrote its bytes, where they are not synced. Empty: none yet, or synced.
    pub boot: String,
    /// The key of its object.
    pub store_key: StoreKey,
    /// The store's name for its multipart upload, once there is one.
    pub store_upload_id: Option<StoreUploadId>,
    /// That one was begun without checksums, so its parts have none.
    pub unchecked: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When something of it last changed.
    pub updated_at: Timestamp,
    /// When it expires, unless bytes arrive.
    pub expires_at: Timestamp,
    /// What only its key opens ([`UploadKey::open`](super::UploadKey::open)).
    pub sealed: Option<Vec<u8>>,
}

/// Where an upload stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadState {
    /// Created; no byte has come.
    Pending,
    /// Bytes are there.
    Uploading,
    /// Every byte is there and the object is being made. It can be neither aborted nor expired; it ends.
    Assembling {
        /// How often finishing was tried.
        attempts: u32,
        /// Whoever works on it holds it until then; afterwards anyone may go on.
        until: Timestamp,
    },
    /// The object is there.
    Completed {
        /// The object.
        object: Object,
        /// When.
        at: Timestamp,
    },
    /// It failed for good.
    Failed {
        /// Why.
        reason: FailureReason,
        /// When.
        at: Timestamp,
    },
    /// Its client ended it.
    Aborted {
        /// When.
        at: Timestamp,
    },
    /// Its client never came back.
    Expired {
        /// When.
        at: Timestamp,
    },
}

impl UploadState {
    /// Its name on the wire and in the catalog.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Uploading => "uploading",
            Self::Assembling { .. } => "assembling",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Aborted { .. } => "aborted",
            Self::Expired { .. } => "expired",
        }
    }

    /// Whether bytes may still come.
    #[must_use]
    pub fn takes_bytes(&self) -> bool {
        matches!(self, Self::Pending | Self::Uploading)
    }

    /// Whether nothing will change any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !self.takes_bytes() && !matches!(self, Self::Assembling { .. })
    }
}

/// Why an upload failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The bytes do not have the declared digest.
    DigestMismatch,
    /// The store has lost bytes that it had acknowledged.
    StoreLost,
    /// One of the partial uploads that it was to be made of is gone.
    PartGone,
    /// Together its partial uploads have more bytes than an upload may have.
    TooLarge,
    /// The bytes are of another type than was declared, or of one that is not taken.
    ContentType,
    /// Its client got it wrong too often.
    Misbehaved,
}

impl FailureReason {
    /// Its name on the wire and in the catalog.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DigestMismatch => "digest_mismatch",
            Self::StoreLost => "store_lost",
            Self::PartGone => "part_gone",
            Self::TooLarge => "too_large",
            Self::ContentType => "content_type",
            Self::Misbehaved => "misbehaved",
        }
    }
}

impl std::str::FromStr for FailureReason {
    type Err = UnknownWord;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "digest_mismatch" => Ok(Self::DigestMismatch),
            "store_lost" => Ok(Self::StoreLost),
            "part_gone" => Ok(Self::PartGone),
            "too_large" => Ok(Self::TooLarge),
            "content_type" => Ok(Self::ContentType),
            "misbehaved" => Ok(Self::Misbehaved),
            _ => Err(UnknownWord(name.to_owned())),
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The store's own name for a multipart upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreUploadId(pub String);

/// A part that the store has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReceipt {
    /// The part's number.
    pub number: PartNumber,
    /// The bytes of the upload that it holds.
    pub range: ByteRange,
    /// The store's tag for it.
    pub etag: String,
    /// The checksum that the store verified it with, as the store's own API words it: `(algorithm, base64)`.
    pub checksum: Option<(PartChecksum, String)>,
}

/// A checksum that goes with a part to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartChecksum {
    /// CRC-64/NVME.
    Crc64Nvme,
    /// CRC-32C.
    Crc32c,
    /// MD5, in `Content-MD5`.
    Md5,
}

impl PartChecksum {
    /// Its name in the configuration and the catalog.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc64Nvme => "crc64nvme",
            Self::Crc32c => "crc32c",
            Self::Md5 => "md5",
        }
    }
}

impl std::str::FromStr for PartChecksum {
    type Err = UnknownWord;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "crc64nvme" => Ok(Self::Crc64Nvme),
            "crc32c" => Ok(Self::Crc32c),
            "md5" => Ok(Self::Md5),
            _ => Err(UnknownWord(name.to_owned())),
        }
    }
}

/// A finished object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key in the store.
    pub key: StoreKey,
    /// The upload that brought its bytes. Others with the same bytes may name it, too.
    pub first: UploadId,
    /// The space of that upload.
    pub space: SpaceName,
    /// Its key is an address of its content, that uploads of the same bytes share; it can be found by its SHA-256.
    pub shared: bool,
    /// Its size in bytes.
    pub size: Length,
    /// The media type that its client declared.
    pub content_type: Option<String>,
    /// Its digests; SHA-256 is among them, unless all that is known is the store's checksum.
    pub digests: Digests,
    /// The tag that content is answered with.
    pub etag: String,
    /// How its digests are known.
    pub verified: Verified,
    /// Whether what is stored is known to be what was hashed: the store checked a checksum on the way in, the bytes were read
    /// back, or this process wrote them to a disk itself.
    pub store_checked: bool,
}

impl Object {
    /// Whether another upload of the same space had brought the same bytes. What is in other spaces is nobody's business.
    #[must_use]
    pub fn is_known_beside(&self, upload: &Upload) -> bool {
        self.first != upload.id && self.space == upload.owner.space
    }
}

/// How an object's digests are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verified {
    /// The server hashed the bytes on their way to the store.
    Stream,
    /// The server read the object back and hashed it.
    Readback,
    /// The store computed a checksum of the whole object.
    StoreChecksum,
}

impl Verified {
    /// Its name on the wire and in the catalog.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Readback => "readback",
            Self::StoreChecksum => "store_checksum",
        }
    }
}

impl std::str::FromStr for Verified {
    type Err = UnknownWord;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "stream" => Ok(Self::Stream),
            "readback" => Ok(Self::Readback),
            "store_checksum" => Ok(Self::StoreChecksum),
            _ => Err(UnknownWord(name.to_owned())),
        }
    }
}

/// An upload with everything that the catalog has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The upload itself.
    pub upload: Upload,
    /// The bytes that were acknowledged. Each is in the store if its part is in `parts`, else in the tail.
    pub received: RangeSet,
    /// The parts that the store has.
    pub parts: BTreeMap<PartNumber, PartReceipt>,
    /// Parts that URLs were handed out for, and until when one may be good. Where there is a receipt, too, the part came
    /// directly.
    pub direct: BTreeMap<PartNumber, Timestamp>,
}

impl Upload {
    /// Whether its bytes are brought together under another key than its object's.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        self.role != Role::Partial && self.store_key == StoreKey::staged(self.id)
    }

    /// Whether its object was there before: another upload had brought the same bytes.
    #[must_use]
    pub fn is_deduplicated(&self) -> bool {
        matches!(&self.state, UploadState::Completed { object, .. } if object.is_known_beside(self))
    }
}

impl Snapshot {
    /// Of an upload that has no bytes of its own.
    #[must_use]
    pub fn of_new(upload: Upload) -> Self {
        Self {
            upload,
            received: RangeSet::new(),
            parts: BTreeMap::new(),
            direct: BTreeMap::new(),
        }
    }
}
