//! A bucket: parts are put whole and put together by the store.
//!
//! Owns the objects and multipart uploads under one prefix of one bucket. What goes in carries a checksum that the store
//! verifies, if it can (`checksum.rs`), and the name of its upload, so that it is recognised again. Bodies are neither copied nor
//! hashed for their signature (`body.rs`). Needs permission to list the bucket: without it S3 does not tell "no such
//! object" from "no access".

mod body;
mod check;
mod checksum;
mod client;
mod error;
mod listing;
mod read;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption};

use self::checksum::Chosen;
use self::error::{Failure, store_error};
use super::check::Finding;
use super::{
    About, ByteStream, Found, FoundMultipart, Parts, Payload, Put, Result, Shape, Store,
    StoreError, Stored,
};
use crate::model::upload::{PartChecksum, StoreUploadId};
use crate::model::{ByteRange, Length, PartNumber, PartReceipt, StoreKey};

pub use checksum::ChecksumMode;
pub use client::{S3Config, Sse};

/// The name of the metadata (`x-amz-meta-…`) that says which upload an object belongs to.
const UPLOAD_META: &str = "jumar-upload";

/// Putting parts together may take the store this many times as long as another call.
const FINISH_FACTOR: u32 = 5;

/// Objects in a bucket.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    config: S3Config,
    prefix: String,
    checksum: Chosen,
}

/// A checksum that goes with bytes, in base64.
type Sum = (PartChecksum, String);

/// What the store answered to bytes.
struct Taken {
    etag: String,
    /// The checksum that it says it has, if it says.
    echo: Option<String>,
}

/// A checksum in the three places where a request can have one.
#[derive(Default)]
struct Placed {
    crc64: Option<String>,
    crc32c: Option<String>,
    md5: Option<String>,
}

impl Placed {
    fn of(sum: Option<&Sum>) -> Self {
        let mut placed = Self::default();
        if let Some((kind, value)) = sum {
            let place = match kind {
                PartChecksum::Crc64Nvme => &mut placed.crc64,
                PartChecksum::Crc32c => &mut placed.crc32c,
                PartChecksum::Md5 => &mut placed.md5,
            };
            *place = Some(value.clone());
        }
        placed
    }
}

impl S3Store {
    /// Over a bucket that is there. Calls nobody but the environment, for what the configuration leaves open.
    pub async fn open(config: S3Config) -> Self {
        let folder = config.prefix.trim_matches('/');
        let prefix = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        Self {
            client: client::build(&config).await,
            checksum: Chosen::new(config.checksum),
            prefix,
            config,
        }
    }

    /// The key in the bucket.
    fn full(&self, key: &StoreKey) -> String {
        format!("{}{key}", self.prefix)
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.config.sse {
            Sse::None => (None, None),
            Sse::Aes256 => (Some(ServerSideEncryption::Aes256), None),
            Sse::Kms { key_id } => (Some(ServerSideEncryption::AwsKms), key_id.clone()),
        }
    }

    fn timeouts(&self, bytes: u64) -> aws_sdk_s3::config::Builder {
        let attempt = self.config.attempt_timeout_for(bytes);
        aws_sdk_s3::Config::builder().timeout_config(self.config.timeouts(attempt))
    }

    /// The checksum to send with a payload.
    async fn sum(&self, payload: &Payload) -> Result<Option<Sum>> {
        let kind = self.checksum.get(self).await?;
        match kind {
            Some(kind) => Ok(Some((kind, checksum::compute(kind, payload).await?))),
            None => Ok(None),
        }
    }

    /// Whether the failed call is worth repeating without its checksum.
    fn goes_without(&self, failure: &Failure, sum: Option<&Sum>) -> bool {
        let goes = sum.is_some() && self.checksum.is_auto() && failure.is_about_an_option();
        if goes {
            tracing::warn!(%failure, "the store refuses a checksum that it took before; going on without");
        }
        goes
    }

    /// The checksum that the store is known to have verified; an error if it has another.
    fn verified(&self, sum: Option<Sum>, taken: &Taken) -> Result<Option<Sum>> {
        let Some((kind, value)) = sum else {
            return Ok(None);
        };
        match &taken.echo {
            Some(echo) if *echo != value => Err(StoreError::Changed(
                format!("it has the {} {echo}, not {value}", kind.name()).into(),
            )),
            // Told to use it, and the store says nothing: it may have ignored it. `Content-MD5` every S3 verifies.
            None if !self.checksum.is_auto() && kind != PartChecksum::Md5 => Ok(None),
            _ => Ok(Some((kind, value))),
        }
    }

