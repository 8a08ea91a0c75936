//! Looking at objects and reading them.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::error::Failure;
use super::{S3Config, S3Store, UPLOAD_META, unquoted};
use crate::model::{ByteRange, Length, StoreKey};
use crate::store::{ByteStream, Found, Result, StoreError};

impl S3Store {
    /// The object, if there is one.
    pub(super) async fn look(&self, key: &StoreKey) -> Result<Option<Found>> {
        let looked = self
            .client
            .head_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .send()
            .await
            .map_err(|error| Failure::of(&error));
        match looked {
            Ok(head) => Ok(Some(Found {
                size: Length(
                    head.content_length()
                        .and_then(|size| u64::try_from(size).ok())
                        .ok_or_else(|| StoreError::Unavailable("it told no size".into()))?,
                ),
                etag: unquoted(head.e_tag()),
                upload: head
                    .metadata()
                    .and_then(|metadata| metadata.get(UPLOAD_META))
                    .and_then(|id| id.parse().ok()),
            })),
            Err(failure) if failure.is_404() => self.confirm_absence(key).await.map(|()| None),
            Err(failure) => Err(failure.into_store_error()),
        }
    }

    /// The answer to HEAD has no body, so its 404 may mean the bucket, or come from a proxy. That to GET says which.
    pub(super) async fn confirm_absence(&self, key: &StoreKey) -> Result<()> {
        let got = self
            .client
            .get_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .range("bytes=0-0")
            .send()
            .await
            .map_err(|error| Failure::of(&error));
        match got {
            Err(failure) if failure.code() == Some("NoSuchKey") => Ok(()),
            Err(failure) if failure.code() != Some("InvalidRange") => {
                Err(failure.into_store_error())
            }
            _ => Err(StoreError::Unavailable(
                "it does not agree with itself whether an object is there".into(),
            )),
        }
    }

    /// The object's bytes, or some of them.
    pub(super) async fn get(&self, key: &StoreKey, range: Option<ByteRange>) -> Result<ByteStream> {
        let got = self
            .client
            .get_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .set_range(range.map(|range| format!("bytes={}-{}", range.start(), range.end() - 1)))
            .send()
            .await
            .map_err(super::store_error)?;
        let wanted = range.map_or(got.content_length(), |range| {
            i64::try_from(range.len()).ok()
        });
        if got.content_length() != wanted {
            return Err(StoreError::Changed(
                "the object is shorter than the range asked for, or ranges are ignored".into(),
            ));
        }
        Ok(bounded(got.body, self.config.clone()))
    }
}

/// The body's bytes. A store that is waited for longer than it may take for what it has given so far ends it with an error; how
/// long its reader takes does not count.
fn bounded(body: aws_sdk_s3::primitives::ByteStream, config: S3Config) -> ByteStream {
    let given = 0_u64;
    let begin = Some((body, given, Duration::ZERO));
    stream::unfold((begin, config), |(state, config)| async move {
        let (mut body, given, waited) = state?;
        let since = Instant::now();
        let most = config.attempt_timeout_for(given).saturating_sub(waited);
        let next = tokio::time::timeout(most, body.next()).await;
        let waited = waited + since.elapsed();
        let error = match next {
            Ok(None) => return None,
            Ok(Some(Ok(bytes))) => {
                let given = given + bytes.len() as u64;
                return Some((Ok(bytes), (Some((body, given, waited)), config)));
            }
            Ok(Some(Err(error))) => error.into(),
            Err(elapsed) => elapsed.into(),
        };
        Some((Err(StoreError::Unavailable(error)), (None, config)))
    })
    .boxed()
}
