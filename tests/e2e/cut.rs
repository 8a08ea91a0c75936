//! `keep_what_came` and `one_writer`: connections that break, and connections that only seem to be there.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::harness::{Server, Settings};
use crate::random::Random;
use crate::session::{How, Session};

const MIB: u64 = 1 << 20;
/// The contract is a second; a busy machine gets some more.
const DISPLACED_WITHIN: Duration = Duration::from_secs(4);

/// Waits until the status says that everything up to `offset` is there.
async fn reaches(session: &Session, offset: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (status, _) = session.status().await;
        let reached = status["offset"].as_u64().expect("a number");
        assert!(reached <= offset, "{reached} of {offset} sent");
        if reached == offset {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "keep_what_came: {reached} of {offset} that were sent"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

async fn keep_what_came(settings: Settings) {
    let mut random = Random::new();
    let server = Server::start(settings).await;
    let session = Session::create_until(server.main, random.bytes(21 * MIB + 7)).await;
    let mut offset = 0;
    for _ in 0..4 {
        let mut connection = session
            .open(&(offset..session.length()))
            .await
            .expect("a head");
        let end = offset + random.within(1..5 * MIB);
        connection
            .send(session.slice(&(offset..end)))
            .await
            .expect("the server reads");
        drop(connection);
        reaches(&session, end).await;
        offset = end;
    }
    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_what_came_folder() {
    keep_what_came(Settings::folder()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_what_came_s3() {
    keep_what_came(Settings::s3()).await;
}

/// A client comes back on another network: its old connection is still open for the server. The new one goes on at once,
/// and what the old one sends late changes nothing.
async fn half_open(settings: Settings, ask_first: bool) {
    let mut random = Random::new();
    let server = Server::start(settings).await;
    let session = Session::create_until(server.main, random.bytes(12 * MIB)).await;
    let sent = 5 * MIB + 321;
    let whole = 0..session.length();
    let mut old = session.open(&whole).await.expect("a head");
    old.send(session.slice(&(0..sent)))
        .await
        .expect("the server reads");
    reaches(&session, sent).await;

    let came_back = Instant::now();
    if ask_first {
        let answer = session.displace().await.expect("an answer");
        assert_eq!((answer.status, answer.offset()), (204, sent));
    } else {
        let next = sent..sent + 1_000;
        let answer = session.put(next, Duration::ZERO).await.expect("an answer");
        answer.expect(204);
    }
    let waited = came_back.elapsed();
    assert!(waited < DISPLACED_WITHIN, "one_writer: waited {waited:?}");

    // Late bytes, and wrong ones. The server may have closed the connection already.
    let late = random.bytes(MIB);
    if old.send(&late).await.is_ok()
        && let Ok(answer) = old.try_answer().await
    {
        answer.expect_problem(409, "displaced");
    }
    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_writer_half_open_asks_first_folder() {
    half_open(Settings::folder(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_writer_half_open_folder() {
    half_open(Settings::folder(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_writer_half_open_s3() {
    half_open(Settings::s3(), true).await;
}

/// A client that sleeps in the middle of a body is cut after the stall time, and keeps what came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_what_came_of_a_stalled_body() {
    let mut random = Random::new();
    let settings = Settings::folder().with("server", "body_stall_secs", "1");
    let server = Server::start(settings).await;
    let session = Session::create_until(server.main, random.bytes(3 * MIB)).await;
    let mut connection = session.open(&(0..session.length())).await.expect("a head");
    connection
        .send(session.slice(&(0..MIB)))
        .await
        .expect("the server reads");
    // An answer or a closed connection: either way it does not stay open for ever.
    let _ = connection.try_answer().await;
    reaches(&session, MIB).await;
    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
}
