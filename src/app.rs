//! Wires everything together, once: catalog, store, engine, jobs and listeners from the configuration.
//!
//! The command line and the tests both begin here. A test brings what it wants to look at or break:
//!
//! ```no_run
//! # async fn example(store: std::sync::Arc<dyn jumar::store::Store>) -> Result<(), jumar::app::AppError> {
//! let mut config = jumar::config::Config::default();
//! config.server.listen.set_port(0);
//! config.server.admin_listen.set_port(0);
//! let running = jumar::app::App::builder(config).store(store).build().await?.serve().await?;
//! let uploads = format!("http://{}/v1/uploads", running.address());
//! running.drain();
//! running.finished().await;
//! # Ok(()) }
//! ```

mod auth;
mod rate;
mod running;
mod sockets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::api::router::Router;
use crate::api::tls::{self, Reload, Tls, TlsError};
use crate::auth::AuthError;
use crate::catalog::Catalog;
use crate::catalog::sqlite::{OpenError, SqliteCatalog, Synchronous, migrate};
use crate::clock::Clock;
use crate::config::{self, Checksum, Config, Sse, StoreKind};
use crate::engine::{BodyPace, Durability, Engine, Pace, Settings, Space};
use crate::model::caller::{InvalidMediaType, InvalidName, MediaTypes};
use crate::model::{KeyTemplate, Length, SpaceName};
use crate::store::fs::FsStore;
use crate::store::hooked::Hooked;
use crate::store::measured::Measured;
use crate::store::s3::{self, S3Config, S3Store};
use crate::store::{Store, StoreError};
use crate::telemetry::{Metrics, MetricsError};

pub use auth::{auth_refresh, auth_settings, join_settings};
pub use running::Running;
pub use sockets::Inherited;

