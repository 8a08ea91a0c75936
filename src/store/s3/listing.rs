//! Which multipart uploads a bucket has: pages of a listing, walked by its markers.

use super::S3Store;
use super::error::store_error;
use crate::model::upload::StoreUploadId;
use crate::model::{StoreKey, Timestamp};
use crate::store::{FoundMultipart, Result, StoreError};

/// The most that S3 lists at once.
pub(super) const PAGE: i32 = 1_000;

/// A store whose markers lead nowhere is left after this many pages.
pub(super) const MAX_PAGES: usize = 10_000;

/// Where a page begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Markers {
    key: Option<String>,
    upload: Option<String>,
}

impl S3Store {
    /// Multipart uploads under exactly this key.
    pub(super) async fn list_of(&self, key: &StoreKey) -> Result<Vec<FoundMultipart>> {
        let full = self.full(key);
        let mut found = Vec::new();
        let mut at = Markers::default();
        for _ in 0..MAX_PAGES {
            let (page, next) = self.page(&full, at.clone(), PAGE).await?;
            found.extend(page.into_iter().filter(|upload| upload.key == *key));
            match next {
                Some(next) if next != at => at = next,
                _ => break,
            }
        }
        Ok(found)
    }

    /// Multipart uploads under our prefix, behind `after`.
    pub(super) async fn list(
        &self,
        after: Option<&FoundMultipart>,
        limit: u32,
    ) -> Result<Vec<FoundMultipart>> {
        let limit = limit as usize;
        let mut found = Vec::new();
        let mut at = after.map_or_else(Markers::default, |after| Markers {
            key: Some(self.full(&after.key)),
            upload: Some(after.id.0.clone()),
        });
        for _ in 0..MAX_PAGES {
            // A page may be all of names that are no keys of ours, and there is more behind it.
            let wanted = i32::try_from(limit - found.len()).unwrap_or(PAGE).min(PAGE);
            if wanted == 0 {
                break;
            }
            let (page, next) = self.page(&self.prefix, at.clone(), wanted).await?;
            found.extend(page);
            match next {
                Some(next) if next != at => at = next,
                _ => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn page(
        &self,
        prefix: &str,
        at: Markers,
        limit: i32,
    ) -> Result<(Vec<FoundMultipart>, Option<Markers>)> {
        let page = self
            .client
            .list_multipart_uploads()
            .bucket(&self.config.bucket)
            .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
            .set_key_marker(at.key)
            .set_upload_id_marker(at.upload)
            .max_uploads(limit)
            .send()
            .await
            .map_err(|error| match store_error(error) {
                // There is no key or upload in the question, so this is no answer to it.
                StoreError::NotFound => StoreError::Unavailable("it does not list uploads".into()),
                error => error,
            })?;
        let next = (page.is_truncated() == Some(true)).then(|| Markers {
            key: page.next_key_marker().map(str::to_owned),
            upload: page.next_upload_id_marker().map(str::to_owned),
        });
        let found = page
            .uploads()
            .iter()
            .filter_map(|upload| {
                let key = upload.key()?.strip_prefix(&self.prefix)?;
                Some(FoundMultipart {
                    key: key.parse().ok()?,
                    id: StoreUploadId(upload.upload_id()?.to_owned()),
                    initiated: upload
                        .initiated()
                        .and_then(|time| time.to_millis().ok())
                        .map(Timestamp),
                })
            })
            .collect();
        Ok((found, next))
    }
}
