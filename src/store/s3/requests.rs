//! The requests that carry bytes or checksums, each sent once as it is told.

use std::time::Duration;

use aws_sdk_s3::types::{
    ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
};

use super::client::Sse;
use super::error::Failure;
use super::{S3Store, UPLOAD_META, body, checksum, unquoted};
use crate::model::upload::{PartChecksum, StoreUploadId};
use crate::model::{Length, PartNumber, PartReceipt, StoreKey};
use crate::store::{About, Payload};

/// Putting parts together may take the store this many times as long as another call.
const FINISH_FACTOR: u32 = 5;

/// What bytes are at their key.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// A whole object, of an upload if one is told.
    Object(Option<&'a About>),
    /// A part of this multipart upload.
    Part(&'a str, PartNumber),
}

/// A checksum that goes with bytes, in base64.
pub(super) type Sum = (PartChecksum, String);

/// What the store answered to bytes.
pub(super) struct Taken {
    pub(super) etag: String,
    /// The checksum that it says it has, if it says.
    pub(super) echo: Option<String>,
}

impl Taken {
    /// From the answer's tag and checksums, of which it looks for the kind that was sent.
    fn of(
        sum: Option<&Sum>,
        etag: Option<&str>,
        crc64: Option<&str>,
        crc32c: Option<&str>,
    ) -> Self {
        let echo = sum.and_then(|(kind, _)| match kind {
            PartChecksum::Crc64Nvme => crc64,
            PartChecksum::Crc32c => crc32c,
            PartChecksum::Md5 => None,
        });
        Self {
            etag: unquoted(etag),
            echo: echo.map(str::to_owned),
        }
    }
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

/// Which checksums a completion names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    /// Each part's and, where it can be combined, the whole's.
    Whole,
    /// Each part's.
    Parts,
    /// None.
    None,
}

impl S3Store {
    /// Encryption as the configuration has it, for what is put, begun or copied.
    pub(super) fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.config.sse {
            Sse::None => (None, None),
            Sse::Aes256 => (Some(ServerSideEncryption::Aes256), None),
            Sse::Kms { key_id } => (Some(ServerSideEncryption::AwsKms), key_id.clone()),
        }
    }

    /// The client's configuration, with a time of its own for one attempt.
    pub(super) fn timeouts(&self, attempt: Duration) -> aws_sdk_s3::config::Builder {
        aws_sdk_s3::Config::builder().timeout_config(self.config.timeouts(attempt))
    }

    /// Puts bytes where they go.
    pub(super) async fn put_once(
        &self,
        key: &str,
        place: Place<'_>,
        payload: &Payload,
        sum: Option<&Sum>,
    ) -> Result<Taken, Failure> {
        match place {
            Place::Object(about) => self.put_object_once(key, about, payload, sum).await,
            Place::Part(upload, number) => {
                self.put_part_once(key, upload, number, payload, sum).await
            }
        }
    }

    async fn put_object_once(
        &self,
        key: &str,
        about: Option<&About>,
        payload: &Payload,
        sum: Option<&Sum>,
    ) -> Result<Taken, Failure> {
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
            .content_length(wire_size(payload.len()))
            .body(body::of(payload));
        if let Some(about) = about {
            call = call
                .metadata(UPLOAD_META, about.upload.to_string())
                .set_content_type(about.content_type.clone());
        }
        let done = call
            .customize()
            .disable_payload_signing()
            .config_override(self.timeouts(self.config.attempt_timeout_for(payload.len())))
            .send()
            .await
            .map_err(|error| Failure::of(&error))?;
        Ok(Taken::of(
            sum,
            done.e_tag(),
            done.checksum_crc64_nvme(),
            done.checksum_crc32_c(),
        ))
    }

    async fn put_part_once(
        &self,
        key: &str,
        upload: &str,
        number: PartNumber,
        payload: &Payload,
        sum: Option<&Sum>,
    ) -> Result<Taken, Failure> {
        let placed = Placed::of(sum);
        let done = self
            .client
            .upload_part()
            .bucket(&self.config.bucket)
            .key(key)
            .upload_id(upload)
            .part_number(wire_number(number))
            .set_checksum_crc64_nvme(placed.crc64)
            .set_checksum_crc32_c(placed.crc32c)
            .set_content_md5(placed.md5)
            .content_length(wire_size(payload.len()))
            .body(body::of(payload))
            .customize()
            .disable_payload_signing()
            .config_override(self.timeouts(self.config.attempt_timeout_for(payload.len())))
            .send()
            .await
            .map_err(|error| Failure::of(&error))?;
        Ok(Taken::of(
            sum,
            done.e_tag(),
            done.checksum_crc64_nvme(),
            done.checksum_crc32_c(),
        ))
    }

    pub(super) async fn begin_once(
        &self,
        key: &str,
        about: Option<&About>,
        kind: Option<PartChecksum>,
    ) -> Result<String, Failure> {
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

    pub(super) async fn finish_once(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        parts: &[PartReceipt],
        size: Length,
        with: Sums,
    ) -> Result<String, Failure> {
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
                .checksum_type(ChecksumType::FullObject)
                .mpu_object_size(wire_size(size.get()));
        }
        let attempt = self.config.attempt_timeout.saturating_mul(FINISH_FACTOR);
        let done = call
            .customize()
            .config_override(self.timeouts(attempt))
            .send()
            .await
            .map_err(|error| Failure::of(&error))?;
        Ok(unquoted(done.e_tag()))
    }
}

/// A part's number as the wire has it; a plan has at most 10,000.
pub(super) fn wire_number(number: PartNumber) -> i32 {
    i32::try_from(number.0).unwrap_or(i32::MAX)
}

/// A size as the wire has it; none comes near the limit.
pub(super) fn wire_size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
