//! The sections of the configuration, one struct each, with their defaults. `config.toml` explains every key.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::network::{FileMode, TrustedProxy};
use super::secret::Secret;
use crate::engine::{Durability, Serve, Verify};

/// `[server]`: the listeners and what they put up with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where uploads are taken.
    pub listen: SocketAddr,
    /// A Unix socket where uploads are taken as well; empty: none.
    pub listen_unix: PathBuf,
    /// Who may connect to the Unix socket.
    pub listen_unix_mode: FileMode,
    /// Where metrics and health are told.
    pub admin_listen: SocketAddr,
    /// Scheme and host that answers begin their URLs with; empty: URLs are paths.
    pub public_url: String,
    /// The proxies that are believed when they say whom they speak for.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Whose pages may use the server; `*` for all.
    pub cors_origins: Vec<String>,
    /// Between "not ready" and "taking no more connections".
    pub drain_delay_secs: u64,
    /// How long running requests have to finish then.
    pub drain_secs: u64,
    /// How long a request's head may take.
    pub head_timeout_secs: u64,
    /// How long a body may pause.
    pub body_stall_secs: u64,
    /// How slow a body may be, in the mean of `body_stall_secs`; 0: as slow as it likes.
    pub min_body_bytes_per_sec: u64,
    /// The most that a proxy in front lets through in one body; 0: no cap.
    pub max_request_bytes: u64,
    /// How many connections are served at a time.
    pub max_connections: usize,
    /// The most that a request's head may have.
    pub max_header_bytes: usize,
    /// The most header fields that a request may have.
    pub max_headers: usize,
    /// How much of a refused body is read and thrown away.
    pub refused_body_bytes: u64,
    /// For how long a refused body is read.
    pub refused_body_secs: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            listen_unix: PathBuf::new(),
            listen_unix_mode: FileMode(0o660),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            public_url: String::new(),
            trusted_proxies: Vec::new(),
            cors_origins: vec!["*".to_owned()],
            drain_delay_secs: 0,
            drain_secs: 30,
            head_timeout_secs: 10,
            body_stall_secs: 60,
            min_body_bytes_per_sec: 128,
            max_request_bytes: 0,
            max_connections: 4096,
            max_header_bytes: 65_536,
            max_headers: 100,
            refused_body_bytes: 64 << 20,
            refused_body_secs: 5,
        }
    }
}

/// `[api]`: where each protocol is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Sessions and Content-Range.
    pub native: String,
    /// tus 1.0.0.
    pub tus: String,
    /// IETF resumable uploads.
    pub ietf: String,
    /// Files in one request, and objects by their content.
    pub objects: String,
    /// What Uppy's S3 plugin asks.
    pub s3: String,
    /// Looking after the server.
    pub admin: String,
    /// What a caller is held to.
    pub quota: String,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            native: "/v1/uploads".to_owned(),
            tus: "/files".to_owned(),
            ietf: "/resumable".to_owned(),
            objects: "/v1/objects".to_owned(),
            s3: "/s3".to_owned(),
            admin: "/v1/admin".to_owned(),
            quota: "/v1/quota".to_owned(),
        }
    }
}

/// `[catalog]`: the record of uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Catalog {
    /// `sqlite:` and a path.
    pub url: String,
    /// Whether `serve` brings the schema up to date.
    pub auto_migrate: bool,
}

impl Catalog {
    /// The database file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.url.strip_prefix("sqlite:").unwrap_or(&self.url))
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            url: "sqlite:data/jumar.db".to_owned(),
            auto_migrate: true,
        }
    }
}

/// Which kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A folder.
    Fs,
    /// A bucket.
    S3,
}

/// `[store]`: where the bytes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// A folder or a bucket.
    pub kind: StoreKind,
    /// How an object's key is made.
    pub key: String,
    /// The folder.
    pub fs: Fs,
    /// The bucket.
    pub s3: S3,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Fs,
            key: "{id}".to_owned(),
            fs: Fs::default(),
            s3: S3::default(),
        }
    }
}

/// `[store.fs]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fs {
    /// The folder that `staging/` and `objects/` are made in.
    pub path: PathBuf,
}

impl Default for Fs {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data"),
        }
    }
}

/// The checksum that goes with each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// The best that the store was seen to take.
    Auto,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// CRC-32C.
    Crc32c,
    /// MD5, in `Content-MD5`.
    Md5,
    /// None.
    None,
}

/// Encryption on the store's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sse {
    /// As the bucket has it.
    None,
    /// With the store's own keys.
    Aes256,
    /// With a key of the key management service.
    Kms,
}

/// Where bytes wait that fill no part yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tail {
    /// In the spool of this node.
    Local,
}

