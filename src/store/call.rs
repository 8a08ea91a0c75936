//! The names of a store's calls, for what wraps a store.

/// A call of a store or of a staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Store::head`](super::Store::head)
    Head,
    /// [`Store::read`](super::Store::read), up to the first byte
    Read,
    /// [`Store::delete`](super::Store::delete)
    Delete,
    /// [`Store::ping`](super::Store::ping)
    Ping,
    /// [`InPlace::open`](super::InPlace::open)
    Open,
    /// [`InPlace::copy_in`](super::InPlace::copy_in)
    CopyIn,
    /// [`InPlace::publish`](super::InPlace::publish)
    Publish,
    /// [`InPlace::discard`](super::InPlace::discard)
    Discard,
    /// [`InPlace::staged`](super::InPlace::staged)
    Staged,
    /// [`StagedFile::write_at`](super::StagedFile::write_at)
    WriteAt,
    /// [`StagedFile::read_at`](super::StagedFile::read_at)
    ReadAt,
    /// [`StagedFile::sync`](super::StagedFile::sync)
    Sync,
    /// [`Parts::put`](super::Parts::put)
    Put,
    /// [`Parts::begin`](super::Parts::begin)
    Begin,
    /// [`Parts::put_part`](super::Parts::put_part)
    PutPart,
    /// [`Parts::copy_part`](super::Parts::copy_part)
    CopyPart,
    /// [`Parts::copy`](super::Parts::copy)
    Copy,
    /// [`Parts::finish`](super::Parts::finish)
    Finish,
    /// [`Parts::abort`](super::Parts::abort)
    Abort,
    /// [`Parts::multipart_of`](super::Parts::multipart_of)
    MultipartOf,
    /// [`Parts::multipart_uploads`](super::Parts::multipart_uploads)
    MultipartUploads,
    /// [`Direct::parts_of`](super::Direct::parts_of)
    PartsOf,
    /// [`Direct::checksum_of`](super::Direct::checksum_of)
    ChecksumOf,
}

impl Call {
    /// Its name in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Read => "read",
            Self::Delete => "delete",
            Self::Ping => "ping",
            Self::Open => "open",
            Self::CopyIn => "copy_in",
            Self::Publish => "publish",
            Self::Discard => "discard",
            Self::Staged => "staged",
            Self::WriteAt => "write_at",
            Self::ReadAt => "read_at",
            Self::Sync => "sync",
            Self::Put => "put",
            Self::Begin => "begin",
            Self::PutPart => "put_part",
            Self::CopyPart => "copy_part",
            Self::Copy => "copy",
            Self::Finish => "finish",
            Self::Abort => "abort",
            Self::MultipartOf => "multipart_of",
            Self::MultipartUploads => "multipart_uploads",
            Self::PartsOf => "parts_of",
            Self::ChecksumOf => "checksum_of",
        }
    }
}
