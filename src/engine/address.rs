//! Objects at the address of their content: uploads of the same bytes share one, and it is never written again.
//!
//! Such an upload is brought together under a staged key of its own. When its SHA-256 is known, its address is: the catalog
//! decides which upload brings the object there; the others wait for it, and complete with the same object. It gets there
//! by a copy on the store's side, or by a hard link, and only where nothing is yet. What is there without any record (a
//! record was lost, or somebody put it there) is read and hashed, and taken for the object if it is the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::create::key_facts;
use super::flight;
use super::live::Live;
use super::readback::Seams;
use super::{EngineError, Inner, Result};
use crate::catalog::{Claimed, Intent, IntentKind};
use crate::model::digest::Digests;
use crate::model::{DigestAlgorithm, Object, StoreKey, Upload, UploadId};
use crate::store::{self, Shape, Store, StoreError, Stored, copy};

/// How long a completion waits for another upload that is at the same address, and how often it looks: at first and at last.
const WAIT_FOR_OTHER: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOK_SELDOM: Duration = Duration::from_secs(1);
/// How long removing what is at an address may take, and how long nobody else tries: longer, so that no removal goes on
/// when the address is given to somebody.
const CLEAR_WITHIN: Duration = Duration::from_mins(1);
const CLEAR_HOLD: Duration = Duration::from_mins(3);

/// What claiming an address came to.
enum Address {
    /// The upload is to bring its object there.
    Ours(StoreKey),
    /// The object is there.
    Stored(Object),
}

impl Inner {
    /// The object of a staged upload, at its address, and what is settled then. `known` are its digests, if they need not be
    /// read back.
    pub(super) async fn bring_to_address(
        self: &Arc<Self>,
        live: &Arc<Live>,
        upload: &Upload,
        known: Option<Digests>,
    ) -> Result<(Object, Vec<IntentKind>)> {
        let claimed = match &known {
            Some(digests) => Some(self.claim_address(upload, digests).await?),
            None => None,
        };
        if let Some(Address::Stored(object)) = &claimed
            && self.is_there(object).await?
        {
            return Ok((object.clone(), Vec::new()));
        }
        flight::announce_object(self, live).await?;
        let staged = self.make_object(live, upload, known).await?;
        let claimed = match claimed {
            Some(claimed) => claimed,
            None => self.claim_address(upload, &staged.digests).await?,
        };
        let address = match claimed {
            Address::Ours(address) => address,
            Address::Stored(object) => {
                if !self.is_there(&object).await? {
                    tracing::error!(key = %object.key, upload = %live.id, "the store has lost an object; this upload of the same bytes brings it again");
                    self.move_staged(live, &staged, &object.key).await?;
                }
                return Ok((object, vec![IntentKind::Multipart]));
            }
        };
        let intent = Intent {
            upload: upload.id,
            kind: IntentKind::Address,
            key: address.clone(),
            store_upload_id: None,
            created_at: self.clock.now(),
        };
        let announced = self.catalog.announce(intent, live.epoch()).await;
        announced.map_err(|error| live.catalog_failed(error))?;
        let stored = self.move_staged(live, &staged, &address).await?;
        let object = Object {
            key: address,
            shared: self.settings.template(&staged.space).is_shared(),
            etag: stored.etag,
            ..staged
        };
        Ok((object, vec![IntentKind::Multipart, IntentKind::Address]))
    }