/// Why the server cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The catalog cannot be opened.
    #[error(transparent)]
    Catalog(#[from] OpenError),
    /// The store or the spool cannot be opened.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The metrics cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The key template is wrong; loading the configuration would have refused it.
    #[error(transparent)]
    Key(#[from] crate::model::key::InvalidTemplate),
    /// A space's name is wrong; loading the configuration would have refused it.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// So is a media type.
    #[error(transparent)]
    MediaType(#[from] InvalidMediaType),
    /// Tokens cannot be checked.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// An address cannot be listened on.
    #[error("{address} cannot be listened on: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A Unix socket cannot be listened on.
    #[error("server.listen_unix: {} cannot be listened on: {source}", .path.display())]
    ListenUnix {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A socket that was passed to the process is none that can be listened on.
    #[error("a socket that was passed (LISTEN_FDS) cannot be used: {0}")]
    Inherited(std::io::Error),
    /// More sockets were passed than there is use for.
    #[error("at most one TCP and one Unix socket can be passed (LISTEN_FDS)")]
    TooManyInherited,
    /// The files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The jobs cannot be started.
    #[error("the jobs cannot be started: {0}")]
    Jobs(#[from] tokio_cron_scheduler::JobSchedulerError),
}

/// A server that is put together and does not listen yet.
pub struct App {
    /// Boxed, as futures hold it several times.
    config: Box<Config>,
    catalog: Arc<dyn Catalog>,
    store: Arc<dyn Store>,
    engine: Engine,
    clock: Clock,
    metrics: Metrics,
    inherited: Inherited,
    jobs: bool,
}

/// Puts an [`App`] together; what is not brought is made from the configuration.
pub struct Builder {
    config: Box<Config>,
    catalog: Option<Arc<dyn Catalog>>,
    store: Option<Arc<dyn Store>>,
    clock: Clock,
    inherited: Inherited,
    jobs: bool,
    pace: Pace,
}

impl Builder {
    /// With a catalog of one's own.
    #[must_use]
    pub fn catalog(mut self, catalog: Arc<dyn Catalog>) -> Self {
        self.catalog = Some(catalog);
        self
    }

    /// With a store of one's own. It is not measured.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// With a clock of one's own.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// With sockets that were passed to the process.
    #[must_use]
    pub fn inherited(mut self, inherited: Inherited) -> Self {
        self.inherited = inherited;
        self
    }

    /// With a pace of one's own for the tasks of the byte path.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Nothing runs by the clock: neither pruning nor recovering.
    #[must_use]
    pub fn without_jobs(mut self) -> Self {
        self.jobs = false;
        self
    }

    /// Opens everything and starts the engine.
    pub async fn build(self) -> Result<App, AppError> {
        let settings = Settings {
            pace: self.pace,
            ..engine_settings(&self.config)?
        };
        let metrics = Metrics::install()?;
        let catalog = match self.catalog {
            Some(catalog) => catalog,
            None => Arc::new(open_catalog(&self.config)?),
        };
        let store = match self.store {
            Some(store) => store,
            None => open_store(&self.config).await?,
        };
        let engine = Engine::start(
            Arc::clone(&catalog),
            Arc::clone(&store),
            self.clock.clone(),
            settings,
        )?;
        Ok(App {
            config: self.config,
            catalog,
            store,
            engine,
            clock: self.clock,
            metrics,
            inherited: self.inherited,
            jobs: self.jobs,
        })
    }
}

impl App {
    /// Begins to put a server together.
    #[must_use]
    pub fn builder(config: Config) -> Builder {
        Builder {
            config: Box::new(config),
            catalog: None,
            store: None,
            clock: Clock::system(),
            inherited: Inherited::default(),
            jobs: true,
            pace: Pace::default(),
        }
    }

    /// What carries commands out.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is known.
    #[must_use]
    pub fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    /// Where the bytes go.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The routes of the main listener, for who brings requests without one. Has to be called inside a tokio runtime.
    pub async fn routes(&self) -> Result<Router, AppError> {
        running::routes(self, crate::api::admin::Health::new(self.engine.clone())).await
    }

    /// Listens, and starts the jobs. Has to be called inside a tokio runtime.
    pub async fn serve(self) -> Result<Running, AppError> {
        running::start(self).await
    }
}

/// Opens the catalog, brought up to date first unless the configuration says otherwise.
pub fn open_catalog(config: &Config) -> Result<SqliteCatalog, OpenError> {
    let path = config.catalog.path();
    if config.catalog.auto_migrate {
        migrate(&path)?;
    }
    let synchronous = match config.uploads.durability {
        Durability::Power => Synchronous::Full,
        Durability::Process => Synchronous::Normal,
    };
    SqliteCatalog::open(&path, synchronous)
}

/// Opens the store, with its calls measured.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    let store: Arc<dyn Store> = match config.store.kind {
        StoreKind::Fs => {
            let power = config.uploads.durability == Durability::Power;
            Arc::new(FsStore::open(&config.store.fs.path, power)?)
        }
        StoreKind::S3 => Arc::new(S3Store::open(s3_config(config)).await),
    };
    Ok(Arc::new(Hooked::new(store, Measured)))
}

/// Reads the files of TLS, if there is to be any.
pub async fn open_tls(config: &Config) -> Result<Option<(Tls, Reload)>, TlsError> {
    let tls = &config.tls;
    if !tls.is_on() {
        return Ok(None);
    }
    let client_ca = &tls.client_ca_file;
    let files = tls::Files {
        cert: tls.cert_file.clone(),
        key: tls.key_file.clone(),
        client_ca: (!client_ca.as_os_str().is_empty()).then(|| client_ca.clone()),
    };
    let handshake_within = Duration::from_secs(tls.handshake_timeout_secs);
    Tls::open(files, handshake_within).await.map(Some)
}

fn s3_config(config: &Config) -> S3Config {
    let s3 = &config.store.s3;
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    S3Config {
        bucket: s3.bucket.clone(),
        endpoint: given(&s3.endpoint),
        region: given(&s3.region),
        prefix: s3.prefix.clone(),
        force_path_style: s3.force_path_style,
        access_key_id: given(s3.access_key_id.reveal()),
        secret_access_key: given(s3.secret_access_key.reveal()),
        checksum: match s3.checksum {
            Checksum::Auto => s3::ChecksumMode::Auto,
            Checksum::Crc64Nvme => s3::ChecksumMode::Crc64Nvme,
            Checksum::Crc32c => s3::ChecksumMode::Crc32c,
            Checksum::Md5 => s3::ChecksumMode::Md5,
            Checksum::None => s3::ChecksumMode::None,
        },
        equal_parts: s3.equal_parts,
        sse: match s3.sse {
            Sse::None => s3::Sse::None,
            Sse::Aes256 => s3::Sse::Aes256,
            Sse::Kms => s3::Sse::Kms {
                key_id: given(&s3.sse_kms_key_id),
            },
        },
        attempt_timeout: Duration::from_secs(s3.attempt_timeout_secs),
        connect_timeout: Duration::from_secs(s3.connect_timeout_secs),
        max_attempts: s3.max_attempts,
        ..S3Config::default()
    }
}

/// What uploads are held to, space by space; with `default` in any case.
fn spaces(config: &Config) -> Result<BTreeMap<SpaceName, Space>, AppError> {
    let mut spaces = BTreeMap::new();
    let unsaid = config::Space::default();
    let default = (SpaceName::default().to_string(), unsaid);
    for (name, space) in [(&default.0, &default.1)].into_iter().chain(&config.spaces) {
        let key = Some(space.key.as_str()).filter(|key| !key.is_empty());
        let space = Space {
            max_size: space.max_size_bytes.0.map(Length),
            content_types: MediaTypes::new(&space.content_types)?,
            key_template: key.map(str::parse).transpose()?,
            retention: space.retention_secs.0.map(Duration::from_secs),
            readers: space.read,
            limits: space.limits(),
        };
        spaces.insert(name.parse()?, space);
    }
    Ok(spaces)
}

fn engine_settings(config: &Config) -> Result<Settings, AppError> {
    let uploads = &config.uploads;
    Ok(Settings {
        key_template: config.store.key.parse::<KeyTemplate>()?,
        spaces: spaces(config)?,
        open_idle: Duration::from_secs(config.quotas.open_idle_secs),
        open_wait: Duration::from_secs(config.quotas.open_wait_secs),
        max_failures: uploads.max_failures,
        equal_parts: config.store.s3.equal_parts,
        spool_path: config.spool.path.clone(),
        spool_max_bytes: config.spool.max_bytes,
        min_free_bytes: config.spool.min_free_bytes,
        chunk_size_bytes: uploads.chunk_size_bytes,
        max_size_bytes: uploads.max_size_bytes,
        session_ttl: Duration::from_secs(uploads.session_ttl_secs),
        session_max_age: Duration::from_secs(uploads.session_max_age_secs),
        retention: Duration::from_secs(uploads.retention_secs),
        instant: uploads.instant,
        delete_completed: uploads.delete_completed,
        max_parallel_chunks: uploads.max_parallel_chunks,
        max_checksummed_chunk_bytes: uploads.max_checksummed_chunk_bytes,
        durability: uploads.durability,
        memory_budget_bytes: uploads.memory_budget_bytes,
        idempotency_ttl: Duration::from_secs(uploads.idempotency_secs),
        commit_interval: Duration::from_secs(uploads.commit_interval_secs),
        complete_wait: Duration::from_secs(uploads.complete_wait_secs),
        url_ttl: Duration::from_secs(config.direct.url_ttl_secs),
        verify: config.direct.verify,
        serve: config.objects.serve,
        body_pace: BodyPace {
            stall: Duration::from_secs(config.server.body_stall_secs),
            least_bytes_per_sec: config.server.min_body_bytes_per_sec,
        },
        orphan_grace: Duration::from_secs(config.prune.orphan_grace_secs),
        pace: Pace::default(),
    })
}
