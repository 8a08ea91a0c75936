//! A store with something around each of its calls: figures, or faults for tests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::call::Call;
use super::check::Finding;
use super::direct::{AnswerWith, FoundPart, PartPlace, SignedRequest};
use super::{
    About, ByteStream, Direct, Found, FoundMultipart, InPlace, MadeOf, Parts, Payload, Put, Result,
    Shape, StagedFile, Store, Stored,
};
use crate::model::upload::StoreUploadId;
use crate::model::{
    ByteRange, Digest, Length, Offset, PartNumber, PartReceipt, StoreKey, Timestamp, UploadId,
};

/// What is around the calls of a store.
pub trait Hook: Send + Sync + 'static {
    /// Makes the call by awaiting `run`, or answers without. Dropped when nobody waits for the call any more.
    fn around<T: Send>(
        &self,
        call: Call,
        run: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;

    /// What a caller gets for a staged file that was opened: the file itself, if its calls are left alone.
    fn opened(&self, file: Arc<dyn StagedFile>) -> Arc<dyn StagedFile> {
        file
    }
}

/// A store of either shape with a hook around its calls. Its [`check`](Store::check), what it says of itself and what it signs
/// are passed on as they are.
pub struct Hooked<H> {
    inner: Arc<dyn Store>,
    hook: H,
}

impl<H: Hook> Hooked<H> {
    /// Around the store inside.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, hook: H) -> Self {
        Self { inner, hook }
    }

    fn in_place(&self) -> &dyn InPlace {
        match self.inner.shape() {
            Shape::InPlace(store) => store,
            Shape::Parts(_) => unreachable!("the shape that we show is the inner one's"),
        }
    }

    fn parts(&self) -> &dyn Parts {
        match self.inner.shape() {
            Shape::Parts(store) => store,
            Shape::InPlace(_) => unreachable!("the shape that we show is the inner one's"),
        }
    }

    fn signer(&self) -> &dyn Direct {
        let direct = self.inner.direct();
        direct.expect("what can be done past us is what can be done past the inner one")
    }
}

#[async_trait]
impl<H: Hook> Store for Hooked<H> {
    fn shape(&self) -> Shape<'_> {
        match self.inner.shape() {
            Shape::InPlace(_) => Shape::InPlace(self),
            Shape::Parts(_) => Shape::Parts(self),
        }
    }

    fn direct(&self) -> Option<&dyn Direct> {
        self.inner.direct().map(|_| self as &dyn Direct)
    }

    async fn head(&self, key: &StoreKey) -> Result<Option<Found>> {
        self.hook.around(Call::Head, self.inner.head(key)).await
    }

    async fn read(&self, key: &StoreKey, range: Option<ByteRange>) -> Result<ByteStream> {
        self.hook
            .around(Call::Read, self.inner.read(key, range))
            .await
    }

    async fn delete(&self, key: &StoreKey) -> Result<()> {
        self.hook.around(Call::Delete, self.inner.delete(key)).await
    }

    async fn ping(&self) -> Result<()> {
        self.hook.around(Call::Ping, self.inner.ping()).await
    }

    async fn check(&self) -> Vec<Finding> {
        self.inner.check().await
    }
}

#[async_trait]
impl<H: Hook> InPlace for Hooked<H> {
    async fn open(&self, id: UploadId) -> Result<Arc<dyn StagedFile>> {
        let opened = self.in_place().open(id);
        let file = self.hook.around(Call::Open, opened).await?;
        Ok(self.hook.opened(file))
    }

    async fn copy_in(
        &self,
        id: UploadId,
        at: Offset,
        source: &StoreKey,
        size: Length,
    ) -> Result<()> {
        let copied = self.in_place().copy_in(id, at, source, size);
        self.hook.around(Call::CopyIn, copied).await
    }

    async fn publish(&self, id: UploadId, key: &StoreKey, size: Length) -> Result<Stored> {
        let published = self.in_place().publish(id, key, size);
        self.hook.around(Call::Publish, published).await
    }

