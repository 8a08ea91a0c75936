//! A server that listens, and how it ends.

use std::collections::BTreeMap;
use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::rate::rate_settings;
use super::sockets::listen;
use super::{App, AppError, auth_settings, open_tls};
use crate::api::admin::Health;
use crate::api::asker::Door;
use crate::api::body::DrainLimits;
use crate::api::cors::Cors;
use crate::api::forwarded::Trusted;
use crate::api::gate::Gate;
use crate::api::ietf::{self, Ietf};
use crate::api::link::ContentLinks;
use crate::api::listener::Listener;
use crate::api::native::{self, Native};
use crate::api::objects::{self, Objects};
use crate::api::observe::HeadLimits;
use crate::api::oversee::Oversee;
use crate::api::router::{self, Protocols, Router};
use crate::api::s3::{self, S3};
use crate::api::server::{self, Limits};
use crate::api::session::Advice;
use crate::api::tls::Reload;
use crate::api::tus::{self, Tus};
use crate::auth::{AuthError, Authenticator, Links};
use crate::config::{AuthMode, Config, Space, TrustedProxy};
use crate::engine::Engine;
use crate::jobs::Jobs;
use crate::model::{Length, SpaceName};
use crate::telemetry::Metrics;

/// How long cut requests have to bring their answers out.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How often the metrics are tidied when nobody asks for them.
const UPKEEP: Duration = Duration::from_secs(10);

/// A server that listens. Dropping it ends it at once, as a crash would.
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    engine: Engine,
    drain: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Running {
    /// Where uploads are taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are told.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// What carries commands out.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Begins to end: not ready, then no more connections, then no more requests. Repeatable.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Waits for the end.
    pub async fn finished(self) {
        if let Err(error) = self.task.await
            && error.is_panic()
        {
            tracing::error!(%error, "the server's task panicked");
        }
    }
}

pub(super) async fn start(mut app: App) -> Result<Running, AppError> {
    let config = &app.config;
    let health = Health::new(app.engine.clone());
    let routes = routes(&app, health.clone()).await?;
    let (tls, reload) = open_tls(config).await?.unzip();
    let main = app.inherited.tcp_or(config.server.listen)?;
    let admin = listen(config.server.admin_listen)?;
    let address = main.local_addr().unwrap_or(config.server.listen);
    let admin_address = admin.local_addr().unwrap_or(config.server.admin_listen);
    let unix = app.inherited.unix_or(&config.server).await?;
    let jobs = if app.jobs {
        Some(Jobs::start(app.engine.clone(), &config.prune.schedule).await?)
    } else {
        None
    };
    tracing::info!(%address, tls = tls.is_some(), unix = unix.is_some(), %admin_address, "listening");

    let sockets = Sockets {
        main: iter::once(Listener::Tcp { socket: main, tls })
            .chain(unix)
            .collect(),
        admin: Listener::Tcp {
            socket: admin,
            tls: None,
        },
        reload,
    };
    let drain = CancellationToken::new();
    let engine = app.engine.clone();
    let task = tokio::spawn(run(app, routes, health, sockets, jobs, drain.clone()));
    Ok(Running {
        address,
        admin_address,
        engine,
        drain,
        task: AbortOnDropHandle::new(task),
    })
}

/// What is listened on.
struct Sockets {
    main: Vec<Listener>,
    admin: Listener,
    reload: Option<Reload>,
}

async fn links(app: &App) -> Result<ContentLinks, AppError> {
    let config = &app.config;
    Ok(ContentLinks {
        links: Links::load(&*app.catalog).await.map_err(AuthError::from)?,
        base: format!("{}{}", config.server.public_url, config.api.native),
        ttl: Duration::from_secs(config.auth.link_ttl_secs),
        clock: app.clock.clone(),
    })
}

/// The pages that each space is for.
fn space_origins(config: &Config) -> BTreeMap<String, Cors> {
    let unsaid = (SpaceName::default().to_string(), Space::default());
    [(&unsaid.0, &unsaid.1)]
        .into_iter()
        .chain(&config.spaces)
        .map(|(name, space)| {
            let everywhere = space.cors_origins.is_empty();
            let origins = if everywhere {
                &config.server.cors_origins
            } else {
                &space.cors_origins
            };
            (name.clone(), Cors::new(origins))
        })
        .collect()
}

/// The pages that may use the server in any space.
fn all_origins(config: &Config) -> Cors {
    let spaces = config.spaces.values().flat_map(|space| &space.cors_origins);
    let all: Vec<String> = config
        .server
        .cors_origins
        .iter()
        .chain(spaces)
        .cloned()
        .collect();
    Cors::new(&all)
}

async fn door(app: &App) -> Result<Door, AppError> {
    let spaces = app.config.spaces.keys();
    let authenticator = Authenticator::start(
        Arc::clone(&app.catalog) as _,
        app.clock.clone(),
        auth_settings(&app.config),
        spaces
            .filter_map(|name| name.parse().ok())
            .chain([SpaceName::default()])
            .collect(),
    );
    Ok(Door {
        authenticator: authenticator.await?,
        required: app.config.auth.mode == AuthMode::Required,
        origins: Arc::new(space_origins(&app.config)),
    })
}

