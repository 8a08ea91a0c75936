//! What the engine can be told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::lane::Pace;
use super::patience::BodyPace;
use crate::model::caller::MediaTypes;
use crate::model::{KeyTemplate, Length, Limits, SpaceName};

/// What an acknowledged byte survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The process dying and the power going.
    Power,
    /// The process dying.
    Process,
}

/// How what a client put directly into the store is known to be what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// The object is read once and hashed.
    Readback,
    /// The store's own checksum of the whole object is taken for it.
    StoreChecksum,
}

/// How content is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Serve {
    /// Through the server.
    Proxy,
    /// By a redirect to a URL of the store, where it can sign one.
    Redirect,
}

/// What uploads of a space are held to, where that is not what holds everywhere.
#[derive(Debug, Clone, Default)]
pub struct Space {
    /// The largest upload.
    pub max_size: Option<Length>,
    /// What may be uploaded.
    pub content_types: MediaTypes,
    /// How an object's key is made.
    pub key_template: Option<KeyTemplate>,
    /// How long records of ended uploads stay.
    pub retention: Option<Duration>,
    /// Who may read content.
    pub readers: Readers,
    /// How much may be used up.
    pub limits: Limits,
}

/// Who may read the content of a space, beside those who have an upload's key and those whose token has the scope `read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readers {
    /// Nobody else.
    #[default]
    Owner,
    /// Whoever has a token of the space.
    Space,
    /// Whoever knows an upload's id.
    Public,
}

/// Limits, sizes and times of the engine. The configuration's documentation says what each is for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `store.key`
    pub key_template: KeyTemplate,
    /// `spaces`
    pub spaces: BTreeMap<SpaceName, Space>,
    /// `quotas.open_idle_secs`
    pub open_idle: Duration,
    /// `quotas.open_wait_secs`
    pub open_wait: Duration,
    /// `uploads.max_failures`
    pub max_failures: u32,
    /// `store.s3.equal_parts`
    pub equal_parts: bool,
    /// `spool.path`
    pub spool_path: PathBuf,
    /// `spool.max_bytes`
    pub spool_max_bytes: u64,
    /// `spool.min_free_bytes`
    pub min_free_bytes: u64,
    /// `uploads.chunk_size_bytes`
    pub chunk_size_bytes: u64,
    /// `uploads.max_size_bytes`
    pub max_size_bytes: u64,
    /// `uploads.session_ttl_secs`
    pub session_ttl: Duration,
    /// `uploads.session_max_age_secs`
    pub session_max_age: Duration,
    /// `uploads.retention_secs`
    pub retention: Duration,
    /// `uploads.instant`
    pub instant: bool,
    /// `uploads.delete_completed`
    pub delete_completed: bool,
    /// `uploads.max_parallel_chunks`
    pub max_parallel_chunks: usize,
    /// `uploads.max_checksummed_chunk_bytes`
    pub max_checksummed_chunk_bytes: u64,
    /// `uploads.durability`
    pub durability: Durability,
    /// `uploads.memory_budget_bytes`
    pub memory_budget_bytes: u64,
    /// `uploads.idempotency_secs`
    pub idempotency_ttl: Duration,
    /// `uploads.commit_interval_secs`
    pub commit_interval: Duration,
    /// `uploads.complete_wait_secs`
    pub complete_wait: Duration,
    /// `direct.url_ttl_secs`
    pub url_ttl: Duration,
    /// `direct.verify`
    pub verify: Verify,
    /// `objects.serve`
    pub serve: Serve,
    /// `server.body_stall_secs` and `server.min_body_bytes_per_sec`
    pub body_pace: BodyPace,
    /// `prune.orphan_grace_secs`
    pub orphan_grace: Duration,
    /// Not for users: what tests put before the work of a writer's tasks.
    pub pace: Pace,
}

impl Settings {
    /// What uploads of a space are held to. One that is configured no longer is like one of which nothing was said.
    #[must_use]
    pub fn space(&self, name: &SpaceName) -> Option<&Space> {
        self.spaces.get(name)
    }

    /// How keys are made in a space.
    #[must_use]
    pub fn template(&self, space: &SpaceName) -> &KeyTemplate {
        self.space(space)
            .and_then(|space| space.key_template.as_ref())
            .unwrap_or(&self.key_template)
    }
}
