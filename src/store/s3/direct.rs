//! Past the server: requests signed for others, and what has come of them.
//!
//! What is signed is what a plain client can send: no header that is not told with it. Where the keys of the store come from
//! the environment and end before the request does, so does the request.

use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::types::{ChecksumMode, ChecksumType, Part};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checksum::named;
use super::error::{Failure, store_error};
use super::listing::{MAX_PAGES, PAGE};
use super::requests::{wire_number, wire_size};
use super::{S3Store, unquoted};
use crate::model::upload::{PartChecksum, StoreUploadId};
use crate::model::{Digest, DigestAlgorithm, Length, PartNumber, StoreKey, Timestamp};
use crate::store::check::Finding;
use crate::store::direct::{AnswerWith, FoundPart, PartPlace, SignedRequest};
use crate::store::{Direct, Result, StoreError};

#[async_trait]
impl Direct for S3Store {
    async fn sign_part(
        &self,
        place: PartPlace<'_>,
        size: Option<Length>,
        digest: Option<&Digest>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<SignedRequest> {
        let mut call = self
            .client
            .upload_part()
            .bucket(&self.config.bucket)
            .key(self.full(place.key))
            .upload_id(&place.upload.0)
            .part_number(wire_number(place.number))
            .set_content_length(size.map(|size| wire_size(size.get())));
        if let Some(digest) = digest {
            let value = STANDARD.encode(digest.value());
            call = match self.takes(digest.algorithm()).await? {
                Header::Sha256 => call.checksum_sha256(value),
                Header::Crc32c => call.checksum_crc32_c(value),
                Header::Crc64Nvme => call.checksum_crc64_nvme(value),
                Header::Md5 => call.content_md5(value),
            };
        }
        let signed = call
            .presigned(window(now, ttl)?)
            .await
            .map_err(store_error)?;
        Ok(told("PUT", &signed, now, ttl))
    }

    async fn sign_read(
        &self,
        key: &StoreKey,
        with: &AnswerWith,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<SignedRequest> {
        let signed = self
            .client
            .get_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .set_response_content_type(with.content_type.clone())
            .set_response_content_disposition(with.content_disposition.clone())
            .set_response_cache_control(with.cache_control.clone())
            .presigned(window(now, ttl)?)
            .await
            .map_err(store_error)?;
        Ok(told("GET", &signed, now, ttl))
    }

    async fn parts_of(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        after: Option<PartNumber>,
        limit: u32,
    ) -> Result<Vec<FoundPart>> {
        let limit = limit as usize;
        let mut found = Vec::new();
        let mut marker = after.map(|number| number.0.to_string());
        for _ in 0..MAX_PAGES {
            let wanted = i32::try_from(limit - found.len()).unwrap_or(PAGE).min(PAGE);
            if wanted == 0 {
                break;
            }
            let page = self
                .client
                .list_parts()
                .bucket(&self.config.bucket)
                .key(self.full(key))
                .upload_id(&upload.0)
                .set_part_number_marker(marker.clone())
                .max_parts(wanted)
                .send()
                .await
                .map_err(store_error)?;
            for part in page.parts() {
                found.push(found_part(part)?);
            }
            found.truncate(limit);
            let next = page.next_part_number_marker().map(str::to_owned);
            if page.is_truncated() != Some(true) || next.is_none() || next == marker {
                break;
            }
            marker = next;
        }
        Ok(found)
    }

    async fn checksum_of(&self, key: &StoreKey) -> Result<Option<String>> {
        let looked = self
            .client
            .head_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .map_err(|error| Failure::of(&error));
        let head = match looked {
            Ok(head) => head,
            Err(failure) if failure.is_404() => {
                self.confirm_absence(key).await?;
                return Err(StoreError::NotFound);
            }
            Err(failure) => return Err(failure.into_store_error()),
        };
        Ok(of_whole(head.checksum_crc64_nvme(), head.checksum_type()))
    }

    /// MD5 and none are of one request alone. The CRC-64/NVME of a part that comes without AWS computes by itself, where
    /// others refuse the part, so that is tried. Of an upload that was begun with CRC-32C AWS refuses parts without one, since
    /// the whole's is made of what was sent.
    async fn mixes(&self) -> Result<bool> {
        match self.checksum.get(self).await? {
            None | Some(PartChecksum::Md5) => Ok(true),
            Some(PartChecksum::Crc32c) => Ok(false),
            Some(PartChecksum::Crc64Nvme) => {
                let found = self.mixes.get_or_try_init(|| self.takes_bare_parts());
                Ok(*found.await?)
            }
        }
    }

    async fn check_browsers(&self, origins: &[String]) -> Finding {
        self.look_at_cors(origins).await
    }

    async fn allow_browsers(&self, origins: &[String]) -> Result<String> {
        self.apply_cors(origins).await
    }
}

/// The header that a checksum of a part goes into.
enum Header {
    Sha256,
    Crc32c,
    Crc64Nvme,
    Md5,
}

impl S3Store {
    /// Where a part's digest goes, if a multipart upload of [`MadeOf::Parts`](crate::store::MadeOf::Parts) takes it: AWS
    /// refuses another checksum than the upload was begun with. MD5 is none of those, so it goes wherever a part may come
    /// without.
    async fn takes(&self, algorithm: DigestAlgorithm) -> Result<Header> {
        let chosen = self.checksum.get(self).await?;
        let begun_with = chosen.filter(|kind| named(*kind).is_some());
        match (algorithm, begun_with) {
            (DigestAlgorithm::Sha256, None) => Ok(Header::Sha256),
            (DigestAlgorithm::Crc32c, None | Some(PartChecksum::Crc32c)) => Ok(Header::Crc32c),
            (DigestAlgorithm::Crc64Nvme, None | Some(PartChecksum::Crc64Nvme)) => {
                Ok(Header::Crc64Nvme)
            }
            (DigestAlgorithm::Md5, _) if self.mixes().await? => Ok(Header::Md5),
            (_, begun_with) => {
                let takes = match begun_with {
                    Some(PartChecksum::Crc64Nvme) if self.mixes().await? => "crc64nvme or md5",
                    Some(kind) => kind.name(),
                    None => "sha-256, crc32c, crc64nvme or md5",
                };
                Err(StoreError::Refused(
                    format!("it verifies no {algorithm} of a part, but {takes}").into(),
                ))
            }
        }
    }
}

/// The time that a request is good for.
fn window(now: Timestamp, ttl: Duration) -> Result<PresigningConfig> {
    let since = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    PresigningConfig::builder()
        .start_time(UNIX_EPOCH + since)
        .expires_in(ttl)
        .build()
        .map_err(|error| StoreError::Refused(error.into()))
}

fn told(
    method: &'static str,
    signed: &PresignedRequest,
    now: Timestamp,
    ttl: Duration,
) -> SignedRequest {
    let headers = signed.headers();
    SignedRequest {
        method,
        url: signed.uri().to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        expires_at: now.after(ttl),
    }
}

/// The CRC-64 in hex, if it is one of the bytes. One of the parts' checksums is not.
fn of_whole(sum: Option<&str>, of: Option<&ChecksumType>) -> Option<String> {
    if of.is_some_and(|of| *of != ChecksumType::FullObject) {
        return None;
    }
    let sum = STANDARD.decode(sum?).ok()?;
    (sum.len() == DigestAlgorithm::Crc64Nvme.len()).then(|| hex::encode(sum))
}

fn found_part(part: &Part) -> Result<FoundPart> {
    let number = part.part_number().and_then(|number| number.try_into().ok());
    let size = part.size().and_then(|size| size.try_into().ok());
    let (Some(number), Some(size), Some(etag)) = (number, size, part.e_tag()) else {
        return Err(StoreError::Unavailable(
            "it lists a part without its number, size or tag".into(),
        ));
    };
    Ok(FoundPart {
        number: PartNumber(number),
        size: Length(size),
        etag: unquoted(Some(etag)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_checksum_of_all_the_bytes_is_told() {
        let full = Some(&ChecksumType::FullObject);
        let sum = "rosUhgp5mIg=";
        for (sum, of, told) in [
            (Some(sum), full, Some("ae8b14860a799888")),
            (Some(sum), None, Some("ae8b14860a799888")),
            (Some(sum), Some(&ChecksumType::Composite), None),
            (Some("rosUhgp5mIg=-2"), None, None),
            (Some("4waSgw=="), full, None),
            (None, full, None),
        ] {
            assert_eq!(of_whole(sum, of).as_deref(), told, "{sum:?} {of:?}");
        }
    }
}
