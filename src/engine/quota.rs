//! What a caller is held to: by its space, and by its token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Create, EngineError, Inner, NewRole, Result};
use crate::catalog::{self, CatalogError, Idempotency, NewUpload};
use crate::model::caller::{Grant, MediaTypes};
use crate::model::quota::Used;
use crate::model::{Caller, Length, LimitName, Limits, UploadOwner};

/// How often whoever waits for a place looks whether one came free by itself: because an upload got no byte for long, or ended in
/// another process.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How many creations of a page wait at once. Each keeps a connection; a browser opens six to a host by HTTP/1, and what is open
/// already needs one to go on.
const WAITING_OF_FEW: usize = 4;

/// Who waits for a place with few connections, once for each creation.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<Vec<Arc<UploadOwner>>>);

/// A place among those that wait.
struct Queued<'q> {
    queues: &'q Queues,
    who: Arc<UploadOwner>,
}

/// What a caller's uploads are held to.
pub(super) struct HeldTo {
    pub(super) owner: UploadOwner,
    pub(super) max_size: Option<Length>,
    pub(super) retention: Option<Duration>,
    pub(super) limits: Limits,
    types: [MediaTypes; 2],
}

impl Inner {
    /// What a caller's uploads are held to.
    pub(super) fn held_to(&self, caller: Option<&Caller>) -> HeldTo {
        let owner = caller.map(UploadOwner::of).unwrap_or_default();
        let no_grant = Grant::default();
        let grant = caller.map_or(&no_grant, |caller| &caller.grant);
        let space = self
            .settings
            .space(&owner.space)
            .cloned()
            .unwrap_or_default();
        let mut limits = space.limits;
        for (limit, granted) in [
            (LimitName::UploadsPerToken, grant.max_uploads),
            (LimitName::BytesPerToken, grant.max_bytes),
        ] {
            if let Some(granted) = granted {
                let allowed = limits.entry(limit).or_insert(granted);
                *allowed = granted.min(*allowed);
            }
        }
        let sizes = [space.max_size, grant.max_size];
        HeldTo {
            owner,
            max_size: sizes.into_iter().flatten().min(),
            retention: space.retention,
            limits,
            types: [space.content_types, grant.content_types.clone()],
        }
    }

    /// Creates an upload, after waiting for a place where as many are open as may be. Of those with few connections
    /// not so many wait that none is left for what is open.
    pub(super) async fn create_in_turn(
        &self,
        few_connections: bool,
        mut new: NewUpload,
        idempotency: Option<Idempotency>,
    ) -> Result<catalog::Created> {
        let deadline = Instant::now() + self.settings.open_wait;
        let mut queued = None;
        loop {
            let place = self.places.notified();
            tokio::pin!(place);
            place.as_mut().enable();
            let created = self.catalog.create(new.clone(), idempotency.clone()).await;
            match created {
                Err(CatalogError::Limited(hit)) if hit.limit.is_of_open() && hit.allowed > 0 => {
                    if Instant::now() >= deadline {
                        return Err(EngineError::Limited(hit));
                    }
                    if few_connections && queued.is_none() {
                        queued = self.queues.join(&new.owner);
                        if queued.is_none() {
                            return Err(EngineError::Limited(hit));
                        }
                    }
                }
                created => return Ok(created?),
            }
            tokio::select! {
                () = place => {}
                () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_AGAIN)) => {}
                () = self.stopping.cancelled() => {
                    return Err(EngineError::unavailable("the server is shutting down"));
                }
            }
            let now = self.clock.now();
            new.idle_since = now.before(self.settings.open_idle);
        }
    }

    /// How much of each limit a caller has used up.
    pub(super) async fn used(&self, caller: &Caller) -> Result<Vec<Used>> {
        let HeldTo { owner, limits, .. } = self.held_to(Some(caller));
        let now = self.clock.now();
        let idle_since = now.before(self.settings.open_idle);
        Ok(self.catalog.used(owner, limits, idle_since, now).await?)
    }
}

impl Queues {
    /// `None` where as many wait as may.
    fn join(&self, who: &UploadOwner) -> Option<Queued<'_>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.iter().filter(|other| ***other == *who).count() >= WAITING_OF_FEW {
            return None;
        }
        let who = Arc::new(who.clone());
        waiting.push(Arc::clone(&who));
        Some(Queued { queues: self, who })
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queues.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|other| !Arc::ptr_eq(other, &self.who));
    }
}

impl HeldTo {
    /// Whether not every type is taken.
    pub(super) fn is_typed(&self) -> bool {
        self.types.iter().any(|types| !types.is_any())
    }

    /// Whether what a creation says of its content may be uploaded. A part says nothing, its whole does.
    pub(super) fn check_type(&self, create: &Create) -> Result<()> {
        let is_part = matches!(create.role, NewRole::Partial);
        let declared = create.declared.content_type.as_deref();
        for types in self
            .types
            .iter()
            .filter(|types| !types.is_any() && !is_part)
        {
            let detail = match declared {
                Some(declared) if types.allow(declared) => continue,
                Some(declared) => format!("{declared} is not taken here; taken are {types}"),
                None => format!("a content type has to be declared here; taken are {types}"),
            };
            return Err(EngineError::WrongType { detail });
        }
        Ok(())
    }
}