    async fn discard(&self, id: UploadId) -> Result<()> {
        self.hook
            .around(Call::Discard, self.in_place().discard(id))
            .await
    }

    async fn staged(&self) -> Result<Vec<UploadId>> {
        self.hook
            .around(Call::Staged, self.in_place().staged())
            .await
    }

    async fn free_bytes(&self) -> Result<u64> {
        self.in_place().free_bytes().await
    }
}

#[async_trait]
impl<H: Hook> Parts for Hooked<H> {
    fn equal_parts(&self) -> bool {
        self.parts().equal_parts()
    }

    fn min_part_bytes(&self) -> u64 {
        self.parts().min_part_bytes()
    }

    async fn put(&self, key: &StoreKey, payload: Payload, about: &About) -> Result<Put> {
        let put = self.parts().put(key, payload, about);
        self.hook.around(Call::Put, put).await
    }

    async fn begin(&self, key: &StoreKey, about: &About, of: MadeOf) -> Result<StoreUploadId> {
        let begun = self.parts().begin(key, about, of);
        self.hook.around(Call::Begin, begun).await
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
        let parts = self.parts();
        let put = parts.put_part(key, upload, number, range, payload, of);
        self.hook.around(Call::PutPart, put).await
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
        let parts = self.parts();
        let copied = parts.copy_part(key, upload, number, range, source, source_range);
        self.hook.around(Call::CopyPart, copied).await
    }

    async fn copy(
        &self,
        source: &StoreKey,
        size: Length,
        key: &StoreKey,
        about: &About,
    ) -> Result<Stored> {
        let copied = self.parts().copy(source, size, key, about);
        self.hook.around(Call::Copy, copied).await
    }

    async fn finish(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        parts: &[PartReceipt],
        size: Length,
    ) -> Result<Stored> {
        let finished = self.parts().finish(key, upload, parts, size);
        self.hook.around(Call::Finish, finished).await
    }

    async fn abort(&self, key: &StoreKey, upload: &StoreUploadId) -> Result<()> {
        self.hook
            .around(Call::Abort, self.parts().abort(key, upload))
            .await
    }

    async fn multipart_of(&self, key: &StoreKey) -> Result<Vec<FoundMultipart>> {
        self.hook
            .around(Call::MultipartOf, self.parts().multipart_of(key))
            .await
    }

    async fn multipart_uploads(
        &self,
        after: Option<&FoundMultipart>,
        limit: u32,
    ) -> Result<Vec<FoundMultipart>> {
        let listed = self.parts().multipart_uploads(after, limit);
        self.hook.around(Call::MultipartUploads, listed).await
    }

    async fn remove_probes(&self, before: Timestamp) -> Result<u64> {
        self.parts().remove_probes(before).await
    }
}

#[async_trait]
impl<H: Hook> Direct for Hooked<H> {
    async fn sign_part(
        &self,
        place: PartPlace<'_>,
        size: Option<Length>,
        digest: Option<&Digest>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<SignedRequest> {
        self.signer().sign_part(place, size, digest, now, ttl).await
    }

    async fn sign_read(
        &self,
        key: &StoreKey,
        with: &AnswerWith,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<SignedRequest> {
        self.signer().sign_read(key, with, now, ttl).await
    }

    async fn parts_of(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        after: Option<PartNumber>,
        limit: u32,
    ) -> Result<Vec<FoundPart>> {
        let listed = self.signer().parts_of(key, upload, after, limit);
        self.hook.around(Call::PartsOf, listed).await
    }

    async fn checksum_of(&self, key: &StoreKey) -> Result<Option<String>> {
        let asked = self.signer().checksum_of(key);
        self.hook.around(Call::ChecksumOf, asked).await
    }

    async fn mixes(&self) -> Result<bool> {
        self.signer().mixes().await
    }

    async fn check_browsers(&self, origins: &[String]) -> Finding {
        self.signer().check_browsers(origins).await
    }

    async fn allow_browsers(&self, origins: &[String]) -> Result<String> {
        self.signer().allow_browsers(origins).await
    }
}
