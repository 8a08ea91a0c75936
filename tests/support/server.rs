//! A whole server inside the test, and a client's view of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jumar::app::{App, Running};
use jumar::clock::Clock;
use jumar::config::Config;
use jumar::engine::Durability;
use jumar::model::Timestamp;
use jumar::store::faulty::Faults;
use jumar::store::hooked::Hooked;
use jumar::store::measured::Measured;
use serde_json::{Value, json};

use super::http::{Answer, Connection};
use super::rig::{Ground, MIB};
use super::s3::S3Server;

/// A server with a manual clock, over a store that fails as it is told.
pub(crate) struct Server {
    pub(crate) main: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) running: Running,
    pub(crate) faults: Faults,
    pub(crate) clock: Clock,
    pub(crate) ground: Ground,
}

/// An upload as its client knows it.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) key: String,
}

impl Upload {
    /// The path of the upload itself, or of what is below it.
    pub(crate) fn path(&self, below: &str) -> String {
        format!("/v1/uploads/{}{below}", self.id)
    }
}

/// On each kind of store.
pub(crate) async fn both() -> [Server; 2] {
    [Server::fs().await, Server::s3().await]
}

impl Server {
    pub(crate) async fn fs() -> Self {
        Self::start(Ground::fs(), |_| {}).await
    }

    pub(crate) async fn s3() -> Self {
        Self::start(Ground::s3().await, |_| {}).await
    }

