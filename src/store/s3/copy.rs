//! Copying on the store's side: making a part out of an object, and trying whether the store can.

use aws_sdk_s3::types::MetadataDirective;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::check::{TEXT, large_payload, payload};
use super::error::Failure;
use super::requests::wire_number;
use super::{S3Store, UPLOAD_META, store_error, unquoted};
use crate::model::plan::MIN_PART_BYTES;
use crate::model::upload::StoreUploadId;
use crate::model::{ByteRange, Length, PartNumber, PartReceipt, StoreKey};
use crate::store::check::{Finding, Outcome};
use crate::store::{About, MadeOf, Parts as _, Result, Store as _, StoreError, Stored};

/// What is percent-encoded in the name of a source.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl S3Store {
    /// How a copy names an object that it is made of.
    fn as_source(&self, key: &StoreKey) -> String {
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

    /// Copies a whole object to a key where nothing is. A store that does not know the condition copies without.
    pub(super) async fn copy_whole(
        &self,
        source: &StoreKey,
        size: Length,
        key: &StoreKey,
        about: &About,
    ) -> Result<Stored> {
        let mut copied = self.copy_once(source, size, key, about, true).await;
        if let Err(failure) = &copied
            && failure.is_about_an_option()
        {
            copied = self.copy_once(source, size, key, about, false).await;
        }
        let etag = copied.map_err(Failure::into_store_error)?;
        if etag.is_empty() {
            return Err(StoreError::Unavailable("it gave no tag of a copy".into()));
        }
        Ok(Stored {
            etag,
            verified: false,
        })
    }

    async fn copy_once(
        &self,
        source: &StoreKey,
        size: Length,
        key: &StoreKey,
        about: &About,
        only_if_new: bool,
    ) -> std::result::Result<String, Failure> {
        let (sse, kms_key) = self.encryption();
        let copied = self
            .client
            .copy_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .copy_source(self.as_source(source))
            .set_if_none_match(only_if_new.then(|| "*".to_owned()))
            .metadata_directive(MetadataDirective::Replace)
            .metadata(UPLOAD_META, about.upload.to_string())
            .set_content_type(about.content_type.clone())
            .set_server_side_encryption(sse)
            .set_ssekms_key_id(kms_key)
            .customize()
            // The store moves as many bytes as if they were put.
            .config_override(self.timeouts(self.config.attempt_timeout_for(size.get())))
            .send()
            .await
            .map_err(|error| Failure::of(&error))?;
        Ok(unquoted(
            copied
                .copy_object_result()
                .and_then(|result| result.e_tag()),
        ))
    }

    /// Whether it copies an object to another key.
    pub(super) async fn try_copy(&self, key: &StoreKey) -> Finding {
        let target = format!("{}-copy", self.full(key));
        let copied = self
            .client
            .copy_object()
            .bucket(&self.config.bucket)
            .key(&target)
            .copy_source(self.as_source(key))
            .metadata_directive(MetadataDirective::Copy)
            .send()
            .await
            .map_err(|error| Failure::of(&error));
        let _ = self
            .client
            .delete_object()
            .bucket(&self.config.bucket)
            .key(&target)
            .send()
            .await;
        Finding {
            what: "copy on the store's side",
            outcome: match copied {
                Ok(_) => Outcome::Works(String::new()),
                Err(failure) => Outcome::Without(format!("{failure}; not needed with {{id}} keys")),
            },
        }
    }

    /// Whether it makes a part out of an object, in an upload that it then finishes.
    pub(super) async fn try_copied_part(&self, key: &StoreKey, about: &About) -> Finding {
        let target: StoreKey = format!("{key}-copy")
            .parse()
            .expect("a letter more leaves a key safe");
        let composed = self.compose(key, &target, about).await;
        for key in [key, &target] {
            let _ = self.delete(key).await;
        }
        Finding {
            what: "copy a part from another object",
            outcome: match composed {
                Ok(()) => Outcome::Works(String::new()),
                Err(error) => Outcome::Without(format!(
                    "{error}; the server streams what is to be joined, through itself"
                )),
            },
        }
    }

    /// An object made of a copy and of bytes. The source is not small, because some stores copy no small one.
    async fn compose(&self, source: &StoreKey, target: &StoreKey, about: &About) -> Result<()> {
        let end = MIN_PART_BYTES + TEXT.len() as u64;
        let copied = ByteRange::new(0, MIN_PART_BYTES).expect("a part is not empty");
        let sent = ByteRange::new(MIN_PART_BYTES, end).expect("the text is not empty");
        self.put(source, large_payload(), about).await?;
        let upload = self.begin(target, about, MadeOf::Unchecked).await?;
        let attempt = async {
            let [first, second] = [PartNumber(1), PartNumber(2)];
            let copy = self.copy_part(target, &upload, first, copied, source, None);
            let put = self.put_part(
                target,
                &upload,
                second,
                sent,
                payload(TEXT),
                MadeOf::Unchecked,
            );
            let parts = [copy.await?, put.await?];
            self.finish(target, &upload, &parts, Length(end)).await
        };
        if let Err(error) = attempt.await {
            let _ = self.abort(target, &upload).await;
            return Err(error);
        }
        match self.head(target).await? {
            Some(found) if found.size == Length(end) => Ok(()),
            _ => Err(StoreError::Changed(
                "the object is not what was copied".into(),
            )),
        }
    }
}
