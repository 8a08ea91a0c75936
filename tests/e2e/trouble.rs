//! What is around the server fails: its catalog, its disk, its bucket. It says so, loses nothing, and goes on when it is over.

use std::fs;
use std::time::Duration;

use crate::client;
use crate::harness::{Server, Settings};
use crate::random::Random;
use crate::session::{How, Session};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_catalog_is_waited_for() {
    let server = Server::start(Settings::folder()).await;
    let session = Session::create_until(server.main, Random::new().bytes(2 * MIB)).await;
    let answer = session
        .put(0..MIB, Duration::ZERO)
        .await
        .expect("an answer");
    answer.expect(204);

    let other = rusqlite::Connection::open(server.folder().join("data/jumar.db"))
        .expect("the catalog is there");
    other
        .execute_batch("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE")
        .expect("can be locked");
    let refused = session
        .put(MIB..2 * MIB, Duration::ZERO)
        .await
        .expect("an answer");
    refused.expect_problem(503, "store_unavailable");
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    other.execute_batch("ROLLBACK").expect("can be unlocked");

    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
}

/// A folder that cannot be written, also not by root: a file stands in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_gone_is_waited_for() {
    let server = Server::start(Settings::folder()).await;
    let before = Session::create_until(server.main, Random::new().bytes(100_000)).await;
    before.send_all(How::WHOLE).await;

    let staging = server.folder().join("data/staging");
    let away = server.folder().join("data/away");
    fs::rename(&staging, &away).expect("the staging folder is there");
    fs::write(&staging, b"no folder").expect("can be written");
    let session = Session::create_until(server.main, Random::new().bytes(100_000)).await;
    let refused = session
        .put(0..100_000, Duration::ZERO)
        .await
        .expect("an answer");
    refused.expect_problem(503, "store_unavailable");
    fs::remove_file(&staging).expect("was written");
    fs::rename(&away, &staging).expect("was renamed");

    session.send_all(How::WHOLE).await;
    for session in [before, session] {
        session.complete().await;
        session.verify().await;
    }
}

/// Bodies are refused before the disk is full, and go on when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_nearly_full_takes_no_bodies() {
    let mut server = Server::start(Settings::folder()).await;
    let session = Session::create_until(server.main, Random::new().bytes(2 * MIB)).await;
    let answer = session
        .put(0..MIB, Duration::ZERO)
        .await
        .expect("an answer");
    answer.expect(204);

    server.kill().await;
    server.configure(|settings| settings.with("spool", "min_free_bytes", "4611686018427387904"));
    server.launch().await;
    let refused = session
        .put(MIB..2 * MIB, Duration::ZERO)
        .await
        .expect("an answer");
    refused.expect_problem(503, "store_unavailable");
    session.status().await;

    server.kill().await;
    server.configure(|settings| settings.with("spool", "min_free_bytes", "16777216"));
    server.launch().await;
    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
}

/// An S3 that is away makes the server degraded, not unready, and loses no upload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_that_is_away_makes_it_degraded() {
    let settings = Settings::bucket("http://127.0.0.1:1", "here", "uploads", "someone", "secret");
    let server = Server::start(settings).await;
    let ready = client::try_call(server.main, "GET", "/readyz", &[], b"")
        .await
        .expect("an answer");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("degraded"), "{}", ready.text());

    let session = Session::create_until(server.main, Random::new().bytes(200_000)).await;
    let answer = session
        .put(0..100_000, Duration::ZERO)
        .await
        .expect("an answer");
    // The tail is local.
    answer.expect(204);
    let last = session
        .put(100_000..200_000, Duration::ZERO)
        .await
        .expect("an answer");
    assert!(matches!(last.status, 204 | 503), "{}", last.text());
    let complete = session.call("POST", "/complete").await.expect("an answer");
    assert!(
        matches!(complete.status, 202 | 409 | 503),
        "{complete:?} {}",
        complete.text()
    );
    let (status, _) = session.status().await;
    assert_ne!(status["state"], "failed", "{status}");
    assert_ne!(status["state"], "completed", "{status}");
}
