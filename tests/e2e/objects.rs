//! A file in one request: whole, or nothing of it, whatever happens to the client or to the server.

use std::fs;
use std::time::{Duration, Instant};

use jumar::app::open_store;
use jumar::config::Config;
use jumar::model::StoreKey;
use jumar::store::Shape;
use tokio::time::sleep;

use crate::client::{self, Connection};
use crate::harness::{Server, Settings};
use crate::random::Random;
use crate::session::sha256;

const MIB: u64 = 1 << 20;
/// How long cleaning up may take.
const CLEAN_WITHIN: Duration = Duration::from_mins(1);
const PATH: &str = "/v1/objects?filename=e2e.bin";

/// Begins a request, and sends all of these bytes in the chunked coding, and not its end.
async fn begin(server: &Server, bytes: &[u8]) -> Connection {
    let mut connection = Connection::open(server.main).await;
    let coding = [("Transfer-Encoding", "chunked")];
    connection.head("POST", PATH, &coding).await;
    for piece in bytes.chunks(100_000) {
        connection.send_coded(piece).await.expect("taken");
    }
    connection
}

fn catalog(server: &Server) -> rusqlite::Connection {
    let path = server.folder().join("data/jumar.db");
    rusqlite::Connection::open(path).expect("the catalog")
}

/// The state and the key of every upload.
fn uploads(server: &Server) -> Vec<(String, String)> {
    let catalog = catalog(server);
    let mut rows = catalog
        .prepare("SELECT state, store_key FROM upload_sessions ORDER BY created_at")
        .expect("the sessions");
    let read = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    read.expect("the sessions")
        .collect::<Result<_, _>>()
        .expect("rows")
}

fn count(server: &Server, table: &str) -> u64 {
    let counted = catalog(server).query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
        row.get::<_, i64>(0)
    });
    u64::try_from(counted.expect("a table")).expect("a count")
}

/// How many files a folder has; the spool's reserve is nobody's.
fn files(server: &Server, folder: &str) -> usize {
    let Ok(entries) = fs::read_dir(server.folder().join(folder)) else {
        return 0;
    };
    entries
        .filter(|entry| entry.as_ref().expect("readable").file_name() != "reserve")
        .count()
}

/// Whether nothing is left in the store of uploads that are not completed, nor in the spool.
async fn is_gone(server: &Server) -> bool {
    let uploads = uploads(server);
    let (done, rest): (Vec<_>, Vec<_>) = uploads
        .into_iter()
        .partition(|(state, _)| state == "completed");
    let ended = |state: &str| matches!(state, "aborted" | "expired" | "failed");
    if !rest.iter().all(|(state, _)| ended(state)) || count(server, "objects") != done.len() as u64
    {
        return false;
    }
    let config = Config::read(Some(&server.config()), []).expect("the configuration");
    if config.store.kind == jumar::config::StoreKind::Fs {
        return files(server, "data/staging") == 0 && files(server, "data/objects") == done.len();
    }
    let store = open_store(&config).await.expect("the store");
    let Shape::Parts(parts) = store.shape() else {
        panic!("a bucket has parts");
    };
    for (_, key) in rest {
        let key: StoreKey = key.parse().expect("a key");
        let begun = parts.multipart_of(&key).await.expect("listed");
        if !begun.is_empty() || store.head(&key).await.expect("looked at").is_some() {
            return false;
        }
    }
    true
}

async fn soon_gone(server: &Server) {
    let deadline = Instant::now() + CLEAN_WITHIN;
    while !is_gone(server).await {
        assert!(
            Instant::now() < deadline,
            "something is left: {:?}",
            uploads(server)
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until something of the body is in the store.
async fn wait_for_bytes(server: &Server) {
    let deadline = Instant::now() + CLEAN_WITHIN;
    let open =
        "upload_ranges r JOIN upload_sessions s ON s.id = r.upload_id WHERE s.state = 'uploading'";
    while count(server, open) == 0 {
        assert!(
            Instant::now() < deadline,
            "nothing came: {:?}",
            uploads(server)
        );
        sleep(Duration::from_millis(20)).await;
    }
}

async fn one_request(settings: Settings) {
    let server = Server::start(settings).await;
    let content = Random::new().bytes(20 * MIB + 7);
    let known = client::try_call(server.main, "POST", PATH, &[], &content).await;
    let mut unknown = begin(&server, &content).await;
    assert_eq!(files(&server, "data/spool"), 0, "nothing is put by");
    unknown.send_coded(b"").await.expect("taken");
    for answer in [known.expect("an answer"), unknown.answer().await] {
        let told = answer.expect(201).json();
        let object = &told["object"];
        assert_eq!(object["digest"]["sha-256"], sha256(&content), "exact_bytes");
        assert_eq!(object["verified"], "stream");
        let key = told["upload_key"].as_str().expect("a key");
        let url = object["url"].as_str().expect("a path");
        let read = client::try_call(server.main, "GET", url, &[("Upload-Key", key)], b"").await;
        assert!(read.expect("the content").body == content, "exact_bytes");
    }
    assert!(is_gone(&server).await, "beside the two objects");
    assert_eq!(files(&server, "data/spool"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_bytes_in_one_request_folder() {
    one_request(Settings::folder()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_bytes_in_one_request_s3() {
    one_request(Settings::s3()).await;
}

async fn killed_at_half(settings: Settings) {
    // It expires when nothing was committed for twice the interval.
    let settings = settings.with("uploads", "commit_interval_secs", "1").with(
        "prune",
        "orphan_grace_secs",
        "1",
    );
    let mut server = Server::start(settings).await;
    let content = Random::new().bytes(20 * MIB);
    let half = &content[..content.len() / 2];

    let client = begin(&server, half).await;
    wait_for_bytes(&server).await;
    drop(client);
    soon_gone(&server).await;

    let client = begin(&server, half).await;
    wait_for_bytes(&server).await;
    server.kill().await;
    drop(client);
    assert!(!is_gone(&server).await, "nobody could clean up");
    server.launch().await;
    let deadline = Instant::now() + CLEAN_WITHIN;
    while !is_gone(&server).await || count(&server, "intents") > 0 {
        assert!(
            Instant::now() < deadline,
            "something is left: {:?}",
            uploads(&server)
        );
        let pruned = server.run(&["prune"]).await;
        assert!(pruned.status.success(), "{pruned:?}");
        sleep(Duration::from_millis(300)).await;
    }
    let states: Vec<_> = uploads(&server)
        .into_iter()
        .map(|(state, _)| state)
        .collect();
    assert_eq!(states, ["aborted", "expired"]);
    assert_eq!(files(&server, "data/spool"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_of_what_was_killed_at_half_folder() {
    killed_at_half(Settings::folder()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_of_what_was_killed_at_half_s3() {
    killed_at_half(Settings::s3()).await;
}

/// One that is slow is alive: no pruner outside takes it for an orphan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_one_is_no_orphan() {
    let settings = Settings::s3()
        .with("uploads", "commit_interval_secs", "1")
        .with("prune", "orphan_grace_secs", "1");
    let server = Server::start(settings).await;
    let content = Random::new().bytes(60);
    let mut slow = begin(&server, &content[..1]).await;
    for byte in &content[1..] {
        slow.send_coded(&[*byte]).await.expect("taken");
        let pruned = server.run(&["prune"]).await;
        assert!(pruned.status.success(), "{pruned:?}");
        sleep(Duration::from_millis(80)).await;
    }
    slow.send_coded(b"").await.expect("taken");
    let told = slow.answer().await.expect(201).json();
    assert_eq!(told["object"]["digest"]["sha-256"], sha256(&content));
}
