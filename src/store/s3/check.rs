//! Trying a bucket: what the server needs, what it can do without, and which checksums the store verifies.
//!
//! Everything made here has a name of its own below the prefix and is removed again.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::S3Store;
use super::checksum::{self, Probe};
use super::error::Failure;
use super::requests::{Place, Sum, Sums};
use crate::model::plan::MIN_PART_BYTES;
use crate::model::upload::{PartChecksum, StoreUploadId};
use crate::model::{ByteRange, Length, PartNumber, PartReceipt, StoreKey, Timestamp, UploadId};
use crate::store::check::{Finding, Outcome};
use crate::store::{About, MadeOf, Parts, Payload, Result, Store, StoreError};

pub(super) const TEXT: &[u8] = b"jumar was here";

/// What a probe for checksums writes to. One name for all, so that what a crash leaves is overwritten by the next.
const PROBE_KEY: &str = "jumar-checksum-probe";

pub(super) fn payload(bytes: &'static [u8]) -> Payload {
    Payload::Memory(Arc::new([Bytes::from_static(bytes)]))
}

/// As large as a part that is not the last has to be.
pub(super) fn large_payload() -> Payload {
    let bytes = vec![b'j'; usize::try_from(MIN_PART_BYTES).unwrap_or(0)];
    Payload::Memory(Arc::new([Bytes::from(bytes)]))
}

#[async_trait]
impl Probe for S3Store {
    /// Whether the store takes the right checksum of this kind and refuses a wrong one, for objects and for parts.
    ///
    /// An error if it cannot be found out now.
    async fn verifies(&self, kind: PartChecksum) -> Result<bool> {
        let key = format!("{}{PROBE_KEY}", self.prefix);
        let bytes = payload(TEXT);
        let right = (kind, checksum::compute(kind, &bytes).await?);
        let wrong = (kind, checksum::compute(kind, &payload(b"another")).await?);
        let object = Place::Object(None);
        let objects = self.tells_apart(&key, object, &bytes, &right, &wrong).await;
        // Not by key type: the probe's object is of no upload, and a leftover harms nobody.
        let _ = self
            .client
            .delete_object()
            .bucket(&self.config.bucket)
            .key(&key)
            .send()
            .await;
        if !objects? {
            return Ok(false);
        }
        let begun = match self.begin_once(&key, None, Some(kind)).await {
            Ok(id) => id,
            Err(failure) => return refusal(failure).map(|()| false),
        };
        let part = Place::Part(&begun, PartNumber(1));
        let parts = self.tells_apart(&key, part, &bytes, &right, &wrong).await;
        let _ = self
            .client
            .abort_multipart_upload()
            .bucket(&self.config.bucket)
            .key(&key)
            .upload_id(&begun)
            .send()
            .await;
        parts
    }
}

impl S3Store {
    /// Removes what probes have left. One that is under way writes its object again before it looks, and its multipart upload is
    /// too young.
    pub(super) async fn sweep_probes(&self, before: Timestamp) -> Result<u64> {
        let key: StoreKey = PROBE_KEY
            .parse()
            .expect("letters and hyphens are a safe key");
        let mut aborted = 0;
        for left in self.list_of(&key).await? {
            if left.initiated.is_some_and(|at| at < before) {
                self.abort(&key, &left.id).await?;
                aborted += 1;
            }
        }
        self.delete(&key).await?;
        Ok(aborted)
    }

    /// Whether a part without a checksum, in an upload that was begun with CRC-64/NVME, is taken and makes an object.
    ///
    /// An error if it cannot be found out now.
    pub(super) async fn takes_bare_parts(&self) -> Result<bool> {
        let key: StoreKey = PROBE_KEY
            .parse()
            .expect("letters and hyphens are a safe key");
        let full = self.full(&key);
        let kind = Some(PartChecksum::Crc64Nvme);
        let upload = match self.begin_once(&full, None, kind).await {
            Ok(id) => StoreUploadId(id),
            Err(failure) => return refusal(failure).map(|()| false),
        };
        let attempt = async {
            let number = PartNumber(1);
            let bytes = payload(TEXT);
            let size = Length(bytes.len());
            let place = Place::Part(&upload.0, number);
            let taken = self.put_once(&full, place, &bytes, None).await?;
            let part = PartReceipt {
                number,
                range: ByteRange::new(0, size.get()).expect("the text is not empty"),
                etag: taken.etag,
                checksum: None,
            };
            self.finish_once(&key, &upload, &[part], size, Sums::None)
                .await
        };
        match attempt.await {
            Ok(_) => {
                let _ = self.delete(&key).await;
                Ok(true)
            }
            Err(failure) => {
                let _ = self.abort(&key, &upload).await;
                refusal(failure).map(|()| false)
            }
        }
    }

