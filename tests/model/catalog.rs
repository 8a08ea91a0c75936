//! The catalog in the weather: each of its operations passes through it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jumar::catalog::sqlite::SqliteCatalog;
use jumar::catalog::{
    Aborted, ApiKeyRecord, Assemble, Assembled, Catalog, Claimed, Commit, Completed, Created, Due,
    Filter, Idempotency, Intent, IntentKind, Known, Leftover, NewUpload, Open, Owner, Result,
    Revoked, Source, SpaceUsage, TokenLists, Tokens,
};
use jumar::model::digest::Digests;
use jumar::model::quota::Used;
use jumar::model::token::LinkSecret;
use jumar::model::upload::{Epoch, FailureReason, Protocol, Role, Snapshot, StoreUploadId};
use jumar::model::{
    Digest, KeyHash, Length, Limits, Object, PartNumber, StoreKey, Timestamp, TokenId, Upload,
    UploadId, UploadOwner,
};

use crate::weather::Weather;

/// Around the catalog of one process.
pub(crate) struct Weathered {
    pub(crate) inner: Arc<SqliteCatalog>,
    pub(crate) weather: Weather,
}

macro_rules! pass {
    ($trait:ident { $(fn $name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)* }) => {
        #[async_trait]
        impl $trait for Weathered {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$result> {
                self.weather.around_catalog(self.inner.$name($($argument),*)).await
            })*
        }
    };
}

pass! { Tokens {
    fn add_api_key(key: ApiKeyRecord) -> ();
    fn revoke_token(id: TokenId, now: Timestamp, forget_at: Option<Timestamp>) -> Revoked;
    fn tokens(known: Option<u64>) -> Option<TokenLists>;
    fn link_secret(offered: LinkSecret) -> LinkSecret;
} }

pass! { Catalog {
    fn create(new: NewUpload, idempotency: Option<Idempotency>) -> Created;
    fn owner(id: UploadId) -> Option<(KeyHash, UploadOwner)>;
    fn list(filter: Filter, limit: u32) -> Vec<Upload>;
    fn spaces() -> Vec<SpaceUsage>;
    fn record_prune(at: Timestamp, report: String) -> ();
    fn last_prune() -> Option<(Timestamp, String)>;
    fn used(owner: UploadOwner, limits: Limits, idle_since: Timestamp, now: Timestamp) -> Vec<Used>;
    fn load(id: UploadId) -> Option<Snapshot>;
    fn claim(id: UploadId, now: Timestamp) -> Snapshot;
    fn commit(commit: Commit) -> Assembled;
    fn announce(intent: Intent, epoch: Epoch) -> ();
    fn stage(id: UploadId, epoch: Epoch, key: StoreKey) -> ();
    fn name_multipart(id: UploadId, epoch: Epoch, store_upload_id: StoreUploadId, unchecked: bool) -> ();
    fn open_parts(id: UploadId, epoch: Epoch, numbers: Vec<PartNumber>, until: Timestamp) -> ();
    fn begin_assembly(id: UploadId, epoch: Epoch, length: Length, digests: Digests, assemble: Assemble, now: Timestamp) -> Assembled;
    fn postpone_assembly(id: UploadId, epoch: Epoch, until: Timestamp) -> ();
    fn hold_assembly(id: UploadId, epoch: Epoch, until: Timestamp) -> ();
    fn due_assemblies(now: Timestamp, after: Option<Due>, limit: u32) -> Vec<Due>;
    fn claim_assembly(id: UploadId, now: Timestamp, until: Timestamp) -> Option<Snapshot>;
    fn claim_key(key: StoreKey, id: UploadId, now: Timestamp) -> Claimed;
    fn complete(id: UploadId, epoch: Epoch, object: Object, settled: Vec<IntentKind>, now: Timestamp) -> Completed;
    fn object_with(sha256: Digest) -> Option<Object>;
    fn sources(id: UploadId) -> Vec<Source>;
    fn fail(id: UploadId, epoch: Epoch, reason: FailureReason, now: Timestamp) -> ();
    fn abort(id: UploadId, now: Timestamp) -> Aborted;
    fn terminate(id: UploadId, with_object: bool, now: Timestamp) -> Aborted;
    fn spent_parts(before: Timestamp, after: Option<Due>, limit: u32) -> Vec<Due>;
    fn discard_part(id: UploadId, before: Timestamp, now: Timestamp) -> bool;
    fn expired(now: Timestamp, after: Option<Due>, limit: u32) -> Vec<Due>;
    fn expire(id: UploadId, now: Timestamp) -> Option<(Protocol, Role)>;
    fn leftovers(after: Option<UploadId>, limit: u32) -> Vec<Leftover>;
    fn intents(id: UploadId) -> Vec<Intent>;
    fn hold_address(id: UploadId, now: Timestamp, until: Timestamp) -> bool;
    fn settle(id: UploadId, kinds: Vec<IntentKind>) -> ();
    fn purge_ended(before: Timestamp, now: Timestamp, limit: u32) -> u64;
    fn count_ended(before: Timestamp, now: Timestamp) -> u64;
    fn purge_records(now: Timestamp, events_before: Timestamp, limit: u32) -> u64;
    fn known_among(ids: Vec<UploadId>) -> Vec<Known>;
    fn owners(keys: Vec<StoreKey>) -> Vec<Owner>;
    fn open() -> Open;
    fn ping(within: Duration) -> ();
} }
