//! Copying on the store's side: making a part out of an object.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::requests::wire_number;
use super::{S3Store, store_error, unquoted};
use crate::model::upload::StoreUploadId;
use crate::model::{ByteRange, PartNumber, PartReceipt, StoreKey};
use crate::store::{Result, StoreError};

/// What is percent-encoded in the name of a source.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl S3Store {
    /// How a copy names an object that it is made of.
    pub(super) fn as_source(&self, key: &StoreKey) -> String {
        let name = format!("{}/{}", self.config.bucket, self.full(key));
        utf8_percent_encode(&name, ENCODED).to_string()
    }

    /// Makes a part out of an object, or of a range of it.
    pub(super) async fn copy_to_part(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        number: PartNumber,
        range: ByteRange,
        source: &StoreKey,
        source_range: Option<ByteRange>,
    ) -> Result<PartReceipt> {
        let copied = self
            .client
            .upload_part_copy()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .upload_id(&upload.0)
            .part_number(wire_number(number))
            .copy_source(self.as_source(source))
            .set_copy_source_range(
                source_range.map(|range| format!("bytes={}-{}", range.start(), range.end() - 1)),
            )
            .customize()
            // The store moves as many bytes as if they were put.
            .config_override(self.timeouts(self.config.attempt_timeout_for(range.len())))
            .send()
            .await
            .map_err(store_error)?;
        let result = copied.copy_part_result();
        let etag = unquoted(result.and_then(|result| result.e_tag()));
        if etag.is_empty() {
            return Err(StoreError::Unavailable("it gave no tag of a copy".into()));
        }
        Ok(PartReceipt {
            number,
            range,
            etag,
            checksum: None,
        })
    }
}
