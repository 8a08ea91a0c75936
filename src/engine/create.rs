//! Creating an upload.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::complete::HOLD;
use super::live::{Live, check_expiry};
use super::{Create, Created, EngineError, IdempotencyKey, Inner, NewRole, Result, Settings};
use crate::catalog::{self, Idempotency, NewUpload};
use crate::model::upload::{Declared, Protocol, Role, Snapshot};
use crate::model::{
    Caller, DigestAlgorithm, Handle, KeyFacts, Length, Plan, StoreKey, Subject, Timestamp, Upload,
    UploadId, UploadKey, UploadOwner, UploadState,
};
use crate::store::Shape;

impl Inner {
    pub(super) async fn create(
        self: &Arc<Self>,
        create: Create,
        caller: Option<&Caller>,
    ) -> Result<Created> {
        let held_to = self.held_to(caller);
        let few_connections = caller.is_some_and(|caller| caller.few_connections);
        held_to.check_type(&create)?;
        let plan = match self.store.shape() {
            _ if create.protocol == Protocol::S3 => {
                self.past_the_server()?;
                Plan::Adopted
            }
            Shape::InPlace(_) => Plan::OneCell,
            Shape::Parts(parts) => Plan::for_parts(
                self.settings.chunk_size_bytes,
                parts.min_part_bytes(),
                create.length,
                parts.equal_parts(),
            ),
        };
        let max = self.largest(plan, held_to.max_size);
        if create.length.is_some_and(|length| length > max) {
            return Err(EngineError::TooLarge { max });
        }
        let (role, parts) = match &create.role {
            NewRole::Whole => (Role::Whole, Vec::new()),
            NewRole::Partial => (Role::Partial, Vec::new()),
            NewRole::Final(handles) => (
                Role::Final,
                self.find_parts(&create, handles, max, &held_to.owner)
                    .await?,
            ),
        };
        let id = UploadId::generate();
        let key = UploadKey::generate();
        let now = self.clock.now();
        let instant = self.instant_key(id, &create, &held_to.owner, now);
        let idempotency = create
            .idempotency
            .as_ref()
            .map(|key| self.idempotency(key, &create, &held_to.owner, now));
        let protocol = create.protocol;
        let new = NewUpload {
            id,
            key_hash: key.hash(),
            store_key: self.first_key(id, role, &held_to.owner, &create.declared, now),
            typed: role != Role::Partial && held_to.is_typed(),
            owner: held_to.owner,
            max_size: held_to.max_size,
            retention: held_to.retention,
            limits: held_to.limits,
            idle_since: now.before(self.settings.open_idle),
            protocol,
            role,
            parts,
            sealed: create.seal.as_ref().map(|secret| key.seal(&secret.0)),
            declared: create.declared,
            length: create.length,
            plan,
            now,
            expires_at: match role {
                // It takes no bytes that could move its expiry; its parts have theirs.
                Role::Final => now.after(self.settings.session_max_age),
                Role::Whole | Role::Partial => self.expiry(protocol, false, now, now),
            },
            instant,
            held_until: now.after(HOLD),
        };
        let upload = match self
            .create_in_turn(few_connections, new, idempotency)
            .await?
        {
            catalog::Created::New(upload) => {
                count(protocol, role, "created");
                if upload.state.has_ended() {
                    count(protocol, role, "completed");
                }
                upload
            }
            catalog::Created::Repeated(upload) => upload,
            catalog::Created::Mismatch => return Err(EngineError::IdempotencyMismatch),
            catalog::Created::InUse => return Err(EngineError::InUse),
            catalog::Created::PartGone(index) => return Err(bad_part(index, "has ended")),
        };
        if upload.state.has_ended() {
            return Ok(Created { upload, key });
        }
        let waits_for_parts = role == Role::Final && upload.state.takes_bytes();
        if !waits_for_parts {
            let live = self.remember(upload.clone()).await;
            if role == Role::Final {
                self.start_finishing(&live);
            }
        }
        Ok(Created { upload, key })
    }

    /// The partial uploads that a final one is to be made of. That they are still there is looked at again when it is
    /// created.
    async fn find_parts(
        &self,
        create: &Create,
        handles: &[Handle],
        max: Length,
        owner: &UploadOwner,
    ) -> Result<Vec<UploadId>> {
        let mut total = 0_u64;
        for (index, handle) in handles.iter().enumerate() {
            let (_, snapshot) = match self.peek(handle.id, &handle.key).await {
                Err(EngineError::NotFound) => return Err(bad_part(index, "is not there")),
                found => found?,
            };
            let part = snapshot.upload;
            if part.owner.space != owner.space || part.owner.subject != owner.subject {
                return Err(EngineError::NotYours);
            }
            if part.role != Role::Partial || part.protocol != create.protocol {
                return Err(bad_part(index, "is no partial upload"));
            }
            let goes_on =
                !part.state.has_ended() || matches!(part.state, UploadState::Completed { .. });
            if !goes_on || check_expiry(&part, self.clock.now()).is_err() {
                return Err(bad_part(index, "has ended"));
            }
            total = total.saturating_add(part.length.unwrap_or_default().get());
            if total > max.get() {
                return Err(EngineError::TooLarge { max });
            }
        }
        Ok(handles.iter().map(|handle| handle.id).collect())
    }

