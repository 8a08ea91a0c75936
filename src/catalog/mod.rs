//! What is known: the catalog of uploads.
//!
//! Owns the records of uploads, their ranges, parts and intents, finished objects, the outbox of events and tokens. Leaves the
//! bytes to [`crate::store`] and every decision that needs no record to [`crate::engine`].
//!
//! Every operation of [`Catalog`] is atomic and durable when it returns `Ok`. When its future is dropped, or when it
//! returns [`CatalogError::Unavailable`], it has happened or not; each one says what repeating it does. Operations that
//! change an upload on behalf of a writer carry the writer's [`Epoch`] and fail with [`CatalogError::Stale`] if another
//! process took the upload over or ended it.

#[cfg(test)]
pub(crate) mod conformance;
pub mod sqlite;
mod tokens;

use std::time::Duration;

use async_trait::async_trait;

use crate::model::digest::Digests;
use crate::model::quota::Used;
use crate::model::upload::{
    Declared, Epoch, FailureReason, HashPoint, Protocol, Role, Snapshot, StoreUploadId,
};
use crate::model::{
    ByteRange, Digest, KeyHash, Length, LimitHit, Limits, Object, PartNumber, PartReceipt, Plan,
    SpaceName, StoreKey, Timestamp, Upload, UploadId, UploadOwner,
};

pub use tokens::{ApiKeyRecord, Revoked, TokenLists, Tokens};

/// Why the catalog did not do it.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The upload is under another epoch, or in a state that the operation does not start from. Load it again.
    #[error("the upload was taken over or ended by another process")]
    Stale,
    /// There is no such upload.
    #[error("no such upload in the catalog")]
    NotFound,
    /// The catalog cannot take it now (locked, disk full, read-only); trying later may work. It may have happened all the same.
    #[error("the catalog cannot take it now: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A limit of the upload's creator was met. Nothing changed.
    #[error("the limit {} was met", .0.limit.as_str())]
    Limited(LimitHit),
    /// The catalog holds something that this version cannot read. Trying again will not help.
    #[error("the catalog holds what this version cannot read: {0}")]
    Corrupt(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Short for results of the catalog.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// An upload to create.
#[derive(Debug, Clone)]
pub struct NewUpload {
    /// Its new name.
    pub id: UploadId,
    /// The hash of its new key.
    pub key_hash: KeyHash,
    /// Whose it is.
    pub owner: UploadOwner,
    /// The most bytes that it may have, if that is less than the server allows.
    pub max_size: Option<Length>,
    /// Its content has to be of the type that is declared.
    pub typed: bool,
    /// How long its record stays once it has ended, if that is not as long as everywhere.
    pub retention: Option<Duration>,
    /// What its creator is held to.
    pub limits: Limits,
    /// An upload that got no byte since then does not count as open.
    pub idle_since: Timestamp,
    /// The protocol that creates it.
    pub protocol: Protocol,
    /// What it is for.
    pub role: Role,
    /// The partial uploads that a final one is made of, in order; empty for others.
    pub parts: Vec<UploadId>,
    /// What only its key opens.
    pub sealed: Option<Vec<u8>>,
    /// What its client declares.
    pub declared: Declared,
    /// Its length, if known.
    pub length: Option<Length>,
    /// How it is cut into parts.
    pub plan: Plan,
    /// The key that its object will have.
    pub store_key: StoreKey,
    /// Now.
    pub now: Timestamp,
    /// When it expires, unless bytes arrive.
    pub expires_at: Timestamp,
    /// If an object is there under this address of its content, and agrees with what is declared, the upload is completed
    /// at once.
    pub instant: Option<StoreKey>,
    /// Until when its creator holds the assembly of a final upload whose parts are all complete.
    pub held_until: Timestamp,
}

/// Makes a creation repeatable (the `Idempotency-Key` header).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// SHA-256 over the caller's scope and the key that it sent.
    pub key_hash: [u8; 32],
    /// SHA-256 over what the request asked for.
    pub fingerprint: [u8; 32],
    /// Until when it is remembered.
    pub expires_at: Timestamp,
}

/// What a creation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// A new upload, under epoch 1, owned by the caller.
    New(Upload),
    /// The upload of an earlier creation with the same idempotency key. It has the new key hash now, and its epoch went up by
    /// one: the caller owns it.
    Repeated(Upload),
    /// The idempotency key was used for another request. Nothing changed.
    Mismatch,
    /// The earlier creation's upload has received bytes, has URLs out, or ended otherwise than by expiring. Nothing changed.
    InUse,
    /// One of the parts, counted from 0, is not there, is no partial upload, or has ended otherwise than by completing.
    /// Nothing changed.
    PartGone(usize),
}

