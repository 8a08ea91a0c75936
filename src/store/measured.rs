//! A store whose calls are timed.
//!
//! Each call goes into `jumar_store_call_duration_seconds{call,outcome}`. A call that nobody waited for any more counts as
//! `dropped`.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::call::Call;
use super::check::Finding;
use super::{
    About, ByteStream, Found, FoundMultipart, InPlace, Parts, Payload, Put, Result, Shape,
    StagedFile, Store, StoreError, Stored,
};
use crate::model::upload::StoreUploadId;
use crate::model::{ByteRange, Length, PartNumber, PartReceipt, StoreKey, UploadId};

/// The store inside, timed.
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
}

impl MeasuredStore {
    /// Around a store of either shape.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner }
    }

    async fn timed<T: Send>(
        &self,
        call: Call,
        done: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let mut timer = Timer {
            call,
            outcome: "dropped",
            start: Instant::now(),
        };
        let result = done.await;
        timer.outcome = match &result {
            Ok(_) => "ok",
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(StoreError::Full(_)) => "full",
            Err(StoreError::NotFound) => "not_found",
            Err(StoreError::Taken) => "taken",
            Err(StoreError::Changed(_)) => "changed",
            Err(StoreError::Refused(_)) => "refused",
        };
        result
    }
}

/// Records when it goes, so that a call whose future is dropped is counted too.
struct Timer {
    call: Call,
    outcome: &'static str,
    start: Instant,
}

impl Drop for Timer {
    fn drop(&mut self) {
        metrics::histogram!(
            "jumar_store_call_duration_seconds",
            "call" => self.call.name(),
            "outcome" => self.outcome,
        )
        .record(self.start.elapsed());
    }
}

impl MeasuredStore {
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
}

#[async_trait]
impl Store for MeasuredStore {
    fn shape(&self) -> Shape<'_> {
        match self.inner.shape() {
            Shape::InPlace(_) => Shape::InPlace(self),
            Shape::Parts(_) => Shape::Parts(self),
        }
    }

    async fn head(&self, key: &StoreKey) -> Result<Option<Found>> {
        self.timed(Call::Head, self.inner.head(key)).await
    }

    async fn read(&self, key: &StoreKey, range: Option<ByteRange>) -> Result<ByteStream> {
        self.timed(Call::Read, self.inner.read(key, range)).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<()> {
        self.timed(Call::Delete, self.inner.delete(key)).await
    }

    async fn ping(&self) -> Result<()> {
        self.timed(Call::Ping, self.inner.ping()).await
    }

    async fn check(&self) -> Vec<Finding> {
        self.inner.check().await
    }
}

#[async_trait]
impl InPlace for MeasuredStore {
    async fn open(&self, id: UploadId) -> Result<Arc<dyn StagedFile>> {
        self.timed(Call::Open, self.in_place().open(id)).await
    }

    async fn publish(&self, id: UploadId, key: &StoreKey, size: Length) -> Result<Stored> {
        let published = self.in_place().publish(id, key, size);
        self.timed(Call::Publish, published).await
    }

    async fn discard(&self, id: UploadId) -> Result<()> {
        self.timed(Call::Discard, self.in_place().discard(id)).await
    }

    async fn staged(&self) -> Result<Vec<UploadId>> {
        self.timed(Call::Staged, self.in_place().staged()).await
    }

    async fn free_bytes(&self) -> Result<u64> {
        self.in_place().free_bytes().await
    }
}

#[async_trait]
impl Parts for MeasuredStore {
    fn equal_parts(&self) -> bool {
        self.parts().equal_parts()
    }

    async fn put(&self, key: &StoreKey, payload: Payload, about: &About) -> Result<Put> {
        let put = self.parts().put(key, payload, about);
        self.timed(Call::Put, put).await
    }

    async fn begin(&self, key: &StoreKey, about: &About) -> Result<StoreUploadId> {
        self.timed(Call::Begin, self.parts().begin(key, about))
            .await
    }

    async fn put_part(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        number: PartNumber,
        range: ByteRange,
        payload: Payload,
    ) -> Result<PartReceipt> {
        let put = self.parts().put_part(key, upload, number, range, payload);
        self.timed(Call::PutPart, put).await
    }

    async fn finish(
        &self,
        key: &StoreKey,
        upload: &StoreUploadId,
        parts: &[PartReceipt],
        size: Length,
    ) -> Result<Stored> {
        let finished = self.parts().finish(key, upload, parts, size);
        self.timed(Call::Finish, finished).await
    }

    async fn abort(&self, key: &StoreKey, upload: &StoreUploadId) -> Result<()> {
        self.timed(Call::Abort, self.parts().abort(key, upload))
            .await
    }

    async fn multipart_of(&self, key: &StoreKey) -> Result<Vec<FoundMultipart>> {
        self.timed(Call::MultipartOf, self.parts().multipart_of(key))
            .await
    }

    async fn multipart_uploads(
        &self,
        after: Option<&FoundMultipart>,
        limit: u32,
    ) -> Result<Vec<FoundMultipart>> {
        let listed = self.parts().multipart_uploads(after, limit);
        self.timed(Call::MultipartUploads, listed).await
    }
}
