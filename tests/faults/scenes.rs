//! What the server is at when a call goes wrong, which calls it makes then, and what can go wrong with them.

use crate::support::s3::{Fault, Op};

/// What the server is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Chunk,
    Complete,
    Abort,
    Prune,
    StartUp,
}

impl Phase {
    pub(crate) const ALL: [Self; 5] = [
        Self::Chunk,
        Self::Complete,
        Self::Abort,
        Self::Prune,
        Self::StartUp,
    ];

    /// Whether the upload is to be gone then.
    pub(crate) fn removes(self) -> bool {
        matches!(self, Self::Abort | Self::Prune)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Complete => "complete",
            Self::Abort => "abort",
            Self::Prune => "prune",
            Self::StartUp => "start-up",
        }
    }
}

/// What kind of upload it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file that is one object at once.
    Small,
    /// A file of two parts.
    Parts,
    /// No bytes at all.
    Empty,
    /// Two parts, put together by a call whose answer was lost.
    Lost,
    /// Two parts that are in the tail, because the store was away.
    Tail,
    /// A multipart upload that was begun by a call whose answer was lost.
    Stray,
    /// An object at the address of its content.
    Address,
    /// Two tus uploads joined to one, copied on the store's side.
    Joined,
    /// The same with small ones, which are streamed through the server.
    JoinedSmall,
    /// A part that its client puts past the server.
    Direct,
    /// The whole file in one request.
    OneRequest,
    /// Nothing: whether the server is ready.
    Ready,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small file",
            Self::Parts => "file of two parts",
            Self::Empty => "empty file",
            Self::Lost => "completion whose answer was lost",
            Self::Tail => "file in the tail",
            Self::Stray => "begun, and the answer was lost",
            Self::Address => "`{sha256}` key",
            Self::Joined => "concatenation",
            Self::JoinedSmall => "small concatenation",
            Self::Direct => "part past the server",
            Self::OneRequest => "file in one request",
            Self::Ready => "`/readyz`",
        }
    }
}

/// One thing that the server does, and the calls that can go wrong in it. All calls that it makes are listed here or with another
/// scene of the same phase.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) phase: Phase,
    pub(crate) kind: Kind,
    pub(crate) ops: &'static [Op],
}

const fn scene(phase: Phase, kind: Kind, ops: &'static [Op]) -> Scene {
    Scene { phase, kind, ops }
}

