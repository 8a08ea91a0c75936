//! The catalog in one SQLite file.
//!
//! Owns all of the SQL. Writing is one thread's work (`writer.rs`): what is queued shares a transaction, and is answered
//! once that is durable. Reading goes on beside it, on connections that can only read (`readers.rs`). Each operation is a
//! function from a connection inside a transaction to a result; the files are cut by theme.
//!
//! Other processes may have the same file open. They take turns by SQLite's own locks, for which one waits
//! five seconds; epochs keep their writers apart.

mod assembling;
mod concat;
mod creating;
mod direct;
mod ending;
mod error;
mod events;
mod intents;
mod listing;
mod open;
mod purging;
mod quota;
mod ranges;
mod readers;
mod rows;
mod tokens;
mod writer;
mod writing;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Aborted, Assemble, Assembled, Catalog, Claimed, Commit, Completed, Created, Due, Filter,
    Idempotency, Intent, IntentKind, Known, Leftover, NewUpload, Open, Owner, Result, Source,
    SpaceUsage,
};
use crate::model::digest::Digests;
use crate::model::quota::Used;
use crate::model::upload::{Epoch, FailureReason, Protocol, Role, Snapshot, StoreUploadId};
use crate::model::{
    Digest, KeyHash, Length, Limits, Object, PartNumber, StoreKey, Timestamp, Upload, UploadId,
    UploadOwner,
};

pub use open::{OpenError, Synchronous, migrate};
use readers::Readers;
use writer::Writer;

/// How long a connection waits for another process that holds the file's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The catalog in one SQLite file. Dropping it stops its thread after what is queued.
#[derive(Debug)]
pub struct SqliteCatalog {
    writer: Writer,
    readers: Readers,
}

impl SqliteCatalog {
    /// Opens the catalog in the file at `path`, which [`migrate`] has brought to this version's schema. Blocks.
    pub fn open(path: &Path, synchronous: Synchronous) -> std::result::Result<Self, OpenError> {
        Self::open_waiting(path, synchronous, BUSY_TIMEOUT)
    }

    fn open_waiting(
        path: &Path,
        synchronous: Synchronous,
        busy_timeout: Duration,
    ) -> std::result::Result<Self, OpenError> {
        let connection = open::for_writing(path, synchronous, busy_timeout)?;
        Ok(Self {
            writer: Writer::start(connection).map_err(OpenError::Thread)?,
            readers: Readers::new(path.to_owned(), busy_timeout),
        })
    }
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn create(&self, new: NewUpload, idempotency: Option<Idempotency>) -> Result<Created> {
        self.writer
            .run(move |tx| creating::create(tx, &new, idempotency.as_ref()))
            .await
    }

    async fn owner(&self, id: UploadId) -> Result<Option<(KeyHash, UploadOwner)>> {
        self.readers.run(move |tx| rows::owner(tx, id)).await
    }

    async fn list(&self, filter: Filter, limit: u32) -> Result<Vec<Upload>> {
        self.readers
            .run(move |tx| listing::list(tx, &filter, limit))
            .await
    }

    async fn spaces(&self) -> Result<Vec<SpaceUsage>> {
        self.readers.run(listing::spaces).await
    }

    async fn record_prune(&self, at: Timestamp, report: String) -> Result<()> {
        self.writer
            .run(move |tx| purging::record(tx, at, &report))
            .await
    }

    async fn last_prune(&self) -> Result<Option<(Timestamp, String)>> {
        self.readers.run(purging::last).await
    }