/// `[store.s3]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// The bucket.
    pub bucket: String,
    /// The service's URL; empty: AWS.
    pub endpoint: String,
    /// The region; empty: as the environment says.
    pub region: String,
    /// What all keys begin with.
    pub prefix: String,
    /// Whether the bucket stands in the path instead of the host's name.
    pub force_path_style: bool,
    /// Empty: as the environment says.
    pub access_key_id: Secret,
    /// Empty: as the environment says.
    pub secret_access_key: Secret,
    /// The checksum that goes with each part.
    pub checksum: Checksum,
    /// Whether all parts but the last have one size.
    pub equal_parts: bool,
    /// Where bytes wait that fill no part yet.
    pub tail: Tail,
    /// Encryption on the store's side.
    pub sse: Sse,
    /// The key for `sse = "kms"`; empty: the account's own.
    pub sse_kms_key_id: String,
    /// How long one attempt at a call may take.
    pub attempt_timeout_secs: u64,
    /// How long connecting may take.
    pub connect_timeout_secs: u64,
    /// How often a call is tried.
    pub max_attempts: u32,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            bucket: "uploads".to_owned(),
            endpoint: String::new(),
            region: String::new(),
            prefix: String::new(),
            force_path_style: false,
            access_key_id: Secret::default(),
            secret_access_key: Secret::default(),
            checksum: Checksum::Auto,
            equal_parts: false,
            tail: Tail::Local,
            sse: Sse::None,
            sse_kms_key_id: String::new(),
            attempt_timeout_secs: 60,
            connect_timeout_secs: 5,
            max_attempts: 4,
        }
    }
}

/// `[spool]`: bytes that wait on this node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// The folder.
    pub path: PathBuf,
    /// The most that it may hold.
    pub max_bytes: u64,
    /// Bodies are refused when the disk has less than this.
    pub min_free_bytes: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/spool"),
            max_bytes: 10 << 30,
            min_free_bytes: 1 << 30,
        }
    }
}

/// `[uploads]`: limits and times of uploads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Uploads {
    /// What the native API advises; also the part size where it can be.
    pub chunk_size_bytes: u64,
    /// The longest upload.
    pub max_size_bytes: u64,
    /// How long an upload waits for its client; slides with every byte that arrives.
    pub session_ttl_secs: u64,
    /// How old an upload may become.
    pub session_max_age_secs: u64,
    /// How long records of ended uploads stay.
    pub retention_secs: u64,
    /// Whether an upload whose declared SHA-256 is there already is completed at once.
    pub instant: bool,
    /// Whether ending a completed upload by tus or the IETF's protocol removes its object.
    pub delete_completed: bool,
    /// How many chunks of one upload may be in flight.
    pub max_parallel_chunks: usize,
    /// The largest body that may come with its own digest.
    pub max_checksummed_chunk_bytes: u64,
    /// So many wrong ranges or digests in a row end an upload.
    pub max_failures: u32,
    /// What an acknowledged byte survives.
    pub durability: Durability,
    /// How much memory bodies may take, all together.
    pub memory_budget_bytes: u64,
    /// How long an idempotency key is remembered.
    pub idempotency_secs: u64,
    /// How often a long body is committed.
    pub commit_interval_secs: u64,
    /// How long a completion keeps its client waiting before it says "ask again".
    pub complete_wait_secs: u64,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            chunk_size_bytes: 8 << 20,
            max_size_bytes: 50 << 30,
            session_ttl_secs: 259_200,
            session_max_age_secs: 518_400,
            retention_secs: 2_592_000,
            instant: false,
            delete_completed: true,
            max_parallel_chunks: 4,
            max_checksummed_chunk_bytes: 64 << 20,
            max_failures: 5,
            durability: Durability::Power,
            memory_budget_bytes: 256 << 20,
            idempotency_secs: 86_400,
            commit_interval_secs: 5,
            complete_wait_secs: 25,
        }
    }
}

/// `[direct]`: URLs that clients put parts to, past the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Direct {
    /// How long a URL is good for.
    pub url_ttl_secs: u64,
    /// How what came directly is verified.
    pub verify: Verify,
}

impl Default for Direct {
    fn default() -> Self {
        Self {
            url_ttl_secs: 3600,
            verify: Verify::Readback,
        }
    }
}

/// `[objects]`: files in one request, and what is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objects {
    /// The largest file that is taken in one request.
    pub max_size_bytes: u64,
    /// How content is served.
    pub serve: Serve,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            max_size_bytes: 200 << 20,
            serve: Serve::Proxy,
        }
    }
}

/// `[prune]`: cleaning up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prune {
    /// When, as a cron expression with seconds, in UTC.
    pub schedule: String,
    /// How old something that nobody owns has to be before it is removed.
    pub orphan_grace_secs: u64,
}

impl Default for Prune {
    fn default() -> Self {
        Self {
            schedule: "0 0 * * * *".to_owned(),
            orphan_grace_secs: 3600,
        }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How it is written.
    pub format: LogFormat,
    /// What is written: a level, or directives as in `RUST_LOG`, which comes first if it is set.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}
