//! The vocabulary of the server, free of any I/O.
//!
//! Owns identifiers, byte ranges, digests, the part grid and the states of an upload. Everything here is pure: no clock,
//! no randomness but in [`handle`], no HTTP, SQL or object store.

pub mod caller;
pub mod compose;
pub mod digest;
pub mod handle;
pub mod key;
pub mod plan;
pub mod quota;
pub mod range;
pub mod time;
pub mod token;
pub mod upload;

pub use caller::{Caller, DeviceId, Scope, SpaceName, Subject, TokenId};
pub use digest::{Digest, DigestAlgorithm};
pub use handle::{Handle, KeyHash, UploadId, UploadKey};
pub use key::{KeyFacts, KeyTemplate, StoreKey};
pub use plan::{Cell, PartNumber, Plan};
pub use quota::{LimitHit, LimitName, Limits, UploadOwner};
pub use range::{ByteRange, Length, Offset, RangeSet};
pub use time::Timestamp;
pub use token::ApiKey;
pub use upload::{Object, PartReceipt, Upload, UploadState};
