//! What a caller is held to: by its space, and by its token.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Create, EngineError, Inner, NewRole, Result};
use crate::catalog::{self, CatalogError, Idempotency, NewUpload};
use crate::model::caller::{Grant, MediaTypes};
use crate::model::quota::Used;
use crate::model::{Caller, Length, LimitHit, LimitName, Limits, TokenId, UploadOwner};

/// How often whoever waits for a place looks whether one came free by itself: because an upload got no byte for long, or ended in
/// another process.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How many creations of one device wait at a time.
const WAITING: usize = 64;
/// The same of a page. Each keeps a connection; a browser opens six to a host by HTTP/1, and what is open already needs one to
/// go on.
const WAITING_OF_FEW: usize = 4;

/// Whether a place can come free.
fn may_pass(hit: LimitHit) -> bool {
    hit.limit.is_of_open() && hit.allowed > 0
}

/// Creations that wait for a place: those of one device of a token in the order that they came, and only the first of them looks.
#[derive(Default)]
pub(super) struct Queues(std::sync::Mutex<HashMap<Waiting, Weak<Mutex<()>>>>);

/// Who waits together: a token and a device.
type Waiting = (Option<TokenId>, Option<String>);

impl Queues {
    fn queues(&self) -> MutexGuard<'_, HashMap<Waiting, Weak<Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue of an owner, if somebody waits in it.
    fn of(&self, owner: &UploadOwner) -> Option<Arc<Mutex<()>>> {
        self.queues().get(&waiting(owner))?.upgrade()
    }

    fn join(&self, owner: &UploadOwner) -> Arc<Mutex<()>> {
        let mut queues = self.queues();
        queues.retain(|_, queue| queue.strong_count() > 0);
        let place = queues.entry(waiting(owner)).or_default();
        place.upgrade().unwrap_or_else(|| {
            let queue = Arc::default();
            *place = Arc::downgrade(&queue);
            queue
        })
    }
}

fn waiting(owner: &UploadOwner) -> Waiting {
    let device = owner
        .device
        .as_ref()
        .map(|device| device.as_str().to_owned());
    (owner.token.clone(), device)
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

    /// Creates an upload, after waiting for a place where as many are open as may be.
    pub(super) async fn create_in_turn(
        &self,
        few_connections: bool,
        mut new: NewUpload,
        idempotency: Option<Idempotency>,
    ) -> Result<catalog::Created> {
        let deadline = Instant::now() + self.settings.open_wait;
        let queue = match self.queues.of(&new.owner) {
            // Whoever waits already comes first.
            Some(queue) => queue,
            None => match self.catalog.create(new.clone(), idempotency.clone()).await {
                Err(CatalogError::Limited(hit)) if may_pass(hit) => self.queues.join(&new.owner),
                created => return Ok(created?),
            },
        };
        let most = if few_connections {
            WAITING_OF_FEW
        } else {
            WAITING
        };
        let has_room = Arc::strong_count(&queue) <= most;
        let turn = tokio::time::timeout_at(deadline, queue.lock());
        let turn = if has_room { turn.await.ok() } else { None };
        loop {
            let place = self.places.notified();
            tokio::pin!(place);
            place.as_mut().enable();
            match self.catalog.create(new.clone(), idempotency.clone()).await {
                Err(CatalogError::Limited(hit))
                    if may_pass(hit) && turn.is_some() && Instant::now() < deadline => {}
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
