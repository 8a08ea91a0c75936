//! The commands beside `serve`, and a configuration that is wrong.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use tokio::time::sleep;

use crate::client;
use crate::harness::{Server, Settings, quoted};
use crate::random::Random;
use crate::session::{How, Session};

/// A schedule that does not come up in a test.
const NEVER: &str = r#""0 0 0 1 1 *""#;

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// What is wrong is said in one line, with exit code 2.
fn refused(output: &Output) -> String {
    let text = text(output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    text
}

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

#[tokio::test]
async fn an_unknown_key_names_the_nearest() {
    let server = Server::prepare(Settings::folder().with("server", "drain_sec", "3"));
    let line = refused(&server.run(&["serve"]).await);
    assert!(
        line.contains("drain_sec") && line.contains("drain_secs"),
        "{line}"
    );
}

#[tokio::test]
async fn a_wrong_value_is_refused() {
    let server = Server::prepare(Settings::folder().with("uploads", "durability", r#""maybe""#));
    let line = refused(&server.run(&["serve"]).await);
    assert!(line.contains("durability"), "{line}");
}

#[tokio::test]
async fn a_missing_file_is_refused() {
    let server = Server::prepare(Settings::folder());
    fs::remove_file(server.config()).expect("it was there");
    let line = refused(&server.run(&["serve"]).await);
    assert!(line.contains("config.toml"), "{line}");
}

#[tokio::test]
async fn a_secret_is_never_printed() {
    let secret = "correct-horse-battery-staple";
    let settings = Settings::bucket("http://127.0.0.1:1", "here", "uploads", "someone", secret)
        .with("store.s3", "checksum", r#""crc99""#);
    let server = Server::prepare(settings);
    let line = refused(&server.run(&["serve"]).await);
    assert!(!line.contains(secret), "{line}");
}

/// Nobody asked for the open network, and nothing guards it.
#[tokio::test]
async fn listening_beyond_loopback_needs_to_be_meant() {
    let server = Server::prepare(Settings::folder());
    let config = fs::read_to_string(server.config()).expect("was written");
    // An address for documentation: it is on no machine, so nothing listens even if this is not refused.
    let open = config.replace(
        &format!("listen = {}", quoted(&server.main.to_string())),
        r#"listen = "192.0.2.1:8080""#,
    );
    assert_ne!(config, open);
    fs::write(server.config(), open).expect("can be written");
    let line = refused(&server.run(&["serve"]).await);
    assert!(line.contains("--insecure"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prune_dry_run_changes_nothing_and_prune_does() {
    let settings = Settings::folder()
        .with("uploads", "session_ttl_secs", "1")
        .with("prune", "schedule", NEVER)
        .with("prune", "orphan_grace_secs", "1");
    let server = Server::start(settings).await;
    let session = Session::create_until(server.main, Random::new().bytes(300_000)).await;
    let answer = session
        .put(0..200_000, Duration::ZERO)
        .await
        .expect("an answer");
    answer.expect(204);
    let staged = files(&server.folder().join("data/staging"));
    assert!(staged > 0, "something is staged");
    sleep(Duration::from_secs(2)).await;

    let dry = server.run(&["prune", "--dry-run"]).await;
    assert!(dry.status.success(), "{}", text(&dry));
    assert!(text(&dry).contains("expired"), "it tells: {}", text(&dry));
    assert_eq!(files(&server.folder().join("data/staging")), staged);

    // Expired in one round, swept in a later one, after the grace.
    for _ in 0..3 {
        let done = server.run(&["prune"]).await;
        assert!(done.status.success(), "{}", text(&done));
        sleep(Duration::from_millis(1_200)).await;
    }
    assert_eq!(files(&server.folder().join("data/staging")), 0);
    let gone = session.call("GET", "").await.expect("an answer");
    gone.expect_problem(410, "session_expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_makes_the_catalog() {
    let settings = Settings::folder().with("catalog", "auto_migrate", "false");
    let mut server = Server::prepare(settings);
    let refused = server.run(&["serve"]).await;
    assert!(!refused.status.success(), "{}", text(&refused));
    for _ in 0..2 {
        let migrated = server.run(&["migrate"]).await;
        assert!(migrated.status.success(), "repeatable: {}", text(&migrated));
    }
    server.launch().await;
    let session = Session::create_until(server.main, Random::new().bytes(1_000)).await;
    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_catalog_is_refused() {
    let server = Server::prepare(Settings::folder());
    let migrated = server.run(&["migrate"]).await;
    assert!(migrated.status.success(), "{}", text(&migrated));
    let catalog = rusqlite::Connection::open(server.folder().join("data/jumar.db"))
        .expect("migrate made the catalog");
    catalog
        .execute(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
             VALUES (9999, 'of_the_future', '2100-01-01T00:00:00Z', '1')",
            [],
        )
        .expect("the history of the schema");
    drop(catalog);
    let refused = server.run(&["serve"]).await;
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(text(&refused).contains("newer"), "{}", text(&refused));
}

#[tokio::test]
async fn check_finds_a_folder_fit() {
    let server = Server::prepare(Settings::folder());
    let output = server.run(&["check"]).await;
    assert!(output.status.success(), "{}", text(&output));
}

#[tokio::test]
async fn check_finds_a_folder_that_is_none() {
    let server = Server::prepare(Settings::folder().with("store.fs", "path", r#""config.toml""#));
    let output = server.run(&["check"]).await;
    assert!(!output.status.success(), "{}", text(&output));
}

#[tokio::test]
async fn check_finds_an_s3_fit() {
    let server = Server::prepare(Settings::s3());
    let output = server.run(&["check"]).await;
    assert!(output.status.success(), "{}", text(&output));
}

#[tokio::test]
async fn check_lets_browsers_in_where_there_is_a_bucket() {
    let bucket = Server::prepare(Settings::s3());
    let folder = Server::prepare(Settings::folder());
    for (server, applied) in [
        (bucket, "ok       store: apply CORS: "),
        (folder, "without  store: apply CORS: "),
    ] {
        let output = server.run(&["check", "--apply-cors"]).await;
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains(applied), "{}", text(&output));
        let allowed = text(&output).contains("ok       store: the bucket's CORS\n");
        assert_eq!(allowed, applied.starts_with("ok"), "{}", text(&output));
    }
}

#[tokio::test]
async fn check_finds_wrong_credentials() {
    let settings = Settings::s3().with("store.s3", "secret_access_key", r#""not-the-secret""#);
    let server = Server::prepare(settings);
    let output = server.run(&["check"]).await;
    assert!(!output.status.success(), "{}", text(&output));
    assert!(
        !text(&output).contains("not-the-secret"),
        "{}",
        text(&output)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_on_the_admin_address_alone() {
    let server = Server::start(Settings::folder()).await;
    let session = Session::create_until(server.main, Random::new().bytes(12_345)).await;
    session.send_all(How::WHOLE).await;
    session.complete().await;
    let metrics = client::try_call(server.admin, "GET", "/metrics", &[], b"")
        .await
        .expect("an answer");
    assert_eq!(metrics.status, 200);
    let received = metrics
        .text()
        .lines()
        .filter(|line| line.starts_with("jumar_received_bytes_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum::<u64>();
    assert_eq!(received, 12_345, "{}", metrics.text());
    let outside = client::try_call(server.main, "GET", "/metrics", &[], b"")
        .await
        .expect("an answer");
    assert_eq!(outside.status, 404);
}
