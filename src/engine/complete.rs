//! Completing: from "every byte is there" to one object, one completion, one event.
//!
//! The upload turns to assembling in the catalog first; from then on it ends, whoever works on it and however often it is
//! tried. Finishing is a task of its own that no hang-up of a client stops, and each of its steps can be repeated.
//!
//! A store that says that an upload's bytes are not there, or not the ones that it acknowledged, may be behind: it may not
//! know yet what it was told, or still be at an earlier try whose answer was lost. So the object is looked for, finishing
//! is tried again like after any other failure, and the upload is *lost* (failed for good) only when the store said the
//! same at least [`LOST_AFTER`] after it first did. When that was is kept in memory alone: a process that takes
//! the upload over begins anew, and at worst tries longer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::create::count;
use super::flight;
use super::hasher::Hasher;
use super::live::{Live, Opened};
use super::settle::blocking;
use super::{Complete, Completion, Conflict, EngineError, Inner, Result};
use crate::catalog::{Assemble, CatalogError, Claimed, IntentKind};
use crate::model::digest::Digests;
use crate::model::upload::{FailureReason, HashPoint, Role, Snapshot, Verified};
use crate::model::{
    ByteRange, DigestAlgorithm, Length, Object, Offset, PartNumber, PartReceipt, Plan, StoreKey,
    Upload, UploadId, UploadState,
};
use crate::store::{InPlace, Payload, Shape, StoreError, Stored};

/// How long whoever works on an assembly holds it without a sign of life.
pub(super) const HOLD: Duration = Duration::from_mins(1);
/// After a failure: how long until it is tried again, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_mins(1);
/// How long the store has to stay with it that an upload's bytes are gone: longer than listings lag behind, and than an
/// earlier try that nobody holds any more can count as being under way.
const LOST_AFTER: Duration = HOLD;
/// How often a client that waits for a long assembly is told to ask.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How many missing ranges an answer names.
const MISSING_NAMED: usize = 100;
const SAVE_WITHIN: Duration = Duration::from_millis(900);

/// How finishing ended this time.
#[derive(Debug, Clone)]
pub(super) enum Finished {
    Done(Box<Object>),
    Failed(FailureReason),
    /// Failed for good, and this is the digest that differs.
    WrongDigest(DigestAlgorithm),
    /// Something stands in the way; it is tried again by itself.
    Postponed(Duration),
    /// Another process works on it.
    Elsewhere,
}

impl Inner {
    pub(super) async fn complete(self: &Arc<Self>, command: Complete) -> Result<Completion> {
        loop {
            let live = match self.open(command.id, &command.key).await? {
                Opened::Live(live) => live,
                Opened::Waiting(_) => return Err(EngineError::incomplete()),
                Opened::Ended(upload) => return answer_ended(&upload, &command),
            };
            match self.complete_live(&live, &command).await {
                // It ended, or changed hands, between finding it and working on it.
                Err(EngineError::Displaced) if live.state().lost => tokio::task::yield_now().await,
                outcome => return outcome,
            }
        }
    }

    async fn complete_live(
        self: &Arc<Self>,
        live: &Arc<Live>,
        command: &Complete,
    ) -> Result<Completion> {
        // A client that hangs up meanwhile does not stop it half-way, where the catalog knows more than the memory.
        let turn = {
            let (engine, live, command) = (Arc::clone(self), Arc::clone(live), command.clone());
            self.tasks
                .spawn(async move { engine.turn(&live, &command).await })
        };
        turn.await
            .unwrap_or_else(|error| Err(EngineError::Internal(error.into())))?;
        let mut finishing = self.start_finishing(live).ok_or(EngineError::Displaced)?;
        let finished = async {
            let told = finishing.wait_for(Option::is_some).await;
            told.map_or(Finished::Elsewhere, |told| {
                told.clone().expect("waited for")
            })
        };
        let waited = tokio::time::timeout(self.settings.complete_wait, finished);
        let Ok(finished) = waited.await else {
            return Ok(Completion::Working {
                retry_after: ASK_AGAIN,
            });
        };
        match finished {
            Finished::Done(object) => Ok(Completion::Done {
                object: *object,
                repeated: false,
            }),
            Finished::WrongDigest(algorithm) => Err(EngineError::DigestMismatch { algorithm }),
            Finished::Failed(reason) => Err(EngineError::Failed { reason }),
            Finished::Postponed(retry_after) => Err(EngineError::Unavailable {
                retry_after,
                source: "finishing is tried again by itself".into(),
            }),
            // Settling beside it may have found that the upload is lost, or another process may have been quicker.
            Finished::Elsewhere => match self.catalog.load(live.id).await? {
                Some(found) if found.upload.state.has_ended() => {
                    answer_ended(&found.upload, command)
                }
                _ => Ok(Completion::Working {
                    retry_after: ASK_AGAIN,
                }),
            },
        }
    }

