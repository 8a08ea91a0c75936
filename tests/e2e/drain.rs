//! SIGTERM: draining, cutting, and leaving with nothing lost.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::client;
use crate::harness::{Server, Settings};
use crate::random::Random;
use crate::session::{How, Session};

const MIB: u64 = 1 << 20;

/// A request on its way is let finish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_requests_finish() {
    let mut server = Server::start(Settings::folder().with("server", "drain_secs", "30")).await;
    let session = Session::create_until(server.main, Random::new().bytes(2 * MIB)).await;
    let sending = tokio::spawn({
        let session = session.clone();
        // 32 stretches with 50 ms after each.
        async move { session.put(0..2 * MIB, Duration::from_millis(50)).await }
    });
    sleep(Duration::from_millis(400)).await;
    server.terminate().await;
    let answer = sending.await.expect("no panic").expect("an answer");
    assert_eq!((answer.status, answer.offset()), (204, 2 * MIB));
    assert_eq!(server.exit(Duration::from_secs(40)).await, Some(0));
    server.launch().await;
    session.status().await;
    session.complete().await;
    session.verify().await;
}

/// One that does not finish in time is cut, and what came of it is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_cuts_and_keeps() {
    let mut server = Server::start(Settings::folder().with("server", "drain_secs", "1")).await;
    let session = Session::create_until(server.main, Random::new().bytes(4 * MIB)).await;
    let mut connection = session.open(&(0..session.length())).await.expect("a head");
    connection
        .send(session.slice(&(0..MIB)))
        .await
        .expect("the server reads");
    sleep(Duration::from_millis(300)).await;
    server.terminate().await;
    assert_eq!(server.exit(Duration::from_secs(30)).await, Some(0));
    server.launch().await;
    let (status, _) = session.status().await;
    assert_eq!(status["offset"], MIB, "keep_what_came: {status}");
    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
}

/// A second one does not wait for anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_sigterm_leaves_now() {
    let mut server = Server::start(Settings::folder().with("server", "drain_secs", "600")).await;
    let session = Session::create_until(server.main, Random::new().bytes(4 * MIB)).await;
    let answer = session
        .put(0..MIB, Duration::ZERO)
        .await
        .expect("an answer");
    answer.expect(204);
    let mut hanging = session
        .open(&(MIB..session.length()))
        .await
        .expect("a head");
    hanging
        .send(session.slice(&(MIB..MIB + 1_000)))
        .await
        .expect("the server reads");
    server.terminate().await;
    sleep(Duration::from_millis(500)).await;
    server.terminate().await;
    server.exit(Duration::from_secs(20)).await;
    server.launch().await;
    // Holds the status against what was acknowledged.
    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
}

/// A load balancer gets the time to look elsewhere: `readyz` says 503 while connections are still taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readyz_says_so_before_connections_are_refused() {
    let settings = Settings::folder()
        .with("server", "drain_delay_secs", "5")
        .with("server", "drain_secs", "1");
    let mut server = Server::start(settings).await;
    server.terminate().await;
    let deadline = Instant::now() + Duration::from_secs(4);
    loop {
        let answer = client::try_call(server.main, "GET", "/readyz", &[], b"")
            .await
            .expect("connections are still taken");
        if answer.status == 503 {
            break;
        }
        assert!(Instant::now() < deadline, "readyz still says {answer:?}");
        sleep(Duration::from_millis(20)).await;
    }
    let session = Session::create(server.main, b"still served".to_vec()).await;
    assert!(session.is_ok(), "{session:?}");
    assert_eq!(server.exit(Duration::from_secs(30)).await, Some(0));
}