    /// Whether the store takes the bytes with the right checksum and refuses them with a wrong one.
    async fn tells_apart(
        &self,
        key: &str,
        place: Place<'_>,
        bytes: &Payload,
        right: &Sum,
        wrong: &Sum,
    ) -> Result<bool> {
        match self.put_once(key, place, bytes, Some(wrong)).await {
            Ok(_) => return Ok(false),
            Err(failure) => refusal(failure)?,
        }
        match self.put_once(key, place, bytes, Some(right)).await {
            Ok(_) => Ok(true),
            Err(failure) => refusal(failure).map(|()| false),
        }
    }

    /// Tries everything that the server needs.
    pub(super) async fn try_everything(&self) -> Vec<Finding> {
        let id = UploadId::generate();
        let about = About {
            upload: id,
            content_type: Some("text/plain".into()),
        };
        let key: StoreKey = format!("jumar-check-{id}")
            .parse()
            .expect("letters, digits and hyphens are a safe key");
        let mut findings = vec![needed(
            "reach the bucket",
            "store.s3.endpoint, region, bucket, access_key_id, secret_access_key, or store.s3.force_path_style = true",
            self.ping().await.map(|()| self.config.bucket.clone()),
        )];
        if matches!(findings[0].outcome, Outcome::Broken(_)) {
            return findings;
        }
        findings.push(needed(
            "write an object and read it back",
            "the permissions to put and get objects, and store.s3.checksum = \"none\"",
            self.try_object(&key, &about).await,
        ));
        findings.push(self.try_conditional(&key).await);
        findings.push(self.try_copy(&key).await);
        findings.push(needed(
            "delete an object",
            "the permission to delete objects",
            match self.delete(&key).await {
                Ok(()) => self.expect_absent(&key).await,
                Err(error) => Err(error),
            },
        ));
        findings.push(needed(
            "a multipart upload of two parts",
            "store.s3.checksum = \"none\" or store.s3.equal_parts = true",
            self.try_multipart(&key, &about).await,
        ));
        findings.push(self.try_copied_part(&key, &about).await);
        findings.push(self.try_signed_part(&key, &about).await);
        findings.push(needed(
            "list and abort multipart uploads",
            "the permissions to list the bucket's multipart uploads and to abort them",
            self.try_abort(&key, &about).await,
        ));
        for (kind, what) in [
            (PartChecksum::Crc64Nvme, "checksum crc64nvme"),
            (PartChecksum::Crc32c, "checksum crc32c"),
            (PartChecksum::Md5, "checksum md5"),
        ] {
            let outcome = match self.verifies(kind).await {
                Ok(true) => Outcome::Works("verified by the store".into()),
                Ok(false) => Outcome::Without(format!(
                    "the store does not verify it: leave store.s3.checksum = \"auto\", or choose another than \"{}\"",
                    kind.name()
                )),
                Err(error) => Outcome::Broken(error.to_string()),
            };
            findings.push(Finding { what, outcome });
        }
        findings
    }

    async fn try_object(&self, key: &StoreKey, about: &About) -> Result<String> {
        self.put(key, payload(TEXT), about).await?;
        let read = self.read(key, None).await?;
        let back: Vec<Bytes> = read.try_collect().await?;
        if back.concat() != TEXT {
            return Err(StoreError::Changed("other bytes came back".into()));
        }
        let range = ByteRange::new(6, 9).expect("6 is before 9");
        let some: Vec<Bytes> = self.read(key, Some(range)).await?.try_collect().await?;
        if some.concat() != TEXT[6..9] {
            return Err(StoreError::Changed("ranges do not work".into()));
        }
        match self.head(key).await? {
            Some(found) if found.upload == Some(about.upload) => Ok(String::new()),
            Some(_) => Err(StoreError::Refused("it loses an object's metadata".into())),
            None => Err(StoreError::Refused("it does not see its own object".into())),
        }
    }

