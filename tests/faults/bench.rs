//! One server over one bucket of its own, started as often as a test wishes, beside what is another's in the bucket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jumar::app::App;
use jumar::clock::Clock;
use jumar::config::Config;
use jumar::engine::{Durability, Verify};
use jumar::model::{StoreKey, UploadId};
use jumar::store::faulty::Faults;
use jumar::store::s3::{ChecksumMode, S3Config, S3Store};
use jumar::store::{About, MadeOf, Parts as _, Payload};

use crate::scenes::Kind;
use crate::support::rig::{Ground, MIB};
use crate::support::s3::Control;
use crate::support::server::Server;

const FOREIGN: &[u8] = b"another application's";

/// What the cells strike.
pub(crate) struct Bench {
    pub(crate) server: Server,
    kind: Kind,
    /// The multipart upload that is another's.
    foreign: (String, String),
}

impl Bench {
    pub(crate) async fn start(kind: Kind) -> Self {
        let ground = Ground::s3().await;
        let foreign = begin_foreign(&ground).await;
        let clock = Clock::manual(Clock::system().now());
        let server = serve(ground, clock, kind).await;
        Self {
            server,
            kind,
            foreign,
        }
    }

    /// The process dies, and the next one begins.
    pub(crate) async fn restart(self) -> Self {
        let Self {
            server,
            kind,
            foreign,
        } = self;
        let Server {
            running,
            clock,
            ground,
            ..
        } = server;
        drop(running);
        Self {
            server: serve(ground, clock, kind).await,
            kind,
            foreign,
        }
    }

    pub(crate) fn control(&self) -> &Control {
        self.server.s3_server().control()
    }

    /// More than a minute passes, and the jobs that run by the clock have their turn.
    pub(crate) async fn a_minute_later(&self) {
        self.server.clock.advance(Duration::from_secs(61));
        let recovered = self.server.running.engine().recover(false).await;
        recovered.expect("recovered");
    }

    /// What of ours is in the bucket.
    pub(crate) fn in_bucket(&self) -> Vec<String> {
        let backend = self.server.s3_server().backend();
        let mut found = backend.keys();
        found.retain(|key| key != "foreign/object");
        let mut open = backend.open_uploads();
        open.retain(|open| *open != self.foreign);
        found.extend(open.iter().map(|(key, id)| format!("{key}?{id}")));
        found
    }

    /// The names of the files in the spool that are an upload's.
    pub(crate) fn in_spool(&self) -> Vec<String> {
        let mut files = self.server.stored_files();
        files.retain(|name| name.contains("/spool/") && !name.ends_with("reserve"));
        files
    }

    /// What is another's is as it was.
    pub(crate) fn assert_foreign_untouched(&self) {
        let backend = self.server.s3_server().backend();
        assert_eq!(backend.bytes("foreign/object").as_deref(), Some(FOREIGN));
        assert!(
            backend.open_uploads().contains(&self.foreign),
            "another's multipart upload is gone"
        );
    }
}

/// An object and a multipart upload of another application.
async fn begin_foreign(ground: &Ground) -> (String, String) {
    let s3 = ground.s3.as_ref().expect("a bucket");
    let store = S3Store::open(S3Config {
        checksum: ChecksumMode::None,
        ..s3.config()
    })
    .await;
    let about = About {
        upload: UploadId::generate(),
        content_type: None,
    };
    let object: StoreKey = "foreign/object".parse().unwrap();
    let bytes = Payload::Memory(Arc::new([Bytes::from_static(FOREIGN)]));
    store.put(&object, bytes, &about).await.expect("put");
    let key: StoreKey = "foreign/multipart".parse().unwrap();
    let begun = store.begin(&key, &about, MadeOf::Unchecked).await;
    (key.to_string(), begun.expect("begun").0)
}

/// A new process over the ground. Times are shorter than the defaults, in the same proportions: a minute of silence is longer than
/// any call may take.
async fn serve(ground: Ground, clock: Clock, kind: Kind) -> Server {
    let mut config = Config::default();
    let folder = ground.folder.path();
    config.server.listen.set_port(0);
    config.server.admin_listen.set_port(0);
    config.catalog.url = format!("sqlite:{}", folder.join("jumar.db").display());
    config.spool.path = folder.join("spool");
    config.spool.min_free_bytes = 0;
    config.uploads.chunk_size_bytes = 5 * MIB;
    config.uploads.durability = Durability::Process;
    config.uploads.memory_budget_bytes = 64 * MIB;
    config.uploads.complete_wait_secs = 2;
    if kind == Kind::Address {
        "{sha256}".clone_into(&mut config.store.key);
    }
    if kind == Kind::Direct {
        config.direct.verify = Verify::StoreChecksum;
    }
    let s3 = ground.s3.as_ref().expect("a bucket");
    let store = S3Store::open(S3Config {
        attempt_timeout: Duration::from_millis(1500),
        first_backoff: Duration::from_millis(50),
        slowest_bytes_per_sec: 6 * MIB,
        ..s3.config()
    })
    .await;
    let app = App::builder(config)
        .store(Arc::new(store))
        .clock(clock.clone())
        .without_jobs();
    let app = app.build().await.expect("put together");
    let running = app.serve().await.expect("listening");
    Server {
        main: running.address(),
        admin: running.admin_address(),
        running,
        faults: Faults::default(),
        clock,
        ground,
    }
}