    async fn used(
        &self,
        owner: UploadOwner,
        limits: Limits,
        idle_since: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Used>> {
        self.readers
            .run(move |tx| quota::used(tx, &owner, &limits, idle_since, now))
            .await
    }

    async fn load(&self, id: UploadId) -> Result<Option<Snapshot>> {
        self.readers.run(move |tx| rows::snapshot(tx, id)).await
    }

    async fn claim(&self, id: UploadId, now: Timestamp) -> Result<Snapshot> {
        self.writer.run(move |tx| writing::claim(tx, id, now)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Assembled> {
        self.writer
            .run(move |tx| writing::commit(tx, &commit))
            .await
    }

    async fn announce(&self, intent: Intent, epoch: Epoch) -> Result<()> {
        self.writer
            .run(move |tx| intents::announce(tx, &intent, epoch))
            .await
    }

    async fn stage(&self, id: UploadId, epoch: Epoch, key: StoreKey) -> Result<()> {
        self.writer
            .run(move |tx| intents::stage(tx, id, epoch, &key))
            .await
    }

    async fn name_multipart(
        &self,
        id: UploadId,
        epoch: Epoch,
        store_upload_id: StoreUploadId,
        unchecked: bool,
    ) -> Result<()> {
        self.writer
            .run(move |tx| intents::name_multipart(tx, id, epoch, &store_upload_id, unchecked))
            .await
    }

    async fn open_parts(
        &self,
        id: UploadId,
        epoch: Epoch,
        numbers: Vec<PartNumber>,
        until: Timestamp,
    ) -> Result<()> {
        self.writer
            .run(move |tx| direct::open(tx, id, epoch, &numbers, until))
            .await
    }

    async fn begin_assembly(
        &self,
        id: UploadId,
        epoch: Epoch,
        length: Length,
        digests: Digests,
        assemble: Assemble,
        now: Timestamp,
    ) -> Result<Assembled> {
        self.writer
            .run(move |tx| assembling::begin(tx, id, epoch, length, &digests, &assemble, now))
            .await
    }

    async fn postpone_assembly(&self, id: UploadId, epoch: Epoch, until: Timestamp) -> Result<()> {
        self.writer
            .run(move |tx| assembling::postpone(tx, id, epoch, until))
            .await
    }

    async fn hold_assembly(&self, id: UploadId, epoch: Epoch, until: Timestamp) -> Result<()> {
        self.writer
            .run(move |tx| assembling::hold(tx, id, epoch, until))
            .await
    }

    async fn due_assemblies(
        &self,
        now: Timestamp,
        after: Option<Due>,
        limit: u32,
    ) -> Result<Vec<Due>> {
        self.readers
            .run(move |tx| rows::due(tx, assembling::DUE, now, after, limit))
            .await
    }

    async fn claim_assembly(
        &self,
        id: UploadId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Snapshot>> {
        self.writer
            .run(move |tx| assembling::claim(tx, id, now, until))
            .await
    }

    async fn claim_key(&self, key: StoreKey, id: UploadId, now: Timestamp) -> Result<Claimed> {
        self.writer
            .run(move |tx| assembling::claim_key(tx, &key, id, now))
            .await
    }

    async fn complete(
        &self,
        id: UploadId,
        epoch: Epoch,
        object: Object,
        settled: Vec<IntentKind>,
        now: Timestamp,
    ) -> Result<Completed> {
        self.writer
            .run(move |tx| ending::complete(tx, id, epoch, object, &settled, now))
            .await
    }

    async fn object_with(&self, sha256: Digest) -> Result<Option<Object>> {
        self.readers
            .run(move |tx| rows::object_with(tx, &sha256))
            .await
    }

    async fn sources(&self, id: UploadId) -> Result<Vec<Source>> {
        self.readers.run(move |tx| concat::sources(tx, id)).await
    }

    async fn fail(
        &self,
        id: UploadId,
        epoch: Epoch,
        reason: FailureReason,
        now: Timestamp,
    ) -> Result<()> {
        self.writer
            .run(move |tx| ending::fail(tx, id, epoch, reason, now))
            .await
    }

    async fn abort(&self, id: UploadId, now: Timestamp) -> Result<Aborted> {
        self.writer.run(move |tx| ending::abort(tx, id, now)).await
    }

    async fn terminate(&self, id: UploadId, with_object: bool, now: Timestamp) -> Result<Aborted> {
        self.writer
            .run(move |tx| ending::terminate(tx, id, with_object, now))
            .await
    }

    async fn spent_parts(
        &self,
        before: Timestamp,
        after: Option<Due>,
        limit: u32,
    ) -> Result<Vec<Due>> {
        self.readers
            .run(move |tx| rows::due(tx, concat::SPENT, before, after, limit))
            .await
    }

    async fn discard_part(&self, id: UploadId, before: Timestamp, now: Timestamp) -> Result<bool> {
        self.writer
            .run(move |tx| concat::discard(tx, id, before, now))
            .await
    }

    async fn expired(&self, now: Timestamp, after: Option<Due>, limit: u32) -> Result<Vec<Due>> {
        self.readers
            .run(move |tx| rows::due(tx, ending::EXPIRED, now, after, limit))
            .await
    }

    async fn expire(&self, id: UploadId, now: Timestamp) -> Result<Option<(Protocol, Role)>> {
        self.writer.run(move |tx| ending::expire(tx, id, now)).await
    }

    async fn leftovers(&self, after: Option<UploadId>, limit: u32) -> Result<Vec<Leftover>> {
        self.readers
            .run(move |tx| intents::leftovers(tx, after, limit))
            .await
    }

    async fn intents(&self, id: UploadId) -> Result<Vec<Intent>> {
        self.readers.run(move |tx| intents::of(tx, id)).await
    }

    async fn hold_address(&self, id: UploadId, now: Timestamp, until: Timestamp) -> Result<bool> {
        self.writer
            .run(move |tx| intents::hold_address(tx, id, now, until))
            .await
    }

    async fn settle(&self, id: UploadId, kinds: Vec<IntentKind>) -> Result<()> {
        self.writer
            .run(move |tx| intents::settle(tx, id, &kinds))
            .await
    }

    async fn purge_ended(&self, before: Timestamp, now: Timestamp, limit: u32) -> Result<u64> {
        self.writer
            .run(move |tx| purging::purge_ended(tx, before, now, limit))
            .await
    }

    async fn count_ended(&self, before: Timestamp, now: Timestamp) -> Result<u64> {
        self.readers
            .run(move |tx| purging::count_ended(tx, before, now))
            .await
    }

    async fn purge_records(
        &self,
        now: Timestamp,
        events_before: Timestamp,
        limit: u32,
    ) -> Result<u64> {
        self.writer
            .run(move |tx| purging::purge_records(tx, now, events_before, limit))
            .await
    }

    async fn known_among(&self, ids: Vec<UploadId>) -> Result<Vec<Known>> {
        self.readers
            .run(move |tx| purging::known_among(tx, &ids))
            .await
    }

    async fn owners(&self, keys: Vec<StoreKey>) -> Result<Vec<Owner>> {
        self.readers.run(move |tx| purging::owners(tx, &keys)).await
    }

    async fn open(&self) -> Result<Open> {
        self.readers.run(purging::open).await
    }

    async fn ping(&self, within: Duration) -> Result<()> {
        tokio::time::timeout(within, self.writer.run(purging::beat))
            .await
            .unwrap_or_else(|_| Err(error::unavailable("it took too long")))
    }
}
