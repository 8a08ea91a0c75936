//! `never_back`: what was acknowledged survives `kill -9` at any instant.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::harness::{Server, Settings, rounds};
use crate::random::Random;
use crate::session::{How, Session};

const MIB: u64 = 1 << 20;

/// Uploads in different manners, all while the server is killed and started again; each is completed and read back.
async fn never_back(settings: Settings, rounds: u64) {
    let mut random = Random::new();
    let mut server = Server::start(settings).await;
    let mut last = Vec::new();
    for round in 0..rounds {
        let mut clients = clients_of(server.main, &mut random);
        for _ in 0..=round % 2 {
            sleep(Duration::from_millis(random.within(5..600))).await;
            server.kill().await;
            server.launch().await;
        }
        last.clear();
        while let Some(session) = clients.join_next().await {
            last.push(session.unwrap_or_else(|error| panic!("in round {round}: {error}")));
        }
        for session in &last {
            session.verify().await;
        }
    }
    // A completion that was told is one after the next kill, too.
    server.kill().await;
    server.launch().await;
    for session in &last {
        let (status, _) = session.status().await;
        assert_eq!(status["state"], "completed", "never_back: {status}");
        session.verify().await;
        session.complete().await;
    }
}

/// The clients of a round. Each uploads a file in a manner of its own, and goes on whatever happens to the server.
pub(crate) fn clients_of(server: SocketAddr, random: &mut Random) -> JoinSet<Session> {
    let mut clients = JoinSet::new();
    for (length, how) in manners(random) {
        let content = random.bytes(length);
        clients.spawn(async move {
            let session = Session::create_until(server, content).await;
            session.send_all(how).await;
            session.complete().await;
            session
        });
    }
    clients
}

/// What the clients of a round do.
fn manners(random: &mut Random) -> Vec<(u64, How)> {
    let pause = Duration::from_millis(1);
    let slow = How {
        pause,
        ..How::WHOLE
    };
    let shuffled = How {
        chunk: random.within(MIB / 4..3 * MIB),
        parallel: 4,
        shuffle: true,
        pause,
    };
    let small = How {
        chunk: 100_000,
        parallel: 1,
        shuffle: false,
        pause: Duration::from_millis(5),
    };
    vec![
        (random.within(9 * MIB..26 * MIB), slow),
        (random.within(9 * MIB..20 * MIB), shuffled),
        (random.within(1..2 * MIB), small),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_back_folder() {
    never_back(Settings::folder(), rounds()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_back_s3() {
    never_back(Settings::s3(), rounds()).await;
}

/// Without syncing, too: a process that dies leaves what it wrote to the kernel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_back_folder_unsynced() {
    let settings = Settings::folder().with("uploads", "durability", r#""process""#);
    never_back(settings, rounds().div_ceil(5)).await;
}

/// Killed the moment after a chunk was acknowledged, again and again, the upload only grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_back_right_after_the_answer() {
    let mut random = Random::new();
    let mut server = Server::start(Settings::folder()).await;
    let session = Session::create_until(server.main, random.bytes(8 * 300_000)).await;
    for start in (0..session.length()).step_by(300_000) {
        let answer = session
            .put(start..start + 300_000, Duration::ZERO)
            .await
            .expect("an answer");
        answer.expect(204);
        server.kill().await;
        server.launch().await;
        let (status, _) = session.status().await;
        assert_eq!(status["offset"], start + 300_000);
    }
    session.complete().await;
    session.verify().await;
}

/// Killed while it completes, over and over: one completion in the end, and the same answer to all who ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_once_killed_while_completing() {
    let mut random = Random::new();
    let mut server = Server::start(Settings::folder()).await;
    for _ in 0..rounds().div_ceil(2) {
        let session = Session::create_until(server.main, random.bytes(3 * MIB)).await;
        session.send_all(How::WHOLE).await;
        let completing = tokio::spawn({
            let session = session.clone();
            async move { session.complete().await }
        });
        sleep(Duration::from_millis(random.within(0..30))).await;
        server.kill().await;
        server.launch().await;
        completing.await.expect("completed in the end");
        let answers = [
            session.call("POST", "/complete").await.expect("an answer"),
            session.call("POST", "/complete").await.expect("an answer"),
        ];
        assert_eq!([answers[0].status, answers[1].status], [200, 200]);
        assert_eq!(answers[0].body, answers[1].body, "told_once");
        session.verify().await;
    }
}