/// A complete partial upload, as a source of a final one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The key of its object.
    pub key: StoreKey,
    /// The object's size.
    pub size: Length,
    /// The object's digests.
    pub digests: Digests,
}

/// What a writer has made durable and wants to be remembered. See [`Catalog::commit`].
#[derive(Debug, Clone)]
pub struct Commit {
    /// The upload.
    pub id: UploadId,
    /// The epoch that the writer owns the upload under.
    pub epoch: Epoch,
    /// Bytes that are durable now, in the store or in the tail. They merge with what was there.
    pub received: Vec<ByteRange>,
    /// Parts that the store has acknowledged. A part of the same number is replaced.
    pub parts: Vec<PartReceipt>,
    /// Parts that no URL is good for any more, and that hold what came through the server.
    pub closed: Vec<PartNumber>,
    /// How far the bytes are hashed; replaces what was there if set.
    pub hash: Option<HashPoint>,
    /// The length, if it has become known. Setting another than is there already is [`CatalogError::Stale`].
    pub length: Option<Length>,
    /// Parts went, or go from now on, to the store unhashed. Never reset.
    pub readback: bool,
    /// The boot of the machine that wrote the bytes, where they are not synced; replaces what was there if set.
    pub boot: Option<String>,
    /// Now; `updated_at` becomes this.
    pub now: Timestamp,
    /// The new expiry, if it slides.
    pub expires_at: Option<Timestamp>,
    /// If every byte of the upload's length is there then, it is to be brought together. Most uploads end with the request that
    /// brings the last byte, and one transaction does for both.
    pub assemble: Option<Assemble>,
}

/// How an upload that has all its bytes is to be brought together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assemble {
    /// When others may take it over.
    pub until: Timestamp,
    /// The key that is claimed for it, if that is known by now.
    pub key: Option<StoreKey>,
}

impl Assemble {
    /// Held until then, under its own key. An address is claimed when the digest that it is made of is known.
    #[must_use]
    pub fn of(upload: &Upload, until: Timestamp) -> Self {
        Self {
            until,
            key: (!upload.is_staged()).then(|| upload.store_key.clone()),
        }
    }
}

/// What became of an [`Assemble`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Assembled {
    /// It is assembling by this call.
    pub begun: bool,
    /// Its key is claimed for it.
    pub claimed: bool,
}

/// What follows on a completion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Completed {
    /// Final uploads of which it was the last part, which are assembling now.
    pub ready: Vec<UploadId>,
    /// It has intents left.
    pub has_intents: bool,
}

/// Something that may exist in the store and that no name derived from the upload leads to, or that costs a call to look
/// for. Recorded before it is made, dropped when it is known to be gone or has become the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The upload that it is for.
    pub upload: UploadId,
    /// What it is.
    pub kind: IntentKind,
    /// Under which key.
    pub key: StoreKey,
    /// The store's name for it, once that is known (multipart uploads).
    pub store_upload_id: Option<StoreUploadId>,
    /// When it was recorded.
    pub created_at: Timestamp,
}

/// What kind of thing an [`Intent`] announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IntentKind {
    /// A multipart upload under the key.
    Multipart,
    /// An object, complete or in the making, under the key; in a folder also what is staged for it.
    Object,
    /// An object under the address of its content, which may be a copy in the making. As long as an ended upload has this
    /// intent, nobody else can claim the key.
    Address,
}

/// An ended upload that may have left something: what it announced, [`Catalog::intents`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leftover {
    /// The upload.
    pub id: UploadId,
    /// Whether its object is to stay (it was completed).
    pub completed: bool,
    /// When it ended.
    pub ended_at: Timestamp,
}

/// What an abort came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aborted {
    /// It is aborted now, or was before.
    Done,
    /// It had ended in another way, or is assembling; its state tells. Nothing changed.
    Refused,
}

/// What claiming a final key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The key is this upload's, now or since an earlier call.
    Yes,
    /// Another upload has brought the object that is there.
    Stored(Box<Object>),
    /// Another upload is at it: it is making the object, or one that has ended has yet to remove it. Ask again.
    Busy(UploadId),
}

/// How many uploads are in a state that can still change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Open {
    /// Pending, uploading or assembling.
    pub uploads: u64,
}

/// An upload whose time has come, and where to go on from to find the next one: such lists are in the order of their
/// times, and of ids where times are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When it came: the upload's expiry, or the end of the hold on its assembly.
    pub at: Timestamp,
    /// The upload.
    pub id: UploadId,
}