    /// Turns the upload to assembling, unless it is.
    async fn turn(self: &Arc<Self>, live: &Arc<Live>, command: &Complete) -> Result<()> {
        let _turn = live.turning.lock().await;
        if live.state().lost {
            return Err(EngineError::Displaced);
        }
        let assembling = matches!(
            live.state().snapshot.upload.state,
            UploadState::Assembling { .. }
        );
        check_declared(
            &live.state().snapshot.upload.declared.digests,
            &command.digests,
        )?;
        if assembling {
            agree_on_length(live.length(), command.length)?;
        } else {
            return self.begin_assembly(live, command).await;
        }
        Ok(())
    }

    async fn begin_assembly(self: &Arc<Self>, live: &Arc<Live>, command: &Complete) -> Result<()> {
        if live.length().or(command.length).is_some() {
            live.save_writers(SAVE_WITHIN).await;
        } else {
            // What is there now is all there is.
            live.displace_all().await?;
        }
        self.receive_found(live).await?;
        if live.plan == Plan::Adopted && live.length().is_none() {
            // Its client has yet to say which parts it is.
            return Err(EngineError::incomplete());
        }
        let length = {
            let mut state = live.state();
            let reach = state.reach();
            let Snapshot {
                upload, received, ..
            } = &mut state.snapshot;
            agree_on_length(upload.length, command.length)?;
            let length = upload
                .length
                .or(command.length)
                .unwrap_or(Length(received.end()));
            if received.end() > length.get() {
                return Err(EngineError::RangeMismatch {
                    conflict: Conflict::Lengths,
                    detail: format!(
                        "the length {length} is less than the {} bytes that are there",
                        received.end()
                    ),
                    length: None,
                    expected_offset: Some(received.contiguous()),
                });
            }
            if !received.covers_length(length) {
                let all = ByteRange::new(0, length.get()).ok_or(EngineError::NotFound)?;
                let mut missing: Vec<_> = received.gaps(all).take(MISSING_NAMED + 1).collect();
                let truncated = missing.len() > MISSING_NAMED;
                missing.truncate(MISSING_NAMED);
                return Err(EngineError::Incomplete { missing, truncated });
            }
            if reach > length.get() {
                // A writer has come in between with more.
                return Err(EngineError::unavailable("bytes are still coming"));
            }
            // From here on no writer goes beyond it.
            upload.length = Some(length);
            length
        };
        if length > self.largest_for(live) {
            return Err(EngineError::TooLarge {
                max: self.largest_for(live),
            });
        }
        let (now, epoch) = (self.clock.now(), live.epoch());
        let until = now.after(HOLD);
        let how = Assemble::of(&live.state().snapshot.upload, until);
        let assembled = self
            .catalog
            .begin_assembly(live.id, epoch, length, command.digests.clone(), how, now)
            .await
            .map_err(|error| live.catalog_failed(error))?;
        self.places.notify_waiters();
        let mut state = live.state();
        state.key_claimed |= assembled.claimed;
        let upload = &mut state.snapshot.upload;
        upload.state = UploadState::Assembling { attempts: 0, until };
        upload.length = Some(length);
        for digest in command.digests.iter() {
            upload.declared.digests.insert(digest.clone());
        }
        if Hasher::at(&upload.declared.digests, &upload.hash).is_none() {
            // The client asks for an algorithm that nothing was hashed with so far.
            upload.hash = HashPoint {
                offset: Offset(0),
                state: Vec::new(),
            };
        }
        Ok(())
    }