    async fn put_once(
        &self,
        key: &str,
        payload: &Payload,
        about: Option<&About>,
        sum: Option<&Sum>,
    ) -> std::result::Result<Taken, Failure> {
        let placed = Placed::of(sum);
        let (sse, kms_key) = self.encryption();
        let mut call = self
            .client
            .put_object()
            .bucket(&self.config.bucket)
            .key(key)
            .set_server_side_encryption(sse)
            .set_ssekms_key_id(kms_key)
            .set_checksum_crc64_nvme(placed.crc64)
            .set_checksum_crc32_c(placed.crc32c)
            .set_content_md5(placed.md5)
            .content_length(i64::try_from(payload.len()).unwrap_or(i64::MAX))
            .body(body::of(payload));
        if let Some(about) = about {
            call = call
                .metadata(UPLOAD_META, about.upload.to_string())
                .set_content_type(about.content_type.clone());
        }
        let done = call
            .customize()
            .disable_payload_signing()
            .config_override(self.timeouts(payload.len()))
            .send()
            .await
            .map_err(|error| Failure::of(&error))?;
        Ok(Taken {
            etag: unquoted(done.e_tag()),
            echo: echo(sum, done.checksum_crc64_nvme(), done.checksum_crc32_c()),
        })
    }

    async fn put_part_once(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        payload: &Payload,
        sum: Option<&Sum>,
    ) -> std::result::Result<Taken, Failure> {
        let placed = Placed::of(sum);
        let done = self
            .client
            .upload_part()
            .bucket(&self.config.bucket)
            .key(key)
            .upload_id(upload)
            .part_number(number)
            .set_checksum_crc64_nvme(placed.crc64)
            .set_checksum_crc32_c(placed.crc32c)
            .set_content_md5(placed.md5)
            .content_length(i64::try_from(payload.len()).unwrap_or(i64::MAX))
            .body(body::of(payload))
            .customize()
            .disable_payload_signing()
            .config_override(self.timeouts(payload.len()))
            .send()
            .await
            .map_err(|error| Failure::of(&error))?;
        Ok(Taken {
            etag: unquoted(done.e_tag()),
            echo: echo(sum, done.checksum_crc64_nvme(), done.checksum_crc32_c()),
        })
    }

    async fn begin_once(
        &self,
        key: &str,
        about: Option<&About>,
        kind: Option<PartChecksum>,
    ) -> std::result::Result<String, Failure> {
        let (sse, kms_key) = self.encryption();
        let mut call = self
            .client
            .create_multipart_upload()
            .bucket(&self.config.bucket)
            .key(key)
            .set_server_side_encryption(sse)
            .set_ssekms_key_id(kms_key);
        if let Some((algorithm, kind)) = kind.and_then(checksum::named) {
            call = call.checksum_algorithm(algorithm).checksum_type(kind);
        }
        if let Some(about) = about {
            call = call
                .metadata(UPLOAD_META, about.upload.to_string())
                .set_content_type(about.content_type.clone());
        }
        let begun = call.send().await.map_err(|error| Failure::of(&error))?;
        Ok(begun.upload_id.unwrap_or_default())
    }

    async fn finish_once(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        parts: &[PartReceipt],
        size: Length,
        with: Sums,
    ) -> std::result::Result<String, Failure> {
        let listed = parts
            .iter()
            .map(|part| {
                let sum = part.checksum.as_ref().filter(|_| with != Sums::None);
                let placed = Placed::of(sum);
                CompletedPart::builder()
                    .part_number(wire_number(part.number))
                    .e_tag(format!("\"{}\"", part.etag))
                    .set_checksum_crc64_nvme(placed.crc64)
                    .set_checksum_crc32_c(placed.crc32c)
                    .build()
            })
            .collect();
        let mut call = self
            .client
            .complete_multipart_upload()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .upload_id(&upload.0)
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(listed))
                    .build(),
            );
        if with == Sums::Whole
            && let Some(whole) = checksum::combined_crc64(parts)
        {
            call = call
                .checksum_crc64_nvme(whole)
                .checksum_type(aws_sdk_s3::types::ChecksumType::FullObject)
                .mpu_object_size(i64::try_from(size.get()).unwrap_or(i64::MAX));
        }
        let timeout = self.config.attempt_timeout.saturating_mul(FINISH_FACTOR);
        let done = call
            .customize()
            .config_override(
                aws_sdk_s3::Config::builder().timeout_config(self.config.timeouts(timeout)),
            )
            .send()
            .await
            .map_err(|error| Failure::of(&error))?;
        Ok(unquoted(done.e_tag()))
    }
}

/// Which checksums a completion names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sums {
    /// Each part's and, where it can be combined, the whole's.
    Whole,
    /// Each part's.
    Parts,
    /// None.
    None,
}

