//! Parts that go past the server, while it is killed.

use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client;
use crate::harness::{Server, Settings, rounds};
use crate::random::Random;
use crate::session::{How, Session};

const MIB: u64 = 1 << 20;
const TRIES: Duration = Duration::from_mins(2);

/// The URLs of all parts that can have one, trying again while the server is away.
async fn urls(session: &Session, mut numbers: Vec<u64>) -> Vec<Value> {
    let deadline = Instant::now() + TRIES;
    while !numbers.is_empty() {
        let ask = json!({ "part_numbers": numbers });
        match session.post("/parts/urls", &ask).await {
            Ok(answer) if answer.status == 200 => {
                return answer.json()["parts"].as_array().expect("parts").clone();
            }
            Ok(answer) if answer.status == 409 => {
                let refused = answer.json()["part_numbers"].clone();
                let refused = refused.as_array().expect("which ones");
                numbers.retain(|number| !refused.contains(&json!(number)));
            }
            other => assert!(Instant::now() < deadline, "no URLs: {other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
    Vec::new()
}

/// Puts a part into the store. It does not matter whether the server lives.
async fn put(session: &Session, part: &Value) -> Range<u64> {
    let url = part["url"].as_str().expect("a URL");
    let (host, path) = url
        .strip_prefix("http://")
        .expect("plain")
        .split_once('/')
        .expect("a path");
    let start = part["offset"].as_u64().expect("a number");
    let end = start + part["length"].as_u64().expect("a number");
    let headers = part["headers"].as_object().expect("a map");
    let fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
        .filter(|(name, _)| *name != "content-length")
        .collect();
    let (host, path) = (host.parse().expect("an address"), format!("/{path}"));
    let body = session.slice(&(start..end));
    let answer = client::try_call(host, "PUT", &path, &fields, body).await;
    assert_eq!(answer.expect("an answer").status, 200);
    start..end
}

/// Some parts are put directly, some of these are told of, the rest goes through the server; it is killed meanwhile, and
/// nothing that was acknowledged is sent again or lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_back_direct_parts() {
    let mut random = Random::new();
    let settings = Settings::s3().with("uploads", "chunk_size_bytes", "5242880");
    let mut server = Server::start(settings).await;
    for _ in 0..rounds().div_ceil(2) {
        let length = random.within(16 * MIB..24 * MIB);
        let content = random.bytes(length);
        let session = Session::create_until(server.main, content).await;
        let cells = session.length().div_ceil(5 * MIB);
        let client = tokio::spawn({
            let session = session.clone();
            let direct: Vec<u64> = (1..=cells).filter(|number| number % 3 != 0).collect();
            async move {
                for part in urls(&session, direct).await {
                    let range = put(&session, &part).await;
                    let number = part["part_number"].as_u64().expect("a number");
                    // A notice that is not sent, or lost, costs nothing.
                    if number.is_multiple_of(2)
                        && let Ok(answer) =
                            session.post(&format!("/parts/{number}"), &json!({})).await
                        && answer.status == 204
                    {
                        session.was_acknowledged(range);
                    }
                    sleep(Duration::from_millis(30)).await;
                }
                // What nobody was told of is asked of the store, and only what is missing then is sent.
                let _ = session.post("/complete", &json!({})).await;
                session.send_all(How::WHOLE).await;
                session.complete().await;
            }
        });
        for _ in 0..2 {
            sleep(Duration::from_millis(random.within(5..400))).await;
            server.kill().await;
            server.launch().await;
        }
        client.await.expect("completed in the end");
        session.verify().await;
        server.kill().await;
        server.launch().await;
        session.verify().await;
    }
}
