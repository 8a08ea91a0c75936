//! A bucket: parts are put whole and put together by the store.
//!
//! Owns the objects and multipart uploads under one prefix of one bucket. What goes in carries a checksum that the store
//! verifies, if it can (`checksum.rs`), and the name of its upload, so that it is recognised again. What is copied on the
//! store's side (`copy.rs`) carries no checksum, and what clients put past the server (`direct.rs`) need not. Bodies are
//! neither copied nor hashed for their signature (`body.rs`). Needs permission to list the bucket: without it S3 does not tell
//! "no such object" from "no access".

mod body;
mod check;
mod checksum;
mod client;
mod copy;
mod cors;
mod direct;
mod error;
mod listing;
mod read;
mod requests;
mod trial;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use tokio::sync::OnceCell;

use self::checksum::Chosen;
use self::error::{Failure, store_error};
use self::requests::{Place, Sum, Sums, Taken};
use super::check::Finding;
use super::{
    About, ByteStream, Direct, Found, FoundMultipart, MadeOf, Parts, Payload, Put, Result, Shape,
    Store, StoreError, Stored,
};
use crate::model::upload::{PartChecksum, StoreUploadId};
use crate::model::{ByteRange, Length, PartNumber, PartReceipt, StoreKey, Timestamp};

pub use checksum::ChecksumMode;
pub use client::{S3Config, Sse};

/// The name of the metadata (`x-amz-meta-…`) that says which upload an object belongs to.
const UPLOAD_META: &str = "jumar-upload";

/// Objects in a bucket.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    config: S3Config,
    prefix: String,
    checksum: Chosen,
    /// Whether parts without the checksum that an upload was begun with are taken, once it was tried.
    mixes: OnceCell<bool>,
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
            mixes: OnceCell::new(),
            prefix,
            config,
        }
    }

    /// The key in the bucket.
    fn full(&self, key: &StoreKey) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The kind of checksum that goes with a part.
    async fn kind_of(&self, of: MadeOf) -> Result<Option<PartChecksum>> {
        match of {
            MadeOf::Parts => self.checksum.get(self).await,
            MadeOf::Unchecked => Ok(None),
        }
    }

    /// Whether a call that failed with a checksum is worth repeating without.
    fn goes_without(&self, failure: &Failure) -> bool {
        let goes = self.checksum.is_auto() && failure.is_about_an_option();
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

    /// Puts a payload with its checksum of that kind, or without where the store refuses what it took before. The tag, and
    /// the checksum that the store is known to have verified.
    async fn put_verified(
        &self,
        key: &StoreKey,
        place: Place<'_>,
        payload: &Payload,
        kind: Option<PartChecksum>,
    ) -> Result<(String, Option<Sum>)> {
        let key = self.full(key);
        let mut sum = match kind {
            Some(kind) => Some((kind, checksum::compute(kind, payload).await?)),
            None => None,
        };
        let mut put = self.put_once(&key, place, payload, sum.as_ref()).await;
        if let Err(failure) = &put
            && sum.is_some()
            && self.goes_without(failure)
        {
            sum = None;
            put = self.put_once(&key, place, payload, None).await;
        }
        let taken = put.map_err(Failure::into_store_error)?;
        let verified = self.verified(sum, &taken)?;
        Ok((taken.etag, verified))
    }
}

/// The tag without its quotes.
fn unquoted(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

#[async_trait]
impl Store for S3Store {
    fn shape(&self) -> Shape<'_> {
        Shape::Parts(self)
    }

    fn direct(&self) -> Option<&dyn Direct> {
        Some(self)
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
        let place = Place::Object(Some(about));
        let kind = self.checksum.get(self).await?;
        let (etag, checksum) = self.put_verified(key, place, &payload, kind).await?;
        Ok(Put { etag, checksum })
    }

    async fn begin(&self, key: &StoreKey, about: &About, of: MadeOf) -> Result<StoreUploadId> {
        let key = self.full(key);
        let kind = self.kind_of(of).await?;
        let mut begun = self.begin_once(&key, Some(about), kind).await;
        if let Err(failure) = &begun
            && kind.is_some()
            && self.goes_without(failure)
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
        of: MadeOf,
    ) -> Result<PartReceipt> {
        let place = Place::Part(&upload.0, number);
        let kind = self.kind_of(of).await?;
        let (etag, checksum) = self.put_verified(key, place, &payload, kind).await?;
        Ok(PartReceipt {
            number,
            range,
            etag,
            checksum,
        })
    }

    async fn copy_part(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        number: PartNumber,
        range: ByteRange,
        source: &StoreKey,
        source_range: Option<ByteRange>,
    ) -> Result<PartReceipt> {
        self.copy_to_part(key, upload, number, range, source, source_range)
            .await
    }

    async fn copy(
        &self,
        source: &StoreKey,
        size: Length,
        key: &StoreKey,
        about: &About,
    ) -> Result<Stored> {
        self.copy_whole(source, size, key, about).await
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

    async fn remove_probes(&self, before: Timestamp) -> Result<u64> {
        self.sweep_probes(before).await
    }
}
