//! An engine with everything below it, and a client's view of it without HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use jumar::catalog::Catalog;
use jumar::catalog::sqlite::{SqliteCatalog, Synchronous, migrate};
use jumar::clock::Clock;
use jumar::engine::{
    Body, BodyError, BodyPace, Complete, Completion, Create, Durability, Engine, EngineError,
    NewRole, Serve, Settings, Status, Verify, Write, Written,
};
use jumar::model::digest::Digests;
use jumar::model::upload::{Declared, Protocol};
use jumar::model::{Length, Object, Offset, Timestamp, UploadId, UploadKey};
use jumar::store::Store;
use jumar::store::fs::FsStore;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::s3::S3Server;

pub(crate) const MIB: u64 = 1024 * 1024;

/// One process's engine over a folder that outlives it, so that it can be dropped and started again.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) ground: Ground,
}

/// What outlives a process.
pub(crate) struct Ground {
    pub(crate) folder: TempDir,
    pub(crate) s3: Option<S3Server>,
}

/// An upload as its client knows it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) id: UploadId,
    pub(crate) key: UploadKey,
}

impl Ground {
    pub(crate) fn fs() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            s3: None,
        }
    }

    pub(crate) async fn s3() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            s3: Some(S3Server::start().await),
        }
    }

    /// The store of this ground, as a new process would make it.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        match &self.s3 {
            Some(server) => Arc::new(server.store().await),
            None => Arc::new(FsStore::open(self.folder.path(), true).expect("a folder")),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            key_template: "{id}".parse().expect("a template"),
            spaces: std::collections::BTreeMap::new(),
            open_idle: Duration::from_mins(10),
            open_wait: Duration::from_millis(200),
            max_failures: 100,
            equal_parts: false,
            spool_path: self.folder.path().join("spool"),
            spool_max_bytes: 1024 * MIB,
            min_free_bytes: 0,
            chunk_size_bytes: 5 * MIB,
            max_size_bytes: 1024 * MIB,
            session_ttl: Duration::from_hours(1),
            session_max_age: Duration::from_hours(2),
            retention: Duration::from_hours(24),
            instant: false,
            delete_completed: true,
            max_parallel_chunks: 4,
            max_checksummed_chunk_bytes: 64 * MIB,
            durability: Durability::Process,
            memory_budget_bytes: 64 * MIB,
            idempotency_ttl: Duration::from_hours(1),
            commit_interval: Duration::from_secs(5),
            complete_wait: Duration::from_secs(25),
            url_ttl: Duration::from_hours(1),
            verify: Verify::Readback,
            serve: Serve::Proxy,
            body_pace: BodyPace {
                stall: Duration::from_secs(5),
                least_bytes_per_sec: 0,
            },
            orphan_grace: Duration::from_mins(10),
            pace: jumar::engine::Pace::default(),
        }
    }

    pub(crate) async fn rig(self) -> Rig {
        let store = self.store().await;
        let settings = self.settings();
        self.rig_with(store, settings)
    }

    pub(crate) fn rig_with(self, store: Arc<dyn Store>, settings: Settings) -> Rig {
        let clock = Clock::manual(Timestamp(1_700_000_000_000));
        self.rig_at(store, settings, clock)
    }

    pub(crate) fn rig_at(self, store: Arc<dyn Store>, settings: Settings, clock: Clock) -> Rig {
        let path = self.folder.path().join("jumar.db");
        migrate(&path).expect("migrated");
        let catalog = SqliteCatalog::open(&path, Synchronous::Normal).expect("opened");
        let catalog: Arc<dyn Catalog> = Arc::new(catalog);
        let engine = Engine::start(
            Arc::clone(&catalog),
            Arc::clone(&store),
            clock.clone(),
            settings,
        )
        .expect("started");
        Rig {
            engine,
            catalog,
            store,
            clock,
            ground: self,
        }
    }
}

impl Rig {
    pub(crate) async fn fs() -> Self {
        Ground::fs().rig().await
    }

    pub(crate) async fn s3() -> Self {
        Ground::s3().await.rig().await
    }

    /// The next process over the same ground. What the old one had in memory is forgotten; its tasks may still run.
    pub(crate) async fn restart(self) -> Self {
        let Self {
            engine,
            clock,
            ground,
            ..
        } = self;
        let settings = engine.settings().clone();
        drop(engine);
        let store = ground.store().await;
        ground.rig_at(store, settings, clock)
    }

