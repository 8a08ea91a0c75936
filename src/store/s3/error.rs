//! What an answer of S3, or none, means to the caller.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::store::StoreError;

/// What S3 said, without what we sent: no header of a request is in it.
#[derive(Debug)]
pub(super) struct Failure {
    /// The HTTP status, where there was an answer.
    status: Option<u16>,
    /// S3's own code, where the answer was one of S3.
    code: Option<String>,
    text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(status) = self.status {
            write!(f, "{status} ")?;
        }
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

impl Failure {
    /// Takes from an error what may be shown.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        let code = error.code().map(str::to_owned);
        let text = match error.message() {
            Some(message) => message.to_owned(),
            None => chain(error),
        };
        Self { status, code, text }
    }

    /// S3's own code, if the answer was one of S3.
    pub(super) fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Whether the answer was a 404, whoever it came from.
    pub(super) fn is_404(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether the store does not take an option of the request, so that the same request without it may work.
    pub(super) fn is_about_an_option(&self) -> bool {
        match self.code() {
            Some(code) => matches!(
                code,
                "NotImplemented"
                    | "InvalidRequest"
                    | "InvalidArgument"
                    | "MalformedXML"
                    | "UnsupportedArgument"
                    | "UnsupportedHeader"
                    | "NotSupported"
            ),
            None => matches!(self.status, Some(400 | 501)),
        }
    }

    /// What the caller does next.
    pub(super) fn into_store_error(self) -> StoreError {
        match (self.code(), self.status) {
            (Some("NoSuchUpload" | "NoSuchKey"), _) => StoreError::NotFound,
            (
                Some(
                    "BadDigest"
                    | "EntityTooSmall"
                    | "IncompleteBody"
                    | "InvalidDigest"
                    | "InvalidPart"
                    | "InvalidPartOrder"
                    | "InvalidRange"
                    | "XAmzContentChecksumMismatch"
                    | "XAmzContentSHA256Mismatch",
                ),
                _,
            ) => StoreError::Changed(self.into()),
            (Some("PreconditionFailed"), _) | (None, Some(412)) => StoreError::Taken,
            (Some("QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage"), _)
            | (None, Some(507)) => StoreError::Full(self.into()),
            // These come as 4xx, and pass. A 404 without a code may be anybody's on the way, and proves nothing.
            (
                Some(
                    "ConditionalRequestConflict"
                    | "ExpiredToken"
                    | "OperationAborted"
                    | "RequestTimeout"
                    | "SlowDown"
                    | "Throttling"
                    | "TooManyRequests",
                ),
                _,
            )
            | (None, Some(404 | 408 | 409 | 429)) => StoreError::Unavailable(self.into()),
            (Some("NotImplemented"), _) | (_, Some(400..=499 | 501 | 300..=399)) => {
                StoreError::Refused(self.into())
            }
            _ => StoreError::Unavailable(self.into()),
        }
    }
}

/// The texts of an error and of what caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Any error of a call that needs no closer look.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what `map_err` hands over"
)]
pub(super) fn store_error<E>(error: SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    Failure::of(&error).into_store_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, code: Option<&str>) -> StoreError {
        Failure {
            status: Some(status),
            code: code.map(str::to_owned),
            text: String::new(),
        }
        .into_store_error()
    }

    #[test]
    fn a_404_without_a_code_proves_nothing() {
        assert!(matches!(failure(404, None), StoreError::Unavailable(_)));
        assert!(matches!(
            failure(404, Some("NoSuchUpload")),
            StoreError::NotFound
        ));
        assert!(matches!(
            failure(404, Some("NoSuchBucket")),
            StoreError::Refused(_)
        ));
    }

    #[test]
    fn the_code_decides_before_the_status() {
        assert!(matches!(
            failure(200, Some("InternalError")),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(
            failure(400, Some("BadDigest")),
            StoreError::Changed(_)
        ));
        assert!(matches!(
            failure(400, Some("RequestTimeout")),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(
            failure(403, Some("SignatureDoesNotMatch")),
            StoreError::Refused(_)
        ));
        assert!(matches!(failure(503, None), StoreError::Unavailable(_)));
    }
}