async fn run(
    app: App,
    routes: Router,
    health: Health,
    sockets: Sockets,
    jobs: Option<Jobs>,
    drain: CancellationToken,
) {
    let server = &app.config.server;
    let limits = limits(&app.config);
    let admin_routes = router::admin(health.clone(), app.metrics.clone(), limits.head);

    // Answers until everything else has ended.
    let never = CancellationToken::new();
    let _admin = AbortOnDropHandle::new(tokio::spawn(async move {
        server::serve(
            vec![sockets.admin],
            admin_routes,
            Trusted::default(),
            limits,
            never,
        )
        .await;
    }));
    let every = Duration::from_secs(app.config.tls.reload_secs);
    let _reload = sockets
        .reload
        .map(|reload| AbortOnDropHandle::new(tokio::spawn(reload.run(every))));
    let _upkeep = AbortOnDropHandle::new(tokio::spawn(upkeep(app.metrics.clone())));

    let stop = CancellationToken::new();
    let stopping = async {
        drain.cancelled().await;
        tracing::info!("draining");
        health.begin_draining();
        tokio::time::sleep(Duration::from_secs(server.drain_delay_secs)).await;
        stop.cancel();
    };
    let serving = server::serve(
        sockets.main,
        routes,
        trusted(&app.config),
        limits,
        stop.clone(),
    );
    let (mut connections, ()) = tokio::join!(serving, stopping);
    if !connections
        .finish(Duration::from_secs(server.drain_secs))
        .await
    {
        tracing::warn!("requests are still running; they are cut and what came of them is saved");
    }
    app.engine.stop().await;
    connections.finish(LAST_ANSWERS).await;
    if let Some(jobs) = jobs {
        jobs.stop().await;
    }
    tracing::info!("stopped");
}

/// The routes of the main listener.
pub(super) async fn routes(app: &App, health: Health) -> Result<Router, AppError> {
    let door = door(app).await?;
    let links = links(app).await?;
    let gate = Gate::new(app.engine.clone(), links);
    let native = Native {
        gate: gate.clone(),
        settings: native_settings(&app.config),
    };
    let tus = Tus {
        gate: gate.clone(),
        settings: tus_settings(&app.config),
    };
    let ietf = Ietf {
        gate: gate.clone(),
        clock: app.clock.clone(),
        settings: ietf_settings(&app.config),
    };
    let s3 = S3 {
        gate: gate.clone(),
        settings: s3_settings(&app.config),
    };
    let objects = Objects {
        gate: gate.clone(),
        settings: objects_settings(&app.config),
    };
    let oversee = Oversee {
        gate: gate.clone(),
        clock: app.clock.clone(),
        base: app.config.api.admin.clone(),
    };
    let protocols = Protocols {
        native,
        tus,
        ietf,
        s3,
        objects,
        oversee,
        quota: app.config.api.quota.clone(),
    };
    let origins = all_origins(&app.config);
    let rates = rate_settings(&app.config, door.required);
    let head = limits(&app.config).head;
    Ok(router::main(protocols, door, &rates, health, origins, head))
}

async fn upkeep(metrics: Metrics) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.upkeep();
    }
}

fn limits(config: &Config) -> Limits {
    let server = &config.server;
    Limits {
        head_timeout: Duration::from_secs(server.head_timeout_secs),
        head: HeadLimits {
            bytes: server.max_header_bytes,
            fields: server.max_headers,
        },
        connections: server.max_connections,
        refused_body: DrainLimits {
            bytes: server.refused_body_bytes,
            time: Duration::from_secs(server.refused_body_secs),
        },
    }
}

fn trusted(config: &Config) -> Trusted {
    let mut trusted = Trusted::default();
    for proxy in &config.server.trusted_proxies {
        match proxy {
            TrustedProxy::Unix => trusted.unix = true,
            TrustedProxy::Network(network) => trusted.networks.push(*network),
        }
    }
    trusted
}

fn native_settings(config: &Config) -> native::Settings {
    native::Settings {
        base: config.api.native.clone(),
        public_url: config.server.public_url.clone(),
        advice: advice(config),
        json_timeout: Duration::from_secs(config.server.body_stall_secs),
    }
}

fn advice(config: &Config) -> Advice {
    let uploads = &config.uploads;
    Advice {
        chunk_size: match config.server.max_request_bytes {
            0 => uploads.chunk_size_bytes,
            cap => uploads.chunk_size_bytes.min(cap),
        },
        max_parallel_chunks: uploads.max_parallel_chunks,
    }
}

fn objects_settings(config: &Config) -> objects::Settings {
    let max_size = config.objects.max_size_bytes;
    objects::Settings {
        base: config.api.objects.clone(),
        open: config.auth.mode == AuthMode::Open,
        sessions: config.api.native.clone(),
        public_url: config.server.public_url.clone(),
        max_size: Length(max_size.min(config.uploads.max_size_bytes)),
        advice: advice(config),
        form_timeout: Duration::from_secs(config.server.body_stall_secs),
    }
}

fn tus_settings(config: &Config) -> tus::Settings {
    tus::Settings {
        base: config.api.tus.clone(),
        public_url: config.server.public_url.clone(),
        body_timeout: Duration::from_secs(config.server.body_stall_secs),
    }
}

fn ietf_settings(config: &Config) -> ietf::Settings {
    let server = &config.server;
    ietf::Settings {
        base: config.api.ietf.clone(),
        public_url: server.public_url.clone(),
        max_request_bytes: Some(server.max_request_bytes).filter(|cap| *cap > 0),
    }
}

fn s3_settings(config: &Config) -> s3::Settings {
    s3::Settings {
        base: config.api.s3.clone(),
        objects: config.api.objects.clone(),
        public_url: config.server.public_url.clone(),
        json_timeout: Duration::from_secs(config.server.body_stall_secs),
        url_ttl: Duration::from_secs(config.direct.url_ttl_secs),
    }
}
