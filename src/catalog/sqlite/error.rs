//! What SQLite's errors mean to whoever called the catalog.

use rusqlite::ErrorCode;

use crate::catalog::CatalogError;

impl From<rusqlite::Error> for CatalogError {
    fn from(error: rusqlite::Error) -> Self {
        if is_passing(&error) {
            Self::Unavailable(error.into())
        } else {
            Self::Corrupt(error.into())
        }
    }
}

/// Whether the same call may work later, because what stands in its way lies outside of the file's content.
pub(super) fn is_passing(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::OperationAborted
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::PermissionDenied
        )
    )
}

/// [`CatalogError::Unavailable`] for a reason that is not SQLite's.
pub(super) fn unavailable(why: &'static str) -> CatalogError {
    CatalogError::Unavailable(why.into())
}

/// A value that is not what this version writes, and where it was found.
#[derive(Debug, thiserror::Error)]
#[error("{column}: {source}")]
struct Unreadable {
    column: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// [`CatalogError::Corrupt`] for a value of `column`.
pub(super) fn corrupt(
    column: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> CatalogError {
    CatalogError::Corrupt(Box::new(Unreadable {
        column,
        source: source.into(),
    }))
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn what_may_pass_is_unavailable_and_the_rest_is_corrupt() {
        let mapped =
            |code| CatalogError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_FULL,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_CANTOPEN,
        ] {
            assert!(
                matches!(mapped(code), CatalogError::Unavailable(_)),
                "{code}"
            );
        }
        for code in [
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_CONSTRAINT,
        ] {
            assert!(matches!(mapped(code), CatalogError::Corrupt(_)), "{code}");
        }
    }
}