    /// Where the object would be that a creation can be answered with at once.
    fn instant_key(
        &self,
        id: UploadId,
        create: &Create,
        owner: &UploadOwner,
        now: Timestamp,
    ) -> Option<StoreKey> {
        let template = self.settings.template(&owner.space);
        let asks = self.settings.instant
            && template.is_shared()
            && create.protocol == Protocol::Native
            && matches!(create.role, NewRole::Whole);
        if !asks {
            return None;
        }
        let sha256 = create.declared.digests.get(DigestAlgorithm::Sha256)?;
        let facts = key_facts(id, owner, &create.declared, now);
        template.fill(&facts, Some(sha256))
    }

    /// The key that an upload's bytes are brought together under: its object's own, if that can be known now.
    fn first_key(
        &self,
        id: UploadId,
        role: Role,
        owner: &UploadOwner,
        declared: &Declared,
        created_at: Timestamp,
    ) -> StoreKey {
        let facts = key_facts(id, owner, declared, created_at);
        match role {
            Role::Partial => None,
            Role::Whole | Role::Final => {
                let template = self.settings.template(&owner.space);
                template.fill(&facts, None)
            }
        }
        .unwrap_or_else(|| StoreKey::staged(id))
    }

    async fn remember(&self, upload: Upload) -> Arc<Live> {
        self.registry.insert(Snapshot::of_new(upload)).await
    }

    /// The most bytes that an upload under a plan may have, of someone who is held to `max_size`.
    pub(super) fn largest(&self, plan: Plan, max_size: Option<Length>) -> Length {
        let everywhere = Length(self.settings.max_size_bytes);
        plan.max_length()
            .min(max_size.unwrap_or(everywhere))
            .min(everywhere)
    }

    /// The same of one that is there.
    pub(super) fn largest_for(&self, live: &Live) -> Length {
        self.largest(live.plan, live.max_size)
    }

    /// When an upload expires if its last byte comes now. One that comes in one request is kept for its client only when it
    /// is full: before that nobody knows of it, and while it comes, every commit moves the expiry on.
    pub(super) fn expiry(
        &self,
        protocol: Protocol,
        full: bool,
        created_at: Timestamp,
        now: Timestamp,
    ) -> Timestamp {
        let Settings {
            session_ttl,
            session_max_age,
            orphan_grace,
            commit_interval,
            ..
        } = self.settings;
        let ttl = if protocol == Protocol::Objects && !full {
            session_ttl.min(orphan_grace.max(2 * commit_interval))
        } else {
            session_ttl
        };
        now.after(ttl).min(created_at.after(session_max_age))
    }

    fn idempotency(
        &self,
        key: &IdempotencyKey,
        create: &Create,
        owner: &UploadOwner,
        now: Timestamp,
    ) -> Idempotency {
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
            key_hash: scoped(key, owner),
            fingerprint,
            expires_at: now.after(self.settings.idempotency_ttl),
        }
    }
}

/// What an upload's key is made from.
pub(super) fn key_facts<'a>(
    id: UploadId,
    owner: &'a UploadOwner,
    declared: &'a Declared,
    created_at: Timestamp,
) -> KeyFacts<'a> {
    KeyFacts {
        id,
        space: &owner.space,
        subject: owner.subject.as_ref(),
        filename: declared.filename.as_deref(),
        created_at,
    }
}

/// Counts what happened to an upload. The parts of one are not counted: their whole is.
pub(super) fn count(protocol: Protocol, role: Role, event: &'static str) {
    if role != Role::Partial {
        metrics::counter!("jumar_uploads_total", "protocol" => protocol.name(), "event" => event)
            .increment(1);
    }
}

fn bad_part(index: usize, why: &str) -> EngineError {
    EngineError::BadParts {
        detail: format!("part {} of the upload {why}", index + 1),
    }
}

/// The same key of another caller is another key. Nobody in particular is one caller.
fn scoped(key: &IdempotencyKey, owner: &UploadOwner) -> [u8; 32] {
    let subject = owner.subject.as_ref().map(Subject::as_str);
    match subject {
        None => hash_fields(&[b"", key.0.as_bytes()]),
        Some(subject) => hash_fields(&[
            owner.space.as_str().as_bytes(),
            subject.as_bytes(),
            key.0.as_bytes(),
        ]),
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