    async fn expect_absent(&self, key: &StoreKey) -> Result<String> {
        match self.head(key).await? {
            None => Ok(String::new()),
            Some(_) => Err(StoreError::Refused("the object is still there".into())),
        }
    }

    async fn try_conditional(&self, key: &StoreKey) -> Finding {
        let put = self
            .client
            .put_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            .if_none_match("*")
            .body(Bytes::from_static(TEXT).into())
            .send()
            .await
            .map_err(|error| Failure::of(&error).into_store_error());
        Finding {
            what: "write only if nothing is there (If-None-Match: *)",
            outcome: match put {
                Err(StoreError::Taken) => Outcome::Works(String::new()),
                Ok(_) => Outcome::Without(
                    "the store ignores the condition; where store.key has {sha256} and no {id}, nobody else may write under store.s3.prefix".into(),
                ),
                Err(error) => Outcome::Without(format!("{error}; where store.key has {{sha256}} and no {{id}}, nobody else may write under store.s3.prefix")),
            },
        }
    }

    async fn try_multipart(&self, key: &StoreKey, about: &About) -> Result<String> {
        let end = MIN_PART_BYTES + TEXT.len() as u64;
        let ranges = [
            ByteRange::new(0, MIN_PART_BYTES).expect("a part is not empty"),
            ByteRange::new(MIN_PART_BYTES, end).expect("the text is not empty"),
        ];
        let payloads = [large_payload(), payload(TEXT)];
        let upload = self.begin(key, about, MadeOf::Parts).await?;
        let attempt = async {
            let mut parts = Vec::new();
            for ((range, payload), number) in ranges.into_iter().zip(payloads).zip(1..) {
                let number = PartNumber(number);
                let put = self.put_part(key, &upload, number, range, payload, MadeOf::Parts);
                parts.push(put.await?);
            }
            self.finish(key, &upload, &parts, Length(end)).await
        };
        let finished = attempt.await;
        if finished.is_err() {
            let _ = self.abort(key, &upload).await;
        }
        let found = match finished {
            Ok(_) => self.head(key).await,
            Err(error) => Err(error),
        };
        let _ = self.delete(key).await;
        match (found?, self.checksum.get(self).await?) {
            (Some(found), kind) if found.size == Length(end) => Ok(kind.map_or_else(
                || "without a checksum".into(),
                |kind| format!("with {}", kind.name()),
            )),
            _ => Err(StoreError::Changed("the object is not what was put".into())),
        }
    }

    async fn try_abort(&self, key: &StoreKey, about: &About) -> Result<String> {
        let upload = self.begin(key, about, MadeOf::Parts).await?;
        let listed = self.multipart_of(key).await;
        self.abort(key, &upload).await?;
        if !listed?.iter().any(|found| found.id == upload) {
            return Err(StoreError::Refused(
                "it does not list a multipart upload that was begun".into(),
            ));
        }
        if self.multipart_of(key).await?.is_empty() {
            Ok(String::new())
        } else {
            Err(StoreError::Refused(
                "it lists a multipart upload that was aborted".into(),
            ))
        }
    }
}

/// A failure that is the store's answer to the checksum; any other one cannot be judged.
fn refusal(failure: Failure) -> Result<()> {
    if failure.is_about_an_option() {
        return Ok(());
    }
    match failure.into_store_error() {
        StoreError::Changed(_) => Ok(()),
        StoreError::NotFound => Err(StoreError::Unavailable("a probe was disturbed".into())),
        error => Err(error),
    }
}

fn needed(what: &'static str, hint: &str, result: Result<String>) -> Finding {
    Finding {
        what,
        outcome: match result {
            Ok(how) => Outcome::Works(how),
            Err(error) => Outcome::Broken(format!("{error}; see {hint}")),
        },
    }
}