    pub(crate) fn s3_server(&self) -> &S3Server {
        self.ground.s3.as_ref().expect("this rig has S3")
    }

    pub(crate) async fn create(&self, length: Option<u64>) -> Session {
        self.create_declaring(length, Declared::default()).await
    }

    pub(crate) async fn create_declaring(
        &self,
        length: Option<u64>,
        declared: Declared,
    ) -> Session {
        let create = Create {
            protocol: Protocol::Native,
            declared,
            length: length.map(Length),
            idempotency: None,
            role: NewRole::Whole,
            seal: None,
        };
        let created = self.engine.create(create).await.expect("created");
        Session {
            id: created.upload.id,
            key: created.key,
        }
    }

    /// Sends `bytes` as one body at `start`.
    pub(crate) async fn put(
        &self,
        session: &Session,
        start: u64,
        bytes: &[u8],
    ) -> Result<Written, EngineError> {
        self.put_body(session, start, bytes.len() as u64, body_of(bytes))
            .await
    }

    pub(crate) async fn put_body(
        &self,
        session: &Session,
        start: u64,
        len: u64,
        body: Body,
    ) -> Result<Written, EngineError> {
        let write = write(session, start, len);
        self.engine.admit(write).await?.run(body).await
    }

    pub(crate) async fn status(&self, session: &Session) -> Status {
        self.engine
            .status(session.id, &session.key)
            .await
            .expect("a status")
    }

    pub(crate) async fn offset(&self, session: &Session) -> u64 {
        self.status(session).await.received.contiguous().get()
    }

    pub(crate) async fn complete(&self, session: &Session) -> Result<Object, EngineError> {
        let complete = Complete {
            id: session.id,
            key: session.key.clone(),
            digests: Digests::default(),
            length: None,
        };
        match self.engine.complete(complete).await? {
            Completion::Done { object, .. } => Ok(object),
            Completion::Working { .. } => panic!("it took longer than the wait"),
        }
    }

    /// The object's bytes, as the store has them.
    pub(crate) async fn stored(&self, object: &Object) -> Vec<u8> {
        let mut stream = self.engine.read(object, None).await.expect("there");
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece.expect("read"));
        }
        bytes
    }

    /// Completes, and compares what is stored with what was sent.
    pub(crate) async fn expect_whole(&self, session: &Session, sent: &[u8]) -> Object {
        let object = self.complete(session).await.expect("completed");
        assert_eq!(object.size, Length(sent.len() as u64));
        assert_eq!(
            sha256_of(&object),
            hex::encode(Sha256::digest(sent)),
            "the digest is that of what was sent"
        );
        assert!(
            self.stored(&object).await == sent,
            "the stored bytes are the sent ones"
        );
        object
    }
}

pub(crate) fn sha256_of(object: &Object) -> String {
    let digest = object.digests.get(jumar::model::DigestAlgorithm::Sha256);
    digest.expect("always there").to_hex()
}

pub(crate) fn write(session: &Session, start: u64, len: u64) -> Write {
    Write {
        id: session.id,
        key: session.key.clone(),
        start: Offset(start),
        end: Some(Offset(start + len)),
        length: None,
        digests: Digests::default().into(),
        append: false,
        whole: None,
        completes: false,
    }
}

/// A body that comes in frames of 64 KiB.
pub(crate) fn body_of(bytes: &[u8]) -> Body {
    let frames: Vec<_> = bytes
        .chunks(64 * 1024)
        .map(|frame| Ok(Bytes::copy_from_slice(frame)))
        .collect();
    Box::pin(futures_util::stream::iter(frames))
}

/// A body that the test feeds; dropping the feeder ends it cleanly.
pub(crate) fn fed_body() -> (mpsc::UnboundedSender<Result<Bytes, BodyError>>, Body) {
    let (feed, frames) = mpsc::unbounded_channel();
    let body = futures_util::stream::unfold(frames, |mut frames| async move {
        frames.recv().await.map(|frame| (frame, frames))
    });
    (feed, Box::pin(body))
}

pub(crate) fn cut() -> Result<Bytes, BodyError> {
    Err(BodyError::Cut("the test cuts it".into()))
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn noise(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(usize::try_from(len).expect("small") + 8);
    while (bytes.len() as u64) < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(usize::try_from(len).expect("small"));
    bytes
}