/// Which uploads are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this space.
    pub space: Option<SpaceName>,
    /// In the state of this name.
    pub state: Option<&'static str>,
    /// Created no later than this.
    pub created_until: Option<Timestamp>,
    /// From this one on, which is left out.
    pub after: Option<UploadId>,
}

/// What there is in a space.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SpaceUsage {
    /// Its name.
    pub space: String,
    /// Uploads that go on or are completed.
    pub uploads: u64,
    /// Their bytes, those that are to come included where that is known.
    pub bytes: u64,
    /// Uploads that take bytes.
    pub open: u64,
}

/// An upload that the catalog knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The upload.
    pub id: UploadId,
    /// Whether it has ended.
    pub ended: bool,
}

/// Whose a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The key that was asked for.
    pub key: StoreKey,
    /// The upload whose object has, or would have, it.
    pub upload: Known,
    /// The upload's multipart upload.
    pub store_upload_id: Option<StoreUploadId>,
    /// The key is not the one that the upload's bytes are brought together under, but the address that its object gets to. Its
    /// multipart uploads there have no record.
    pub at_address: bool,
}

/// The record of uploads and, by [`Tokens`], of who may make them. See the module's documentation for what all operations
/// share.
#[async_trait]
pub trait Catalog: Tokens {
    /// Creates an upload, pending, under epoch 1, and records `idempotency` with it. A final one whose parts are all complete
    /// is assembling at once, held by the caller; its length is the sum of theirs. Or finds the earlier creation of the
    /// same idempotency key. `Limited` if it would go beyond a limit: what it takes is counted in the same transaction. A record that has expired counts as none; so does one whose upload has expired, whether
    /// [`expire`](Self::expire) came by or not: it is replaced. Repeated without idempotency: [`CatalogError::Stale`] (the
    /// id is taken).
    async fn create(&self, new: NewUpload, idempotency: Option<Idempotency>) -> Result<Created>;

    /// Whose an upload is, and the hash of the key that opens it; `None` if there is none. Reads only.
    async fn owner(&self, id: UploadId) -> Result<Option<(KeyHash, UploadOwner)>>;

    /// Uploads, the newest first, at most `limit`. Reads only.
    async fn list(&self, filter: Filter, limit: u32) -> Result<Vec<Upload>>;

    /// What there is in each space that was ever used, by its name. Reads only.
    async fn spaces(&self) -> Result<Vec<SpaceUsage>>;

    /// Remembers what a round of pruning did, instead of the round before.
    async fn record_prune(&self, at: Timestamp, report: String) -> Result<()>;

    /// What was remembered of the last round of pruning. Reads only.
    async fn last_prune(&self) -> Result<Option<(Timestamp, String)>>;

