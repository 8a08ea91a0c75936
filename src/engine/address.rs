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
use crate::model::{DigestAlgorithm, Object, StoreKey, Upload};
use crate::store::{self, About, Shape, Store, StoreError, Stored, copy};

/// How long a completion waits for another upload that is at the same address, and how often it looks.
const WAIT_FOR_OTHER: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long removing what is at an address may take, and how long nobody else tries: far longer, so that no removal goes on
/// when the address is given to somebody.
const CLEAR_WITHIN: Duration = Duration::from_mins(2);
const CLEAR_HOLD: Duration = Duration::from_mins(10);

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
        if let Some(digests) = &known
            && let Address::Stored(object) = self.claim_address(upload, digests).await?
        {
            return Ok((object, Vec::new()));
        }
        flight::announce_object(self, live).await?;
        let staged = self.make_object(live, upload, known).await?;
        let address = match self.claim_address(upload, &staged.digests).await? {
            Address::Ours(address) => address,
            Address::Stored(object) => return Ok((object, vec![IntentKind::Multipart])),
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
        let moved = match self.store.shape() {
            Shape::InPlace(files) => files.publish(upload.id, &address, staged.size).await,
            Shape::Parts(parts) => {
                let about = flight::about(live);
                move_to(&*self.store, parts, &staged, &address, &about).await
            }
        };
        let stored = match moved {
            Err(StoreError::Taken) => self.adopt(&address, &staged).await?,
            Err(error @ StoreError::NotFound) => return self.missing(live, error).await,
            moved => moved?,
        };
        let object = Object {
            key: address,
            shared: self.settings.key_template.is_shared(),
            etag: stored.etag,
            ..staged
        };
        Ok((object, vec![IntentKind::Multipart, IntentKind::Address]))
    }

    /// Claims the address of an upload's content, and waits while another upload is at it.
    async fn claim_address(&self, upload: &Upload, digests: &Digests) -> Result<Address> {
        let facts = key_facts(upload.id, &upload.declared, upload.created_at);
        let sha256 = digests.get(DigestAlgorithm::Sha256);
        let address = self.settings.key_template.fill(&facts, sha256);
        let address = address.ok_or_else(|| {
            EngineError::Internal("an upload was assembled without its SHA-256".into())
        })?;
        let deadline = Instant::now() + WAIT_FOR_OTHER;
        loop {
            match self.claim(&address, upload.id).await? {
                Claimed::Yes => return Ok(Address::Ours(address)),
                Claimed::Stored(object) => return Ok(Address::Stored(*object)),
                Claimed::Busy(other) if Instant::now() > deadline => {
                    let why = format!("the upload {other} is at the same content");
                    return Err(EngineError::unavailable(why));
                }
                Claimed::Busy(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Takes what is at an address for an upload's object, if its bytes are the same.
    async fn adopt(&self, address: &StoreKey, staged: &Object) -> Result<Stored> {
        let declared = Digests::default();
        let found = self
            .store
            .head(address)
            .await?
            .ok_or(StoreError::NotFound)?;
        let hashed = self
            .hash_object(address, &declared, found.size, Seams::default())
            .await?;
        if staged.digests.first_conflict(&hashed).is_some() {
            let why = format!("at {address} is something that does not have this SHA-256");
            return Err(EngineError::Internal(why.into()));
        }
        tracing::warn!(%address, "an object without a record was there already; it is taken, as its bytes are the same");
        Ok(Stored {
            etag: found.etag,
            verified: true,
        })
    }

    /// Removes what an ended upload has at an address, if nobody else is at it, and gives the address free.
    pub(super) async fn clear_address(&self, intent: &Intent) -> Result<()> {
        let now = self.clock.now();
        let until = now.after(CLEAR_HOLD);
        if !self.catalog.hold_address(intent.upload, now, until).await? {
            return Ok(());
        }
        let cleared = tokio::time::timeout(CLEAR_WITHIN, clear(&*self.store, &intent.key)).await;
        cleared.map_err(|_| EngineError::unavailable("removing an object took too long"))??;
        self.catalog
            .settle(intent.upload, vec![IntentKind::Address])
            .await?;
        Ok(())
    }
}

/// Copies an object to an address where nothing is. Where an earlier try's copy is, it is done.
async fn move_to(
    store: &dyn Store,
    parts: &dyn store::Parts,
    staged: &Object,
    address: &StoreKey,
    about: &About,
) -> store::Result<Stored> {
    match store.head(address).await? {
        Some(found) if found.upload == Some(about.upload) && found.size == staged.size => {
            return Ok(Stored {
                etag: found.etag,
                verified: staged.store_checked,
            });
        }
        Some(_) => return Err(StoreError::Taken),
        None => {}
    }
    let Object { key, size, .. } = staged;
    copy::to_key(parts, key, *size, address, about, copy::PIECE_BYTES).await
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
