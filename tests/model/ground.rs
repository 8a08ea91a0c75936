//! What outlives a process, and the process: a server without sockets in a runtime of its own, on simulated time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use jumar::app::App;
use jumar::catalog::Catalog as _;
use jumar::catalog::sqlite::{SqliteCatalog, Synchronous, migrate};
use jumar::clock::Clock;
use jumar::config::Config;
use jumar::engine::{Durability, Engine, Pace};
use jumar::model::{StoreKey, Timestamp, UploadId};
use jumar::store::fs::FsStore;
use jumar::store::hooked::Hooked;
use jumar::store::{About, MadeOf, Parts as _, Payload, Store};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::bucket::Bucket;
use crate::case::{Kind, Setup};
use crate::catalog::Weathered;
use crate::weather::{Schedule, Weather};

pub(crate) const SESSION_TTL: Duration = Duration::from_hours(1);
pub(crate) const MAX_AGE: Duration = Duration::from_hours(3);
pub(crate) const RETENTION: Duration = Duration::from_hours(24);
pub(crate) const ORPHAN_GRACE: Duration = Duration::from_mins(10);
/// The memory that bytes on their way may take.
const BUDGET_BYTES: u64 = 64 << 10;

/// What there is when no process runs: a folder with the catalog, the spool and perhaps the objects; or a bucket; and the time.
pub(crate) struct Ground {
    folder: TempDir,
    pub(crate) bucket: Option<Bucket>,
    pub(crate) clock: Clock,
    pub(crate) setup: Setup,
    strangers: Strangers,
}

/// What others have in the same store and the same folders.
struct Strangers {
    staged: UploadId,
    /// Keys of objects and of multipart uploads; one looks like an upload of ours.
    keys: [String; 2],
}

const STRANGERS_BYTES: &[u8] = b"somebody else's";

/// The file of a catalog that is there and empty. Made once, because migrating costs more than a sequence.
fn empty_catalog() -> &'static [u8] {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    EMPTY.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jumar.db");
        migrate(&path).expect("migrated");
        drop(
            rusqlite::Connection::open(&path)
                .and_then(|db| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))),
        );
        std::fs::read(&path).expect("there")
    })
}

/// In memory where the machine has such a place.
fn folder_in_memory() -> TempDir {
    let shm = Path::new("/dev/shm");
    let place = if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    };
    let named = tempfile::Builder::new()
        .prefix("jumar-model-")
        .tempdir_in(place);
    named.or_else(|_| tempfile::tempdir()).expect("a folder")
}

impl Ground {
    pub(crate) fn new(setup: Setup) -> Self {
        let folder = folder_in_memory();
        let clock = Clock::manual(Timestamp(1_700_000_000_000));
        std::fs::write(folder.path().join("jumar.db"), empty_catalog()).expect("written");
        std::fs::create_dir(folder.path().join("spool")).expect("a folder");
        // Stands in for the reserve, which would cost more than a sequence.
        std::fs::write(folder.path().join("spool/reserve"), []).expect("written");
        let bucket = (setup.store == Kind::Bucket).then(|| Bucket::new(setup.cell, clock.clone()));
        let strangers = Strangers {
            staged: UploadId::generate(),
            keys: [
                "other/photo.jpg".to_owned(),
                UploadId::generate().to_string(),
            ],
        };
        let ground = Self {
            folder,
            bucket,
            clock,
            setup,
            strangers,
        };
        ground.let_strangers_in();
        ground
    }

    fn let_strangers_in(&self) {
        let id = self.strangers.staged;
        std::fs::write(self.path(&format!("spool/{id}.1")), STRANGERS_BYTES).expect("written");
        match &self.bucket {
            None => {
                FsStore::open(self.folder.path(), false).expect("a folder");
                std::fs::write(self.path(&format!("staging/{id}")), STRANGERS_BYTES)
                    .expect("written");
                for key in &self.strangers.keys {
                    let path = self.path(&format!("objects/{key}"));
                    std::fs::create_dir_all(path.parent().expect("below objects"))
                        .expect("a folder");
                    std::fs::write(path, STRANGERS_BYTES).expect("written");
                }
            }
            Some(bucket) => {
                let about = About {
                    upload: id,
                    content_type: None,
                };
                let payload = Payload::Memory(Arc::new([Bytes::from_static(STRANGERS_BYTES)]));
                futures_util::FutureExt::now_or_never(async {
                    for key in &self.strangers.keys {
                        let key: StoreKey = key.parse().expect("a key");
                        bucket
                            .put(&key, payload.clone(), &about)
                            .await
                            .expect("put");
                        bucket
                            .begin(&key, &about, MadeOf::Parts)
                            .await
                            .expect("begun");
                    }
                })
                .expect("nothing waits in memory");
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> Arc<dyn Store> {
        match &self.bucket {
            Some(bucket) => Arc::new(bucket.clone()),
            None => Arc::new(FsStore::open(self.folder.path(), false).expect("a folder")),
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.spool.path = self.path("spool");
        config.spool.min_free_bytes = 0;
        config.spool.max_bytes = if self.setup.roomy { 1 << 30 } else { 48 << 10 };
        config.server.body_stall_secs = 20;
        // There are no tokens, and looking for them costs more than all else.
        config.auth.refresh_ms = 1_000_000_000;
        config.prune.orphan_grace_secs = ORPHAN_GRACE.as_secs();
        let uploads = &mut config.uploads;
        uploads.chunk_size_bytes = self.setup.cell;
        uploads.max_size_bytes = 1 << 20;
        uploads.durability = Durability::Process;
        uploads.memory_budget_bytes = BUDGET_BYTES;
        uploads.session_ttl_secs = SESSION_TTL.as_secs();
        uploads.session_max_age_secs = MAX_AGE.as_secs();
        uploads.retention_secs = RETENTION.as_secs();
        uploads.commit_interval_secs = 2;
        uploads.max_failures = 1_000_000;
        config
    }

    /// All that is in the outbox, by its number: what happened, and to which upload.
    pub(crate) fn events(&self) -> BTreeMap<i64, (String, [u8; 16])> {
        let db = rusqlite::Connection::open(self.path("jumar.db")).expect("opened");
        let mut rows = db
            .prepare("SELECT seq, kind, upload_id FROM events")
            .expect("SQL");
        let all = rows.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))));
        all.expect("read")
            .map(|event| event.expect("an event"))
            .collect()
    }

