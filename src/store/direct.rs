//! Past the server: requests that the store takes from whoever holds them, and what has come of them.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::Result;
use super::check::Finding;
use crate::model::upload::StoreUploadId;
use crate::model::{Digest, Length, PartNumber, StoreKey, Timestamp};

/// A request that the store takes from whoever holds it. A secret, as long as it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// `PUT` or `GET`.
    pub method: &'static str,
    /// Where to.
    pub url: String,
    /// The header fields that have to go with it, to the letter. Not `Host`.
    pub headers: Vec<(String, String)>,
    /// Until when the store takes it, by this machine's clock.
    pub expires_at: Timestamp,
}

impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRequest")
            .field("method", &self.method)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The place that a part is put to.
#[derive(Debug, Clone, Copy)]
pub struct PartPlace<'a> {
    /// The key of the object in the making.
    pub key: &'a StoreKey,
    /// Its multipart upload.
    pub upload: &'a StoreUploadId,
    /// The part.
    pub number: PartNumber,
}

/// A part that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPart {
    /// Its number.
    pub number: PartNumber,
    /// Its size in bytes.
    pub size: Length,
    /// The store's tag for it, without quotes.
    pub etag: String,
}

/// How a store answers with an object's content that it is asked for by a [`SignedRequest`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerWith {
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `Content-Disposition`
    pub content_disposition: Option<String>,
    /// `Cache-Control`
    pub cache_control: Option<String>,
}

/// A store that signs requests, and tells which parts have come.
#[async_trait]
pub trait Direct: Send + Sync {
    /// Signs the request that puts one part into a multipart upload begun as [`MadeOf::Parts`](super::MadeOf::Parts). With
    /// `size`, the store takes exactly so many bytes; with `digest`, bytes that have it. `Refused` for a digest that the store
    /// would not verify: which of SHA-256, MD5, CRC-32C and CRC-64/NVME it does is the store's own, and the error names them.
    ///
    /// Does not ask whether the multipart upload is there. The first one with a digest may try out what the store verifies;
    /// beside that, nobody is called.
    async fn sign_part(
        &self,
        place: PartPlace<'_>,
        size: Option<Length>,
        digest: Option<&Digest>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<SignedRequest>;

    /// Signs the request that gets an object. Calls nobody.
    async fn sign_read(
        &self,
        key: &StoreKey,
        with: &AnswerWith,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<SignedRequest>;

    /// The parts of a multipart upload by their numbers, at most `limit` after `after`. `NotFound` if the multipart upload is
    /// gone.
    async fn parts_of(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        after: Option<PartNumber>,
        limit: u32,
    ) -> Result<Vec<FoundPart>>;

    /// The store's own CRC-64/NVME of the whole object, in lower-case hex, where it has one. `NotFound` if there is no object.
    async fn checksum_of(&self, key: &StoreKey) -> Result<Option<String>>;

    /// Whether parts that carry no checksum may join a multipart upload begun as [`MadeOf::Parts`](super::MadeOf::Parts). Found
    /// out once, by trying it where that takes a trial; then it stays.
    async fn mixes(&self) -> Result<bool>;

    /// Whether pages of these origins may send what is signed, as far as the store's own rules for browsers go.
    async fn check_browsers(&self, origins: &[String]) -> Finding;

    /// Sees to it that they may, by a rule of our own; what was done, in words. Repeatable. Not atomic: rules that somebody
    /// else writes at the same time may be lost.
    async fn allow_browsers(&self, origins: &[String]) -> Result<String>;
}