/// The tag without its quotes.
fn unquoted(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

/// The value that the store gave back for the kind of checksum that was sent.
fn echo(sum: Option<&Sum>, crc64: Option<&str>, crc32c: Option<&str>) -> Option<String> {
    let echo = match sum?.0 {
        PartChecksum::Crc64Nvme => crc64,
        PartChecksum::Crc32c => crc32c,
        PartChecksum::Md5 => None,
    };
    echo.map(str::to_owned)
}

/// A part's number as the wire has it; a plan has at most 10,000.
fn wire_number(number: PartNumber) -> i32 {
    i32::try_from(number.0).unwrap_or(i32::MAX)
}

#[async_trait]
impl Store for S3Store {
    fn shape(&self) -> Shape<'_> {
        Shape::Parts(self)
    }

    async fn head(&self, key: &StoreKey) -> Result<Option<Found>> {
        self.look(key).await
    }

    async fn read(&self, key: &StoreKey, range: Option<ByteRange>) -> Result<ByteStream> {
        self.get(key, range).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<()> {
        let deleted = self
            .client
            .delete_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .send()
            .await
            .map_err(store_error);
        match deleted {
            Ok(_) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ping(&self) -> Result<()> {
        let head = self.client.head_bucket().bucket(&self.config.bucket);
        match head.send().await.map_err(|error| Failure::of(&error)) {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_404() => Err(StoreError::Refused(failure.into())),
            Err(failure) => Err(failure.into_store_error()),
        }
    }

    async fn check(&self) -> Vec<Finding> {
        self.try_everything().await
    }
}

#[async_trait]
impl Parts for S3Store {
    fn equal_parts(&self) -> bool {
        self.config.equal_parts
    }

    async fn put(&self, key: &StoreKey, payload: Payload, about: &About) -> Result<Put> {
        let key = self.full(key);
        let mut sum = self.sum(&payload).await?;
        let mut put = self
            .put_once(&key, &payload, Some(about), sum.as_ref())
            .await;
        if let Err(failure) = &put
            && self.goes_without(failure, sum.as_ref())
        {
            sum = None;
            put = self.put_once(&key, &payload, Some(about), None).await;
        }
        let taken = put.map_err(Failure::into_store_error)?;
        let checksum = self.verified(sum, &taken)?;
        Ok(Put {
            etag: taken.etag,
            checksum,
        })
    }

    async fn begin(&self, key: &StoreKey, about: &About) -> Result<StoreUploadId> {
        let key = self.full(key);
        let kind = self.checksum.get(self).await?;
        let mut begun = self.begin_once(&key, Some(about), kind).await;
        if let Err(failure) = &begun
            && self.checksum.is_auto()
            && kind.is_some()
            && failure.is_about_an_option()
        {
            begun = self.begin_once(&key, Some(about), None).await;
        }
        let id = begun.map_err(Failure::into_store_error)?;
        if id.is_empty() {
            return Err(StoreError::Unavailable("it gave no upload id".into()));
        }
        Ok(StoreUploadId(id))
    }

    async fn put_part(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        number: PartNumber,
        range: ByteRange,
        payload: Payload,
    ) -> Result<PartReceipt> {
        let key = self.full(key);
        let wire = wire_number(number);
        let mut sum = self.sum(&payload).await?;
        let mut put = self
            .put_part_once(&key, &upload.0, wire, &payload, sum.as_ref())
            .await;
        if let Err(failure) = &put
            && self.goes_without(failure, sum.as_ref())
        {
            sum = None;
            put = self
                .put_part_once(&key, &upload.0, wire, &payload, None)
                .await;
        }
        let taken = put.map_err(Failure::into_store_error)?;
        let checksum = self.verified(sum, &taken)?;
        Ok(PartReceipt {
            number,
            range,
            etag: taken.etag,
            checksum,
        })
    }

    async fn finish(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        parts: &[PartReceipt],
        size: Length,
    ) -> Result<Stored> {
        let kind = checksum::common(parts);
        let named = kind.and_then(checksum::named).is_some();
        let tries: &[Sums] = match named {
            true if self.checksum.is_auto() => &[Sums::Whole, Sums::Parts, Sums::None],
            true => &[Sums::Whole],
            false => &[Sums::None],
        };
        let mut last = None;
        for with in tries {
            match self.finish_once(key, upload, parts, size, *with).await {
                Ok(etag) => {
                    return Ok(Stored {
                        etag,
                        verified: parts.iter().all(|part| part.checksum.is_some()),
                    });
                }
                Err(failure) if failure.is_about_an_option() => last = Some(failure),
                Err(failure) => return Err(failure.into_store_error()),
            }
        }
        let failure = last.expect("there is always a way to try");
        Err(failure.into_store_error())
    }

    async fn abort(&self, key: &StoreKey, upload: &StoreUploadId) -> Result<()> {
        let aborted = self
            .client
            .abort_multipart_upload()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .upload_id(&upload.0)
            .send()
            .await
            .map_err(store_error);
        match aborted {
            Ok(_) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn multipart_of(&self, key: &StoreKey) -> Result<Vec<FoundMultipart>> {
        self.list_of(key).await
    }

    async fn multipart_uploads(
        &self,
        after: Option<&FoundMultipart>,
        limit: u32,
    ) -> Result<Vec<FoundMultipart>> {
        self.list(after, limit).await
    }
}