    /// Finishes an upload that is assembling, or joins who is at it here. `None` if it has ended or is another's by now.
    pub(super) fn start_finishing(
        self: &Arc<Self>,
        live: &Arc<Live>,
    ) -> Option<watch::Receiver<Option<Finished>>> {
        let mut state = live.state();
        if let Some(finishing) = &state.finishing {
            return Some(finishing.clone());
        }
        if state.lost {
            return None;
        }
        let (tell, finishing) = watch::channel(None);
        state.finishing = Some(finishing.clone());
        drop(state);
        let (engine, live) = (Arc::clone(self), Arc::clone(live));
        self.tasks.spawn(async move {
            let finished = engine.finish(&live).await;
            tell.send_replace(Some(finished));
            live.state().finishing = None;
        });
        Some(finishing)
    }

    async fn finish(self: &Arc<Self>, live: &Arc<Live>) -> Finished {
        let started = Instant::now();
        let work = self.assemble(live);
        tokio::pin!(work);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                () = tokio::time::sleep(HOLD / 3) => {
                    let until = self.clock.now().after(HOLD);
                    if let Err(error) = self.catalog.hold_assembly(live.id, live.epoch(), until).await {
                        tracing::warn!(upload = %live.id, %error, "the hold on an assembly could not be renewed");
                    }
                }
            }
        };
        match outcome {
            Ok((object, has_intents)) => {
                metrics::histogram!("jumar_complete_duration_seconds")
                    .record(started.elapsed().as_secs_f64());
                self.ended(live, "completed");
                if has_intents {
                    self.clean_up_soon(live.id, true).await;
                } else {
                    // Nobody has to wait for that.
                    let (engine, id) = (Arc::clone(self), live.id);
                    self.tasks
                        .spawn(async move { engine.remove_files_soon(id).await });
                }
                Finished::Done(Box::new(object))
            }
            Err(EngineError::Failed { reason }) => Finished::Failed(reason),
            Err(EngineError::DigestMismatch { algorithm }) => Finished::WrongDigest(algorithm),
            Err(EngineError::Displaced) => Finished::Elsewhere,
            Err(error) => self.postpone(live, &error).await,
        }
    }

    async fn postpone(&self, live: &Live, error: &EngineError) -> Finished {
        let attempts = {
            let mut state = live.state();
            let UploadState::Assembling { attempts, .. } = &mut state.snapshot.upload.state else {
                return Finished::Elsewhere;
            };
            *attempts += 1;
            *attempts
        };
        let wait = FIRST_RETRY
            .saturating_mul(1 << attempts.saturating_sub(1).min(10))
            .min(LAST_RETRY);
        tracing::warn!(upload = %live.id, %error, attempts, retry_secs = wait.as_secs(), "finishing an upload did not work; it is tried again");
        let until = self.clock.now().after(wait);
        if let Err(error) = self
            .catalog
            .postpone_assembly(live.id, live.epoch(), until)
            .await
        {
            tracing::warn!(upload = %live.id, %error, "the retry could not be recorded; it comes when the hold ends");
            live.catalog_failed(error);
        }
        Finished::Postponed(wait)
    }

    /// All steps from assembling to completed. Also tells whether intents are left.
    async fn assemble(self: &Arc<Self>, live: &Arc<Live>) -> Result<(Object, bool)> {
        if live.role() == Role::Final {
            self.compose(live).await?;
        } else {
            self.settle_all(live).await?;
        }
        let upload = live.state().snapshot.upload.clone();
        let mut known = None;
        if !upload.readback {
            let hasher = Hasher::at(&upload.declared.digests, &upload.hash);
            let digests = hasher.ok_or(StoreError::NotFound)?.finish();
            self.compare(live, &upload.declared.digests, &digests)
                .await?;
            known = Some(digests);
        }
        let (object, settled) = if upload.is_staged() {
            self.bring_to_address(live, &upload, known).await?
        } else {
            self.claim_own(live, &upload).await?;
            let settled = vec![IntentKind::Multipart, IntentKind::Object];
            (self.make_object(live, &upload, known).await?, settled)
        };
        self.check_type(live, &upload, &object).await?;
        let now = self.clock.now();
        let completed = self
            .catalog
            .complete(upload.id, upload.epoch, object.clone(), settled, now)
            .await;
        let completed = match completed {
            Err(CatalogError::Stale) if object.first != upload.id => {
                let why = "the object that it was to share has gone in between";
                return Err(EngineError::unavailable(why));
            }
            completed => completed.map_err(|error| live.catalog_failed(error))?,
        };
        for id in completed.ready {
            self.go_on_soon(id);
        }
        Ok((object, completed.has_intents))
    }

    /// Claims the key that nobody else is to have.
    async fn claim_own(&self, live: &Live, upload: &Upload) -> Result<()> {
        if live.state().key_claimed {
            return Ok(());
        }
        match self.claim(&upload.store_key, upload.id).await? {
            Claimed::Yes => Ok(()),
            Claimed::Stored(_) | Claimed::Busy(_) => {
                let why = format!("the key of {} belongs to another upload", upload.id);
                Err(EngineError::Internal(why.into()))
            }
        }
    }

    pub(super) async fn claim(&self, key: &StoreKey, id: UploadId) -> Result<Claimed> {
        let now = self.clock.now();
        Ok(self.catalog.claim_key(key.clone(), id, now).await?)
    }

    /// Makes the object under the key that the upload's bytes are brought together under, and reads it back where its digests
    /// are not `known`.
    pub(super) async fn make_object(
        self: &Arc<Self>,
        live: &Arc<Live>,
        upload: &Upload,
        known: Option<Digests>,
    ) -> Result<Object> {
        let length = upload.length.unwrap_or_default();
        let mut stored = match self.store.shape() {
            Shape::InPlace(files) => {
                if upload.typed {
                    // It is looked at when it is there, and may have to go again.
                    flight::announce_object(self, live).await?;
                }
                self.publish(live, upload, files).await?
            }
            Shape::Parts(_) => {
                let receipts = {
                    let state = live.state();
                    let parts = match upload.role {
                        Role::Final => &state.composed,
                        Role::Whole | Role::Partial => &state.snapshot.parts,
                    };
                    let mut all = parts.clone();
                    all.extend(state.held.clone());
                    all.into_values().collect()
                };
                self.put_together(live, upload, receipts, length).await?
            }
        };
        // Whoever has a URL could have put something else with the same tag; and tags that were not answered prove nothing.
        let replaceable = {
            let state = live.state();
            state.put_together || state.retagged || !state.held.is_empty()
        };
        if let Some(digests) = known.as_ref().filter(|_| replaceable) {
            let found = self.read_back(live, upload, length).await?;
            self.compare(live, digests, &found).await?;
            stored.verified = true;
        }
        let (digests, verified) = if let Some(digests) = known {
            (digests, Verified::Stream)
        } else {
            let (found, by) = self.find_digests(live, upload, length).await?;
            self.compare(live, &upload.declared.digests, &found).await?;
            stored.verified = true;
            (found, by)
        };
        Ok(Object {
            key: upload.store_key.clone(),
            first: upload.id,
            space: upload.owner.space.clone(),
            shared: false,
            size: length,
            content_type: upload.declared.content_type.clone(),
            digests,
            etag: stored.etag,
            verified,
            store_checked: stored.verified,
        })
    }

    async fn publish(&self, live: &Live, upload: &Upload, files: &dyn InPlace) -> Result<Stored> {
        let length = upload.length.unwrap_or_default();
        if length == Length(0) {
            // No byte came, so nothing is staged.
            let file = files.open(upload.id).await?;
            blocking(move || file.write_at(0, &[])).await?;
        }
        match files.publish(upload.id, &upload.store_key, length).await {
            Err(error @ StoreError::NotFound) => self.missing(live, error).await,
            published => Ok(published?),
        }
    }

    /// Makes the object of a store of parts, or finds that it was made before.
    async fn put_together(
        self: &Arc<Self>,
        live: &Arc<Live>,
        upload: &Upload,
        receipts: Vec<PartReceipt>,
        length: Length,
    ) -> Result<Stored> {
        let Shape::Parts(parts) = self.store.shape() else {
            return Err(StoreError::Refused("this store takes no parts".into()).into());
        };
        flight::announce_object(self, live).await?;
        if length == Length(0)
            && let Some(unused) = &upload.store_upload_id
        {
            // Stores put nothing together from no parts.
            parts.abort(&upload.store_key, unused).await?;
        }
        let multipart = upload.store_upload_id.as_ref();
        let Some(multipart) = multipart.filter(|_| length > Length(0)) else {
            if let Some(whole) = receipts
                .iter()
                .find(|receipt| receipt.number == PartNumber(1))
            {
                return Ok(Stored {
                    etag: whole.etag.clone(),
                    verified: whole.checksum.is_some(),
                });
            }
            let empty = Payload::Memory(Arc::new([]));
            let receipt = parts
                .put(&upload.store_key, empty, &flight::about(live))
                .await?;
            return Ok(Stored {
                etag: receipt.etag,
                verified: true,
            });
        };
        let all_checked = receipts.iter().all(|receipt| receipt.checksum.is_some());
        match self
            .finish_parts(live, parts, multipart, receipts, length)
            .await?
        {
            Err(error @ (StoreError::NotFound | StoreError::Changed(_))) => {
                match self.store.head(&upload.store_key).await? {
                    // An earlier try finished it, and its answer was lost.
                    Some(found)
                        if found.size == length
                            && found.upload.is_none_or(|id| id == upload.id) =>
                    {
                        Ok(Stored {
                            etag: found.etag,
                            verified: all_checked,
                        })
                    }
                    _ if upload.role == Role::Final => Self::compose_again(live, error),
                    _ => self.missing(live, error).await,
                }
            }
            finished => Ok(finished?),
        }
    }

    /// The store does not have an upload's bytes: it is tried again, or lost if the store has said so for long enough.
    pub(super) async fn missing<T>(&self, live: &Live, error: StoreError) -> Result<T> {
        let now = self.clock.now();
        let since = *live.state().missing_since.get_or_insert(now);
        if now.since(since) < LOST_AFTER {
            return Err(error.into());
        }
        tracing::error!(upload = %live.id, %error, %since, "the store does not have what it acknowledged");
        let reason = FailureReason::StoreLost;
        self.fail(live, reason).await?;
        Err(EngineError::Failed { reason })
    }

    /// An upload whose bytes are not the declared ones fails for good.
    async fn compare(&self, live: &Live, declared: &Digests, found: &Digests) -> Result<()> {
        if let Some(wrong) = declared.first_conflict(found) {
            self.fail(live, FailureReason::DigestMismatch).await?;
            return Err(EngineError::DigestMismatch {
                algorithm: wrong.algorithm(),
            });
        }
        Ok(())
    }

    /// Fails an upload for good, and removes what it left.
    pub(super) async fn fail(&self, live: &Live, reason: FailureReason) -> Result<()> {
        let failed = self
            .catalog
            .fail(live.id, live.epoch(), reason, self.clock.now())
            .await;
        failed.map_err(|error| live.catalog_failed(error))?;
        tracing::warn!(upload = %live.id, %reason, "an upload failed for good");
        self.ended(live, "failed");
        self.clean_up_soon(live.id, false).await;
        Ok(())
    }

    /// What follows on every ending, but for removing what is left: out of memory, and counted.
    pub(super) fn ended(&self, live: &Live, event: &'static str) {
        count(live.protocol(), live.role(), event);
        self.registry.remove(live);
        self.places.notify_waiters();
    }
}

/// Whether a length that a request tells is the one that is known.
pub(super) fn agree_on_length(known: Option<Length>, told: Option<Length>) -> Result<()> {
    match (known, told) {
        (Some(known), Some(told)) if known != told => Err(EngineError::RangeMismatch {
            conflict: Conflict::Lengths,
            detail: format!("the upload's length is {known}, not {told}"),
            length: Some(known),
            expected_offset: None,
        }),
        _ => Ok(()),
    }
}

fn check_declared(declared: &Digests, told: &Digests) -> Result<()> {
    match declared.first_conflict(told) {
        Some(wrong) => Err(EngineError::DigestMismatch {
            algorithm: wrong.algorithm(),
        }),
        None => Ok(()),
    }
}

fn answer_ended(upload: &Upload, command: &Complete) -> Result<Completion> {
    match &upload.state {
        UploadState::Completed { object, .. } => {
            check_declared(&object.digests, &command.digests)?;
            agree_on_length(upload.length, command.length)?;
            let object = object.clone();
            Ok(Completion::Done {
                object,
                repeated: true,
            })
        }
        UploadState::Failed { reason, .. } => Err(EngineError::Failed { reason: *reason }),
        _ => Err(EngineError::Gone),
    }
}