pub(crate) static SCENES: [Scene; 25] = [
    scene(Phase::Chunk, Kind::Small, &[Op::PutObject]),
    scene(
        Phase::Chunk,
        Kind::Parts,
        &[Op::CreateMultipartUpload, Op::UploadPart],
    ),
    scene(Phase::Chunk, Kind::OneRequest, &[Op::PutObject]),
    scene(
        Phase::Chunk,
        Kind::Direct,
        &[Op::CreateMultipartUpload, Op::ListParts],
    ),
    scene(Phase::Complete, Kind::Empty, &[Op::PutObject]),
    scene(Phase::Complete, Kind::Parts, &[Op::CompleteMultipartUpload]),
    scene(Phase::Complete, Kind::Lost, &[Op::HeadObject]),
    scene(
        Phase::Complete,
        Kind::Address,
        &[
            Op::HeadObject,
            Op::GetObject,
            Op::CopyObject,
            Op::DeleteObject,
        ],
    ),
    scene(
        Phase::Complete,
        Kind::Joined,
        &[
            Op::CreateMultipartUpload,
            Op::UploadPartCopy,
            Op::CompleteMultipartUpload,
            Op::GetObject,
        ],
    ),
    scene(
        Phase::Complete,
        Kind::JoinedSmall,
        &[Op::GetObject, Op::PutObject],
    ),
    scene(
        Phase::Complete,
        Kind::Direct,
        &[Op::ListParts, Op::HeadObject],
    ),
    scene(
        Phase::Complete,
        Kind::Tail,
        &[
            Op::CreateMultipartUpload,
            Op::ListMultipartUploads,
            Op::UploadPart,
        ],
    ),
    scene(
        Phase::Complete,
        Kind::Stray,
        &[Op::ListMultipartUploads, Op::AbortMultipartUpload],
    ),
    scene(Phase::Abort, Kind::Small, &[Op::DeleteObject]),
    scene(
        Phase::Abort,
        Kind::Parts,
        &[Op::ListMultipartUploads, Op::AbortMultipartUpload],
    ),
    scene(
        Phase::Abort,
        Kind::Stray,
        &[Op::ListMultipartUploads, Op::AbortMultipartUpload],
    ),
    scene(Phase::Prune, Kind::Small, &[Op::DeleteObject]),
    scene(
        Phase::Prune,
        Kind::Parts,
        &[Op::ListMultipartUploads, Op::AbortMultipartUpload],
    ),
    scene(
        Phase::Prune,
        Kind::Stray,
        &[Op::ListMultipartUploads, Op::AbortMultipartUpload],
    ),
    scene(
        Phase::StartUp,
        Kind::Tail,
        &[
            Op::PutObject,
            Op::DeleteObject,
            Op::CreateMultipartUpload,
            Op::ListMultipartUploads,
            Op::UploadPart,
            Op::AbortMultipartUpload,
            Op::CompleteMultipartUpload,
        ],
    ),
    scene(
        Phase::StartUp,
        Kind::Lost,
        &[Op::CompleteMultipartUpload, Op::HeadObject],
    ),
    scene(
        Phase::StartUp,
        Kind::Address,
        &[
            Op::HeadObject,
            Op::GetObject,
            Op::CopyObject,
            Op::DeleteObject,
        ],
    ),
    scene(
        Phase::StartUp,
        Kind::Joined,
        &[
            Op::UploadPartCopy,
            Op::CompleteMultipartUpload,
            Op::GetObject,
        ],
    ),
    scene(Phase::StartUp, Kind::Empty, &[Op::PutObject]),
    scene(Phase::StartUp, Kind::Ready, &[Op::HeadBucket]),
];

/// In which way a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    SlowDown,
    Error500,
    ResetBefore,
    ResetAfter,
    Silence,
    Drip,
    OtherEtag,
    StaleList,
    Generic404,
}

impl Wrong {
    pub(crate) const ALL: [Self; 9] = [
        Self::SlowDown,
        Self::Error500,
        Self::ResetBefore,
        Self::ResetAfter,
        Self::Silence,
        Self::Drip,
        Self::OtherEtag,
        Self::StaleList,
        Self::Generic404,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SlowDown => "503 SlowDown",
            Self::Error500 => "500",
            Self::ResetBefore => "reset before",
            Self::ResetAfter => "reset after",
            Self::Silence => "silence",
            Self::Drip => "slow drip",
            Self::OtherEtag => "wrong ETag",
            Self::StaleList => "stale list",
            Self::Generic404 => "404",
        }
    }

    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::SlowDown => Fault::Status(503, "SlowDown"),
            Self::Error500 => Fault::Status(500, "InternalError"),
            Self::ResetBefore => Fault::ResetBefore,
            Self::ResetAfter => Fault::ResetAfter,
            Self::Silence => Fault::Silence,
            Self::Drip => Fault::Drip,
            Self::OtherEtag => Fault::WrongEtag,
            Self::StaleList => Fault::StaleList,
            Self::Generic404 => Fault::Generic404,
        }
    }
}

/// What can go wrong with a call: only what has a tag has a wrong one, and only what lists is stale.
pub(crate) fn wrongs_of(op: Op) -> impl Iterator<Item = Wrong> {
    let lists = matches!(op, Op::ListMultipartUploads | Op::ListParts);
    let tags = matches!(
        op,
        Op::CompleteMultipartUpload
            | Op::CopyObject
            | Op::GetObject
            | Op::HeadObject
            | Op::ListParts
            | Op::PutObject
            | Op::UploadPart
            | Op::UploadPartCopy
    );
    Wrong::ALL.into_iter().filter(move |wrong| match wrong {
        Wrong::OtherEtag => tags,
        Wrong::StaleList => lists,
        _ => true,
    })
}

/// How long it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Strike {
    /// One call.
    Once,
    /// Every call, until it is healed more than a minute later.
    Lasting,
}