    /// Claims the address of an upload's content, and waits while another upload is at it.
    async fn claim_address(&self, upload: &Upload, digests: &Digests) -> Result<Address> {
        let address = self.address_of(upload, digests).await?;
        let deadline = Instant::now() + WAIT_FOR_OTHER;
        let mut pause = LOOK_AGAIN;
        loop {
            let other = match self.claim(&address, upload.id).await? {
                Claimed::Yes => return Ok(Address::Ours(address)),
                Claimed::Stored(object) => return Ok(Address::Stored(*object)),
                Claimed::Busy(other) => other,
            };
            if Instant::now() > deadline {
                let why = format!("the upload {other} is at the same content");
                return Err(EngineError::unavailable(why));
            }
            self.clear_behind(other).await?;
            tokio::select! {
                () = self.stopping.cancelled() => {
                    return Err(EngineError::unavailable("the server is shutting down"));
                }
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LOOK_SELDOM),
            }
        }
    }

    /// Where an upload's object goes: where an earlier try was about to bring it, whatever `store.key` says by now.
    async fn address_of(&self, upload: &Upload, digests: &Digests) -> Result<StoreKey> {
        let intents = self.catalog.intents(upload.id).await?;
        let mut intents = intents.into_iter();
        if let Some(intent) = intents.find(|intent| intent.kind == IntentKind::Address) {
            return Ok(intent.key);
        }
        let facts = key_facts(
            upload.id,
            &upload.owner,
            &upload.declared,
            upload.created_at,
        );
        let sha256 = digests.get(DigestAlgorithm::Sha256);
        let address = self
            .settings
            .template(&upload.owner.space)
            .fill(&facts, sha256);
        address.ok_or_else(|| {
            EngineError::Internal("an upload was assembled without its SHA-256".into())
        })
    }

    /// Brings a staged object to an address where nothing is.
    async fn move_staged(
        &self,
        live: &Live,
        staged: &Object,
        address: &StoreKey,
    ) -> Result<Stored> {
        let moved = match self.store.shape() {
            Shape::InPlace(files) => files.publish(live.id, address, staged.size).await,
            Shape::Parts(parts) => {
                if self.store.head(address).await?.is_some() {
                    Err(StoreError::Taken)
                } else {
                    let about = flight::about(live);
                    let Object { key, size, .. } = staged;
                    copy::to_key(parts, key, *size, address, &about, copy::PIECE_BYTES).await
                }
            }
        };
        match moved {
            Err(StoreError::Taken) => self.adopt(address, staged).await,
            Err(error @ StoreError::NotFound) => {
                if !self.is_there(staged).await? {
                    return self.missing(live, error).await;
                }
                // It is the copy in the making that is gone.
                live.state().missing_since = None;
                Err(error.into())
            }
            moved => Ok(moved?),
        }
    }

    async fn is_there(&self, object: &Object) -> Result<bool> {
        let found = self.store.head(&object.key).await?;
        Ok(found.is_some_and(|found| found.size == object.size))
    }

    /// Takes what is at an address for an upload's object: an earlier try's copy, or something without a record whose bytes are
    /// the same.
    async fn adopt(&self, address: &StoreKey, staged: &Object) -> Result<Stored> {
        let found = self
            .store
            .head(address)
            .await?
            .ok_or(StoreError::NotFound)?;
        let differs = || {
            let why = format!("at {address} is something that does not have this SHA-256");
            EngineError::Internal(why.into())
        };
        if found.size != staged.size {
            return Err(differs());
        }
        let copied = matches!(self.store.shape(), Shape::Parts(_));
        if copied && found.upload == Some(staged.first) {
            return Ok(Stored {
                etag: found.etag,
                verified: staged.store_checked,
            });
        }
        let declared = Digests::default();
        let hashed = self
            .hash_object(address, &declared, found.size, Seams::default())
            .await?;
        if staged.digests.first_conflict(&hashed).is_some() {
            return Err(differs());
        }
        tracing::warn!(%address, "an object without a record was there already; it is taken, as its bytes are the same");
        Ok(Stored {
            etag: found.etag,
            verified: true,
        })
    }

    /// Removes what an upload that has ended has yet to remove at its address. Whoever waits for that address need not wait for
    /// the next round of cleaning up.
    async fn clear_behind(&self, other: UploadId) -> Result<()> {
        let known = self.catalog.known_among(vec![other]).await?;
        if known.iter().any(|upload| upload.ended) {
            for intent in self.catalog.intents(other).await? {
                if intent.kind == IntentKind::Address {
                    self.clear_address(&intent).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes what an ended upload has at an address, if nobody else is at it, and gives the address free. Goes on to its end if
    /// this future is dropped.
    pub(super) async fn clear_address(&self, intent: &Intent) -> Result<()> {
        let now = self.clock.now();
        let until = now.after(CLEAR_HOLD);
        if !self.catalog.hold_address(intent.upload, now, until).await? {
            return Ok(());
        }
        let (catalog, store) = (Arc::clone(&self.catalog), Arc::clone(&self.store));
        let Intent { upload, key, .. } = intent.clone();
        let clearing = self.tasks.spawn(async move {
            let cleared = tokio::time::timeout(CLEAR_WITHIN, clear(&*store, &key)).await;
            cleared.map_err(|_| EngineError::unavailable("removing an object took too long"))??;
            let kinds = vec![IntentKind::Address];
            Ok(catalog.settle(upload, kinds).await?)
        });
        clearing
            .await
            .unwrap_or_else(|error| Err(EngineError::Internal(error.into())))
    }
}

/// Removes an object, and what an upload left that was about to make it.
async fn clear(store: &dyn Store, address: &StoreKey) -> store::Result<()> {
    if let Shape::Parts(parts) = store.shape() {
        for begun in parts.multipart_of(address).await? {
            parts.abort(address, &begun.id).await?;
        }
    }
    store.delete(address).await
}