    /// What is in the store, the spool and among what is staged beside what strangers have; or what of theirs is not there.
    pub(crate) fn leftovers(&self) -> Result<Vec<String>, String> {
        let mut found = self.files_in("spool");
        found.retain(|name| name != "spool/reserve");
        let id = self.strangers.staged;
        let mut theirs = vec![format!("spool/{id}.1")];
        if let Some(bucket) = &self.bucket {
            for (key, bytes) in bucket.objects() {
                if self.strangers.keys.contains(&key) && bytes != STRANGERS_BYTES {
                    return Err(format!("{key} of a stranger was changed"));
                }
                found.push(format!("objects/{key}"));
            }
            let open = bucket.open_uploads().into_iter();
            found.extend(open.map(|name| format!("multipart {name}")));
            let multipart = self.strangers.keys.iter().enumerate();
            theirs.extend(multipart.map(|(n, key)| format!("multipart {key} multipart-{}", n + 1)));
        } else {
            found.extend(self.files_in("staging"));
            found.extend(self.files_in("objects"));
            theirs.push(format!("staging/{id}"));
        }
        theirs.extend(
            self.strangers
                .keys
                .iter()
                .map(|key| format!("objects/{key}")),
        );
        for name in theirs {
            match found.iter().position(|other| *other == name) {
                Some(place) => drop(found.swap_remove(place)),
                None => return Err(format!("{name} of a stranger is gone")),
            }
        }
        found.sort();
        Ok(found)
    }

    fn files_in(&self, folder: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(self.path(&folder)) else {
                continue;
            };
            for entry in entries {
                let entry = entry.expect("readable");
                let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
                if entry.path().is_dir() {
                    folders.push(name);
                } else {
                    names.push(name);
                }
            }
        }
        names
    }

    /// The bytes of an object, as the store has them.
    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        match &self.bucket {
            Some(bucket) => bucket.objects().get(key).map(|bytes| bytes.to_vec()),
            None => std::fs::read(self.path(&format!("objects/{key}"))).ok(),
        }
    }
}

/// A server that runs.
pub(crate) struct Process {
    runtime: Runtime,
    pub(crate) router: Router,
    pub(crate) engine: Engine,
    pub(crate) weather: Weather,
    catalog: Arc<SqliteCatalog>,
}

impl Process {
    pub(crate) fn start(ground: &Ground, schedule: Schedule, seed: u64) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .max_blocking_threads(16)
            .build()
            .expect("a runtime");
        let weather = Weather::new(schedule, seed);
        let db = SqliteCatalog::open(&ground.path("jumar.db"), Synchronous::Normal);
        let catalog = Arc::new(db.expect("opened"));
        let weathered = Weathered {
            inner: Arc::clone(&catalog),
            weather: weather.clone(),
        };
        let pace = weather.clone();
        let building = App::builder(ground.config())
            .catalog(Arc::new(weathered))
            .store(Arc::new(Hooked::new(ground.store(), weather.clone())))
            .clock(ground.clock.clone())
            .pace(Pace::of(move || pace.delay()))
            .without_jobs()
            .build();
        let (router, engine) = runtime.block_on(async {
            let app = building.await.expect("put together");
            let router = app.routes().await.expect("routes");
            let engine = app.engine().clone();
            // As the jobs do first of all.
            engine.recover(true).await.expect("recovered");
            (router, engine)
        });
        Self {
            runtime,
            router,
            engine,
            weather,
            catalog,
        }
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The process ends in the middle of everything. What it had begun to do has happened when this returns, or never does.
    pub(crate) fn crash(self) {
        self.weather.blow();
        let Self {
            runtime,
            router,
            engine,
            catalog,
            ..
        } = self;
        drop((router, engine));
        // Waits for what is on its way in threads; the tasks are dropped where they stand.
        runtime.shutdown_timeout(Duration::from_secs(30));
        // The catalog's thread takes things in order: with this one all before it are done.
        let last = catalog.settle(UploadId::generate(), Vec::new());
        pollster(last).expect("the catalog works");
    }

    /// The process ends in good order.
    pub(crate) fn stop(self) {
        self.block_on(async {
            tokio::select! {
                () = self.engine.stop() => {}
                () = self.weather.has_blown() => {}
            }
        });
        self.crash();
    }
}

/// Waits for something that another thread does.
fn pollster<T>(work: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(work)
}
