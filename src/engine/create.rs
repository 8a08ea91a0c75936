//! Creating an upload.

use sha2::{Digest as _, Sha256};

use super::{Create, Created, EngineError, IdempotencyKey, Inner, Result};
use crate::catalog::{self, Idempotency, NewUpload};
use crate::model::upload::Snapshot;
use crate::model::{Length, Plan, RangeSet, Timestamp, Upload, UploadId, UploadKey};
use crate::store::Shape;

impl Inner {
    pub(super) async fn create(&self, create: Create) -> Result<Created> {
        let plan = match self.store.shape() {
            Shape::InPlace(_) => Plan::OneCell,
            Shape::Parts(parts) => Plan::for_parts(
                self.settings.chunk_size_bytes,
                create.length,
                parts.equal_parts(),
            ),
        };
        let max = self.largest(plan);
        if create.length.is_some_and(|length| length > max) {
            return Err(EngineError::TooLarge { max });
        }
        let id = UploadId::generate();
        let key = UploadKey::generate();
        let now = self.clock.now();
        let idempotency = create
            .idempotency
            .as_ref()
            .map(|key| self.idempotency(key, &create, now));
        let protocol = create.protocol;
        let new = NewUpload {
            id,
            key_hash: key.hash(),
            protocol,
            store_key: self.settings.key_template.fill(id),
            declared: create.declared,
            length: create.length,
            plan,
            now,
            expires_at: self.expiry(now, now),
        };
        let upload = match self.catalog.create(new, idempotency).await? {
            catalog::Created::New(upload) => {
                metrics::counter!("jumar_uploads_total", "protocol" => protocol.name(), "event" => "created")
                    .increment(1);
                upload
            }
            catalog::Created::Repeated(upload) => upload,
            catalog::Created::Mismatch => return Err(EngineError::IdempotencyMismatch),
            catalog::Created::InUse => return Err(EngineError::InUse),
        };
        self.remember(upload.clone()).await;
        Ok(Created { upload, key })
    }

    async fn remember(&self, upload: Upload) {
        self.registry
            .insert(Snapshot {
                upload,
                received: RangeSet::new(),
                parts: std::collections::BTreeMap::new(),
            })
            .await;
    }

    /// The most bytes that an upload under a plan may have.
    pub(super) fn largest(&self, plan: Plan) -> Length {
        plan.max_length().min(Length(self.settings.max_size_bytes))
    }

    /// When an upload expires if its last byte comes now.
    pub(super) fn expiry(&self, created_at: Timestamp, now: Timestamp) -> Timestamp {
        now.after(self.settings.session_ttl)
            .min(created_at.after(self.settings.session_max_age))
    }

    fn idempotency(&self, key: &IdempotencyKey, create: &Create, now: Timestamp) -> Idempotency {
        let declared = &create.declared;
        let fingerprint = hash_fields(&[
            create.protocol.name().as_bytes(),
            format!("{:?}", create.length).as_bytes(),
            declared.filename.as_deref().unwrap_or("\0").as_bytes(),
            declared.content_type.as_deref().unwrap_or("\0").as_bytes(),
            format!("{:?}", declared.metadata).as_bytes(),
            format!("{:?}", declared.digests).as_bytes(),
            &[u8::from(declared.sequential)],
        ]);
        Idempotency {
            key_hash: hash_fields(&[key.scope.as_bytes(), key.key.as_bytes()]),
            fingerprint,
            expires_at: now.after(self.settings.idempotency_ttl),
        }
    }
}

/// Each field goes in with its length, so that no two lists of fields are the same bytes.
fn hash_fields(fields: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_le_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}