    /// On a folder, with some of the configuration changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(Ground::fs(), change).await
    }

    pub(crate) async fn start(ground: Ground, change: impl FnOnce(&mut Config)) -> Self {
        Self::begin(ground, change, false).await
    }

    /// With what runs by the clock.
    pub(crate) async fn with_jobs(ground: Ground) -> Self {
        Self::begin(ground, |_| {}, true).await
    }

    /// On S3, where what is signed is checked by the machine's clock.
    pub(crate) async fn today(change: impl FnOnce(&mut Config)) -> Self {
        let now = Clock::system().now();
        Self::begin_at(now, Ground::s3().await, change, false).await
    }

    async fn begin(ground: Ground, change: impl FnOnce(&mut Config), jobs: bool) -> Self {
        Self::begin_at(Timestamp(1_700_000_000_000), ground, change, jobs).await
    }

    async fn begin_at(
        now: Timestamp,
        ground: Ground,
        change: impl FnOnce(&mut Config),
        jobs: bool,
    ) -> Self {
        let mut config = Config::default();
        let folder = ground.folder.path();
        config.server.listen.set_port(0);
        config.server.admin_listen.set_port(0);
        config.server.body_stall_secs = 20;
        config.server.drain_secs = 1;
        config.catalog.url = format!("sqlite:{}", folder.join("jumar.db").display());
        config.store.fs.path = folder.to_owned();
        config.spool.path = folder.join("spool");
        config.spool.min_free_bytes = 0;
        config.uploads.chunk_size_bytes = 5 * MIB;
        config.uploads.durability = Durability::Process;
        config.uploads.memory_budget_bytes = 64 * MIB;
        change(&mut config);
        let faults = Faults::default();
        let store = Hooked::new(ground.store().await, faults.clone());
        let clock = Clock::manual(now);
        let mut builder = App::builder(config)
            .store(Arc::new(Hooked::new(Arc::new(store), Measured)))
            .clock(clock.clone());
        if !jobs {
            builder = builder.without_jobs();
        }
        let app = builder.build().await.expect("put together");
        let running = app.serve().await.expect("listening");
        Self {
            main: running.address(),
            admin: running.admin_address(),
            running,
            faults,
            clock,
            ground,
        }
    }

    pub(crate) fn s3_server(&self) -> &S3Server {
        self.ground.s3.as_ref().expect("this server has S3")
    }

    /// A connection of one's own.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.main).await
    }

    /// A connection on which the head of a chunk was sent, and nothing of its body.
    pub(crate) async fn put_head(
        &self,
        upload: &Upload,
        range: &str,
        fields: &[(&str, &str)],
    ) -> Connection {
        let mut fields = fields.to_vec();
        fields.push(("Upload-Key", &upload.key));
        fields.push(("Content-Range", range));
        let mut connection = self.connect().await;
        let path = upload.path("/chunk");
        connection.head("PUT", &path, &fields).await;
        connection
    }

    /// One request on a connection of its own.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.connect().await.call(method, path, fields, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"").await
    }

    /// The answer to a creation.
    pub(crate) async fn post(&self, json: &Value) -> Answer {
        self.post_with(&[], json).await
    }

    pub(crate) async fn post_with(&self, fields: &[(&str, &str)], json: &Value) -> Answer {
        let mut fields = fields.to_vec();
        fields.push(("Content-Type", "application/json"));
        let json = json.to_string();
        self.call("POST", "/v1/uploads", &fields, json.as_bytes())
            .await
    }

    pub(crate) async fn create(&self, json: &Value) -> Upload {
        uploaded(self.post(json).await.expect(201))
    }

    pub(crate) async fn create_of(&self, length: u64) -> Upload {
        self.create(&json!({ "length": length })).await
    }

    /// A request with the upload's key.
    pub(crate) async fn ask(
        &self,
        upload: &Upload,
        method: &str,
        below: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut fields = fields.to_vec();
        fields.push(("Upload-Key", &upload.key));
        self.call(method, &upload.path(below), &fields, body).await
    }

    /// Sends a chunk that tells the whole's length.
    pub(crate) async fn put(&self, upload: &Upload, start: u64, bytes: &[u8], of: u64) -> Answer {
        self.put_with(upload, &range(start, bytes.len(), Some(of)), &[], bytes)
            .await
    }

    pub(crate) async fn put_with(
        &self,
        upload: &Upload,
        range: &str,
        fields: &[(&str, &str)],
        bytes: &[u8],
    ) -> Answer {
        let mut fields = fields.to_vec();
        fields.push(("Content-Range", range));
        self.ask(upload, "PUT", "/chunk", &fields, bytes).await
    }

    pub(crate) async fn status(&self, upload: &Upload) -> Value {
        self.ask(upload, "GET", "", &[], b"")
            .await
            .expect(200)
            .json()
    }

    pub(crate) async fn complete(&self, upload: &Upload) -> Answer {
        self.complete_with(upload, &json!({})).await
    }

    pub(crate) async fn complete_with(&self, upload: &Upload, json: &Value) -> Answer {
        let json = json.to_string();
        self.ask(upload, "POST", "/complete", &[], json.as_bytes())
            .await
    }

    pub(crate) async fn abort(&self, upload: &Upload) -> Answer {
        self.ask(upload, "DELETE", "", &[], b"").await
    }

    pub(crate) async fn content(&self, upload: &Upload, fields: &[(&str, &str)]) -> Answer {
        self.ask(upload, "GET", "/content", fields, b"").await
    }

    /// A completed upload with this content.
    pub(crate) async fn completed(&self, declared: Value, bytes: &[u8]) -> Upload {
        let upload = self.create(&declared).await;
        if !bytes.is_empty() {
            let put = self.put(&upload, 0, bytes, bytes.len() as u64).await;
            put.expect(204);
        }
        self.complete(&upload).await.expect(201);
        upload
    }

    /// Everything that uploads have left in the store and in the spool.
    pub(crate) fn stored_files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for folder in ["staging", "objects", "spool"] {
            files_below(&self.ground.folder.path().join(folder), &mut names);
        }
        if let Some(s3) = &self.ground.s3 {
            names.extend(s3.backend().keys());
            let open = s3.backend().open_uploads();
            names.extend(open.iter().map(|upload| format!("{upload:?}")));
        }
        names
    }

    /// A round of pruning after the one that only sees that the clock has jumped.
    pub(crate) async fn prune(&self) {
        for _ in 0..2 {
            let pruned = self.running.engine().prune(false).await;
            pruned.expect("pruned");
        }
    }

    /// Lets every open upload expire.
    pub(crate) fn let_expire(&self) {
        self.clock.advance(Duration::from_hours(24 * 7));
    }

    /// Waits until the upload reaches so far, durably.
    pub(crate) async fn wait_for_offset(&self, upload: &Upload, offset: u64) {
        self.wait_for_bytes(upload, 0, offset).await;
    }

    /// Waits until so many bytes from `start` on are there, durably.
    pub(crate) async fn wait_for_bytes(&self, upload: &Upload, start: u64, len: u64) {
        for _ in 0..600 {
            let status = self.status(upload).await;
            let ranges = status["received"].as_array().expect("a list");
            let there = |range: &Value| {
                range[0].as_u64() <= Some(start) && range[1].as_u64() == Some(start + len)
            };
            if len == 0 || ranges.iter().any(there) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "{len} bytes never came at {start}: {}",
            self.status(upload).await
        );
    }
}

/// The upload that a creation answered with.
pub(crate) fn uploaded(created: &Answer) -> Upload {
    let json = created.json();
    let text = |name: &str| json[name].as_str().expect("a text").to_owned();
    Upload {
        id: text("upload_id"),
        key: text("upload_key"),
    }
}

/// A `Content-Range`.
pub(crate) fn range(start: u64, len: usize, of: Option<u64>) -> String {
    let last = start + len as u64 - 1;
    let of = of.map_or_else(|| "*".to_owned(), |of| of.to_string());
    format!("bytes {start}-{last}/{of}")
}

/// The names of all files below a folder.
fn files_below(folder: &std::path::Path, names: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files_below(&path, names);
        } else {
            names.push(path.display().to_string());
        }
    }
}