    /// How much of each of these limits an owner has used up. Reads only.
    async fn used(
        &self,
        owner: UploadOwner,
        limits: Limits,
        idle_since: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Used>>;

    /// Everything known of one upload, as of one moment; `None` if there is none. Reads only. The length of a final one is
    /// known as soon as its parts' are.
    async fn load(&self, id: UploadId) -> Result<Option<Snapshot>>;

    /// Takes an upload over: its epoch goes up by one, in every state but the ended ones (those are returned as they
    /// are), and writers under the old epoch fail from now on. Repeated, it goes up again. `NotFound` if there is none.
    async fn claim(&self, id: UploadId, now: Timestamp) -> Result<Snapshot>;

    /// Remembers what a writer has made durable, all of it or nothing; `pending` becomes `uploading` when bytes are
    /// received. `Limited` if the bytes of an upload of unknown length go beyond a limit. Starts from pending, uploading and assembling, under the writer's epoch, else `Stale`; so is a byte beyond
    /// the length. Repeating it changes nothing. Begins the assembly as [`begin_assembly`](Self::begin_assembly) does, if that was
    /// asked for and every byte is there, and does not if not.
    async fn commit(&self, commit: Commit) -> Result<Assembled>;

    /// Announces what is about to be made. Repeated, it stays as it was. Starts from the writer's epoch in a state that
    /// has not ended, else `Stale`.
    async fn announce(&self, intent: Intent, epoch: Epoch) -> Result<()>;

    /// An upload is to be brought together under this key. Starts from the writer's epoch in a state that takes bytes, with nothing
    /// announced, else `Stale`. Repeatable.
    async fn stage(&self, id: UploadId, epoch: Epoch, key: StoreKey) -> Result<()>;

    /// Fills in what the store called the multipart upload that was announced, in the intent and in the upload, and whether
    /// it was begun without checksums. Starts from the writer's epoch in a state that has not ended, with the announcement
    /// there, else `Stale`. Repeated with another id, it is replaced.
    async fn name_multipart(
        &self,
        id: UploadId,
        epoch: Epoch,
        store_upload_id: StoreUploadId,
        unchecked: bool,
    ) -> Result<()>;

    /// Remembers that URLs for these parts may be good until then, before they are handed out. A later time takes the place of
    /// an earlier one, never the other way round; so repeating it changes nothing. It is forgotten with the parts when the
    /// upload ends, or by [`Commit::closed`]. Starts from pending or uploading under the writer's epoch, else `Stale`.
    async fn open_parts(
        &self,
        id: UploadId,
        epoch: Epoch,
        numbers: Vec<PartNumber>,
        until: Timestamp,
    ) -> Result<()>;

    /// Pending or uploading becomes assembling, with the length fixed and, in the same transaction, every byte of it
    /// found to be received, and none beyond; else `Stale`. `digests` joins what was declared at creation and may not
    /// contradict it (`Stale`). Its key is claimed in the same transaction as [`claim_key`](Self::claim_key) does, unless another
    /// has it. Repeated: `Stale`.
    async fn begin_assembly(
        &self,
        id: UploadId,
        epoch: Epoch,
        length: Length,
        digests: Digests,
        assemble: Assemble,
        now: Timestamp,
    ) -> Result<Assembled>;

    /// Finishing did not work this time: counts the attempt, and lets anyone go on from `until` on. Starts from assembling
    /// under the epoch, else `Stale`.
    async fn postpone_assembly(&self, id: UploadId, epoch: Epoch, until: Timestamp) -> Result<()>;

    /// Whoever works on an assembly goes on holding it, until `until`; no attempt is counted. Starts from assembling under
    /// the epoch, else `Stale`. Repeatable.
    async fn hold_assembly(&self, id: UploadId, epoch: Epoch, until: Timestamp) -> Result<()>;

    /// Uploads that are assembling and that nobody holds at `now`, the longest waiting first, from `after` on. One that
    /// [`load`](Self::load) could not read is among them. Reads only.
    async fn due_assemblies(
        &self,
        now: Timestamp,
        after: Option<Due>,
        limit: u32,
    ) -> Result<Vec<Due>>;

    /// Claims an assembling upload that nobody holds: epoch one up, `until` set. `None` if it is not assembling or someone holds it.
    async fn claim_assembly(
        &self,
        id: UploadId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Snapshot>>;

    /// Claims a final key for an upload, for good. Repeatable. `Stale` if nobody has the key and the upload is not there or
    /// has ended, so that no claim is left behind.
    ///
    /// A key that is an address of content may be wanted by many: one claims it and makes the object, the others complete with
    /// that object.
    async fn claim_key(&self, key: StoreKey, id: UploadId, now: Timestamp) -> Result<Claimed>;

    /// Assembling becomes completed: the object, the event `completed` and the new state in one transaction, the
    /// intents listed in `settled` dropped. Starts from assembling under the epoch, with the object's key claimed for this
    /// upload or for nobody (then it is now), or with exactly this object stored by another, which one more upload names then
    /// (`Stale` if that is gone again);
    /// else `Stale`; so it happens once. Parts are forgotten, ranges stay. A shared object can be found by its content
    /// ([`object_with`](Self::object_with)).
    ///
    /// A partial upload causes no event; pending final uploads of which it was the last part turn to assembling, with their
    /// length, held by nobody, and are returned. A final upload's parts expire now, if they did not before.
    async fn complete(
        &self,
        id: UploadId,
        epoch: Epoch,
        object: Object,
        settled: Vec<IntentKind>,
        now: Timestamp,
    ) -> Result<Completed>;

    /// The object with this SHA-256, if there is one that is addressed by its content. Reads only.
    async fn object_with(&self, sha256: Digest) -> Result<Option<Object>>;

    /// What a final upload is made of, in order. `Stale` if one of its parts is not complete. Reads only.
    async fn sources(&self, id: UploadId) -> Result<Vec<Source>>;

    /// Whatever ends a partial upload otherwise than by completing (here and below) also ends the pending final uploads that it
    /// is a part of: they fail with [`FailureReason::PartGone`].
    ///
    /// Assembling, pending or uploading becomes failed, with the event `failed`; its claimed key is given back. Starts
    /// from the epoch, else `Stale`; so it happens once. Parts are forgotten, ranges stay.
    async fn fail(
        &self,
        id: UploadId,
        epoch: Epoch,
        reason: FailureReason,
        now: Timestamp,
    ) -> Result<()>;

    /// Pending or uploading becomes aborted, its epoch one up, with the event `aborted`; its ranges and parts are
    /// forgotten. Repeatable. `NotFound` if there is none.
    async fn abort(&self, id: UploadId, now: Timestamp) -> Result<Aborted>;

    /// Completed or failed becomes aborted, its epoch one up, with the event `aborted`. `with_object`, it lets go of its object:
    /// if no other upload names that, its record goes and an intent to delete it from the store is left. Refused in every other state but aborted, and for a partial
    /// upload that an assembling one is made of. Repeatable. `NotFound` if there is none.
    async fn terminate(&self, id: UploadId, with_object: bool, now: Timestamp) -> Result<Aborted>;

    /// Completed partial uploads that expired before `before`, the oldest first, from `after` on. Reads only.
    async fn spent_parts(
        &self,
        before: Timestamp,
        after: Option<Due>,
        limit: u32,
    ) -> Result<Vec<Due>>;

    /// A completed partial upload that expired before `before` becomes expired, its object's record goes, and an intent
    /// to delete it from the store is left; not while a pending or assembling upload is made of it. Whether this call
    /// changed it.
    async fn discard_part(&self, id: UploadId, before: Timestamp, now: Timestamp) -> Result<bool>;

    /// Pending and uploading uploads whose `expires_at` is not after `now`, the oldest first, from `after` on. One that
    /// [`load`](Self::load) could not read is among them. Reads only.
    async fn expired(&self, now: Timestamp, after: Option<Due>, limit: u32) -> Result<Vec<Due>>;

    /// An upload that is still pending or uploading and past its expiry becomes expired, epoch one up, with the event
    /// `expired`; its ranges and parts are forgotten. Returns its protocol and role if this call changed it, `None` if there was
    /// nothing to change, so it happens once. Made for many at once: each fails alone.
    async fn expire(&self, id: UploadId, now: Timestamp) -> Result<Option<(Protocol, Role)>>;

    /// Ended uploads that have intents, in the order of their ids from `after` on, also those that
    /// [`load`](Self::load) or [`intents`](Self::intents) could not read. Reads only.
    async fn leftovers(&self, after: Option<UploadId>, limit: u32) -> Result<Vec<Leftover>>;

    /// What one upload has announced and not dropped. Reads only.
    async fn intents(&self, id: UploadId) -> Result<Vec<Intent>>;

    /// Whether the caller is the one who removes what an ended upload has at an address ([`IntentKind::Address`]); others are
    /// told no until `until`. The key can be claimed again as soon as the intent is settled, and a second removal would
    /// take what came then.
    async fn hold_address(&self, id: UploadId, now: Timestamp, until: Timestamp) -> Result<bool>;

    /// Drops intents whose things are known to be gone. Repeatable.
    async fn settle(&self, id: UploadId, kinds: Vec<IntentKind>) -> Result<()>;

    /// Removes the records of uploads that ended before `before`, or longer ago than their own retention at `now`, and have no
    /// intents left (of partial ones that are complete not before they are discarded), with all that hangs on them but a
    /// completed one's object and the events, at most `limit` of either; returns how many. Repeatable.
    async fn purge_ended(&self, before: Timestamp, now: Timestamp, limit: u32) -> Result<u64>;

    /// Counts what [`purge_ended`](Self::purge_ended) would remove. Reads only.
    async fn count_ended(&self, before: Timestamp, now: Timestamp) -> Result<u64>;

    /// Removes idempotency records that have expired, revocations that can be forgotten, and events older than `events_before`;
    /// returns how many. Repeatable.
    async fn purge_records(
        &self,
        now: Timestamp,
        events_before: Timestamp,
        limit: u32,
    ) -> Result<u64>;

    /// Which of `ids` the catalog knows, also those that [`load`](Self::load) could not read, and whether they have ended. Used for what lies on a disk under an upload's name. Reads
    /// only.
    async fn known_among(&self, ids: Vec<UploadId>) -> Result<Vec<Known>>;

    /// Which of `keys` are keys of uploads that the catalog knows. Used for what lies in a bucket. Reads only.
    async fn owners(&self, keys: Vec<StoreKey>) -> Result<Vec<Owner>>;

    /// How many uploads are open. Reads only.
    async fn open(&self) -> Result<Open>;

    /// Whether the catalog can be written: commits something small within `within`.
    async fn ping(&self, within: Duration) -> Result<()>;
}
