//! What can go wrong with a command, named for what the caller does next.

use std::time::Duration;

use crate::catalog::CatalogError;
use crate::model::upload::FailureReason;
use crate::model::{ByteRange, DigestAlgorithm, Length, LimitHit, Offset, PartNumber};
use crate::store::StoreError;

/// Why a command was not carried out. Nothing acknowledged is lost by any of them.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such upload, or the key is another's: the two cannot be told apart.
    #[error("there is no upload with this id and key")]
    NotFound,
    /// It was there; it expired or was aborted.
    #[error("the upload has expired or was aborted")]
    Gone,
    /// The range contradicts the upload's length, or the body was not as long as its range.
    #[error("{detail}")]
    RangeMismatch {
        /// What contradicts what, in a word.
        conflict: Conflict,
        /// What contradicts what.
        detail: String,
        /// The upload's length, if known.
        length: Option<Length>,
        /// How far the upload reaches.
        expected_offset: Option<Offset>,
    },
    /// The upload takes chunks in order only, and this one does not begin where the last one ended.
    #[error("the upload takes its chunks in order: the next byte is {expected}")]
    OutOfOrder {
        /// Where to go on.
        expected: Offset,
    },
    /// A newer request took over.
    #[error("a newer request took over this range")]
    Displaced,
    /// Bytes are missing.
    #[error("bytes are missing")]
    Incomplete {
        /// The first of the missing ranges.
        missing: Vec<ByteRange>,
        /// Whether there are more.
        truncated: bool,
    },
    /// It is completed, or about to be, and stays as it is.
    #[error("the upload is completed and cannot be changed")]
    Completed,
    /// It failed for good.
    #[error("the upload failed: {reason}")]
    Failed {
        /// Why.
        reason: FailureReason,
    },
    /// A creation was repeated after its upload had received bytes.
    #[error("the upload of this idempotency key is in use")]
    InUse,
    /// The same idempotency key came with another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyMismatch,
    /// Larger than allowed.
    #[error("at most {max} bytes are taken")]
    TooLarge {
        /// The most that is taken.
        max: Length,
    },
    /// The digest that was to follow the body did not come, or cannot be taken. Nothing of the body counts.
    #[error("{detail}")]
    DigestMissing {
        /// What is wrong with it.
        detail: String,
    },
    /// The upload takes no bytes: it is put together from others, or from parts that its client puts into the store.
    #[error("the upload is put together from what came otherwise and takes no bytes itself")]
    Unwritable,
    /// An upload cannot be put together from these.
    #[error("{detail}")]
    BadParts {
        /// Which of them, and why.
        detail: String,
    },
    /// The store takes nothing directly, or not this.
    #[error("{detail}")]
    DirectUnavailable {
        /// What stands in the way.
        detail: String,
        /// The parts that it stands in the way of, where it is not all.
        parts: Vec<PartNumber>,
    },
    /// The client says that it has put a part, and the store does not have it.
    #[error(
        "the store does not have part {number}: put it by its URL, or send its bytes through the server"
    )]
    NotPut {
        /// The part.
        number: PartNumber,
        /// Its bytes.
        range: ByteRange,
    },
    /// The client names parts that the store does not have.
    #[error(
        "the store does not have all of these parts: put the missing ones by their URLs, then complete it again"
    )]
    PartsMissing {
        /// The ones that are missing.
        parts: Vec<PartNumber>,
    },
    /// The parts that the client names are there, and cannot be what it says, or are no parts of one file.
    #[error("{detail}")]
    PartsMismatch {
        /// What is wrong with them.
        detail: String,
        /// Which ones.
        parts: Vec<PartNumber>,
    },
    /// A digest of a chunk or of the whole is not that of the bytes.
    #[error("the {algorithm} digest is not that of the bytes that came")]
    DigestMismatch {
        /// Which digest.
        algorithm: DigestAlgorithm,
    },
    /// The upload is another's.
    #[error("the upload belongs to somebody else")]
    NotYours,
    /// It is of a type that is not taken.
    #[error("{detail}")]
    WrongType {
        /// Which it is, and which would be taken.
        detail: String,
    },
    /// A limit was met.
    #[error("the limit {} allows {}, and {} of it is left", .0.limit.as_str(), .0.allowed, .0.left)]
    Limited(LimitHit),
    /// As many chunks of this upload are in flight as may be.
    #[error("{max} chunks of this upload are in flight already")]
    TooManyChunks {
        /// How many may be.
        max: usize,
    },
    /// The body broke, stalled or ended early; what came is kept (unless it had to match a digest).
    #[error("the body ended early: {source}")]
    BodyBroken {
        /// How far the upload reaches without a hole.
        offset: Offset,
        /// What happened to it.
        source: BodyError,
    },
    /// The store, the disk or the catalog cannot take it now.
    #[error("it cannot be taken now: {source}")]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
        /// What stands in the way: for the log, not for the client.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A fault of this server.
    #[error("internal fault: {0}")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What contradicts what where a range does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Two lengths of the upload.
    Lengths,
    /// The range, or the body, goes beyond the upload's length or beyond the range.
    Beyond,
    /// The body has fewer bytes than its range.
    Short,
}

/// Why a body broke.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection was cut.
    #[error("the connection was cut: {0}")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came for too long.
    #[error("nothing came for {} s", .0.as_secs())]
    Stalled(Duration),
    /// It came with fewer bytes a second than these.
    #[error("it came with less than {0} bytes/s")]
    Slow(u64),
    /// What the bytes are wrapped in is not what it has to be.
    #[error("{0}")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// After how long a client is told to try again, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl EngineError {
    /// It is not complete, and nobody has to be told which bytes are missing.
    pub(super) fn incomplete() -> Self {
        Self::Incomplete {
            missing: Vec::new(),
            truncated: false,
        }
    }

    /// Something stands in the way that will pass.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable {
            retry_after: RETRY_AFTER,
            source: source.into(),
        }
    }
}

impl From<CatalogError> for EngineError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound => Self::NotFound,
            CatalogError::Stale => Self::Displaced,
            CatalogError::Limited(hit) => Self::Limited(hit),
            CatalogError::Unavailable(_) => Self::unavailable(error),
            CatalogError::Corrupt(_) => Self::Internal(error.into()),
        }
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error)
    }
}
