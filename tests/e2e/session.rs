//! A client that goes on after everything: status, the ranges that are missing, completion. It remembers what was
//! acknowledged, and every status is held against that.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::client::{self, Answer, Connection};
use crate::random::Random;
use crate::ranges::Ranges;

/// How long an upload goes on trying.
const TRIES: Duration = Duration::from_mins(2);
/// How much is sent at once; after each the sender pauses, so that a kill finds it in the middle.
const STRETCH: usize = 64 * 1024;

/// How a client sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Bytes in a request; 0: all that is missing.
    pub(crate) chunk: u64,
    /// Requests at once.
    pub(crate) parallel: usize,
    /// In random order.
    pub(crate) shuffle: bool,
    /// The pause after each stretch.
    pub(crate) pause: Duration,
}

impl How {
    /// All in one request, as fast as it goes.
    pub(crate) const WHOLE: Self = Self {
        chunk: 0,
        parallel: 1,
        shuffle: false,
        pause: Duration::ZERO,
    };
}

/// An upload of a client.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    server: SocketAddr,
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) content: Arc<Vec<u8>>,
    acknowledged: Arc<Mutex<Ranges>>,
}

impl Session {
    /// Creates an upload; tried once.
    pub(crate) async fn create(server: SocketAddr, content: Vec<u8>) -> io::Result<Self> {
        let body = format!(r#"{{"filename":"e2e.bin","length":{}}}"#, content.len());
        let headers = [("Content-Type", "application/json")];
        let answer =
            client::try_call(server, "POST", "/v1/uploads", &headers, body.as_bytes()).await?;
        if answer.status != 201 {
            return Err(io::Error::other(format!("{answer:?}")));
        }
        let told = answer.json();
        let text = |name: &str| told[name].as_str().expect("is in the answer").to_owned();
        Ok(Self {
            server,
            path: format!("/v1/uploads/{}", text("upload_id")),
            key: text("upload_key"),
            content: Arc::new(content),
            acknowledged: Arc::default(),
        })
    }

    /// Creates an upload, trying again while the server is away.
    pub(crate) async fn create_until(server: SocketAddr, content: Vec<u8>) -> Self {
        let deadline = Instant::now() + TRIES;
        loop {
            match Self::create(server, content.clone()).await {
                Ok(session) => return session,
                Err(error) => assert!(Instant::now() < deadline, "not created: {error}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.content.len() as u64
    }

    /// The upload's file from `range.start` to `range.end`.
    pub(crate) fn slice(&self, range: &Range<u64>) -> &[u8] {
        let at = |offset: u64| usize::try_from(offset).expect("inside the content");
        &self.content[at(range.start)..at(range.end)]
    }

    pub(crate) fn content_range(&self, range: &Range<u64>) -> String {
        format!("bytes {}-{}/{}", range.start, range.end - 1, self.length())
    }

    /// One request about the upload, on a connection of its own; tried once.
    pub(crate) async fn call(&self, method: &str, action: &str) -> io::Result<Answer> {
        let path = format!("{}{action}", self.path);
        let headers = [("Upload-Key", self.key.as_str())];
        client::try_call(self.server, method, &path, &headers, b"").await
    }

    /// One request with JSON, on a connection of its own; tried once.
    pub(crate) async fn post(&self, action: &str, json: &Value) -> io::Result<Answer> {
        let path = format!("{}{action}", self.path);
        let headers = [("Upload-Key", self.key.as_str())];
        let body = json.to_string();
        client::try_call(self.server, "POST", &path, &headers, body.as_bytes()).await
    }

    /// Remembers what the server said that it has.
    pub(crate) fn was_acknowledged(&self, range: Range<u64>) {
        let mut acknowledged = self.acknowledged.lock().expect("nobody panics with it");
        acknowledged.add(range);
    }

    /// Opens a connection and sends a chunk's head.
    pub(crate) async fn open(&self, range: &Range<u64>) -> io::Result<Connection> {
        let mut connection = Connection::try_open(self.server).await?;
        let path = format!("{}/chunk", self.path);
        let content_range = self.content_range(range);
        let length = (range.end - range.start).to_string();
        let headers = [
            ("Upload-Key", self.key.as_str()),
            ("Content-Range", content_range.as_str()),
            ("Content-Length", length.as_str()),
        ];
        connection.try_head("PUT", &path, &headers).await?;
        Ok(connection)
    }

    /// Sends a chunk, with a pause after each stretch; remembers what is acknowledged.
    pub(crate) async fn put(&self, range: Range<u64>, pause: Duration) -> io::Result<Answer> {
        let mut connection = self.open(&range).await?;
        for stretch in self.slice(&range).chunks(STRETCH) {
            // Refused early: the answer is there all the same.
            if connection.send(stretch).await.is_err() {
                break;
            }
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
        let answer = connection.try_answer().await?;
        if answer.status == 204 {
            let mut acknowledged = self.acknowledged.lock().expect("nobody panics with it");
            acknowledged.add(range);
            acknowledged.add(0..answer.offset());
        }
        Ok(answer)
    }

    /// `Content-Range: bytes */N`: ends what hangs, and tells the offset.
    pub(crate) async fn displace(&self) -> io::Result<Answer> {
        let path = format!("{}/chunk", self.path);
        let content_range = format!("bytes */{}", self.length());
        let headers = [
            ("Upload-Key", self.key.as_str()),
            ("Content-Range", content_range.as_str()),
        ];
        client::try_call(self.server, "PUT", &path, &headers, b"").await
    }

    /// The status, tried again while the server is away, and held against all that was acknowledged before it was asked.
    pub(crate) async fn status(&self) -> (Value, Ranges) {
        let deadline = Instant::now() + TRIES;
        let told = loop {
            let before = self.acknowledged.lock().expect("not poisoned").clone();
            match self.call("GET", "").await {
                Ok(answer) if answer.status == 200 => break (answer.json(), before),
                Ok(answer) if answer.status < 500 => {
                    panic!("never_back: the upload was acknowledged, and now: {answer:?}")
                }
                other => assert!(Instant::now() < deadline, "no status: {other:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let (told, before) = told;
        let received: Ranges = told["received"]
            .as_array()
            .expect("a list of ranges")
            .iter()
            .map(|pair| {
                let end = |index: usize| pair[index].as_u64().expect("a pair of numbers");
                end(0)..end(1)
            })
            .collect();
        assert_eq!(
            received.lacks(&before),
            None,
            "never_back: acknowledged was {before:?}, the status says {received:?}"
        );
        assert_eq!(
            told["offset"].as_u64(),
            Some(received.offset()),
            "the offset is the end of the range that starts at 0"
        );
        let mut acknowledged = self.acknowledged.lock().expect("not poisoned");
        acknowledged.extend(&received);
        drop(acknowledged);
        (told, received)
    }

    /// Sends what is missing until nothing is, whatever happens on the way.
    pub(crate) async fn send_all(&self, how: How) {
        let deadline = Instant::now() + TRIES;
        let mut random = Random::new();
        loop {
            let (_, received) = self.status().await;
            let mut chunks = cut(received.missing(self.length()), how.chunk);
            if chunks.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "not sent after {TRIES:?}");
            if how.shuffle {
                random.shuffle(&mut chunks);
            }
            let waiting = Mutex::new(chunks);
            let lanes = (0..how.parallel).map(|_| async {
                loop {
                    let next = waiting.lock().expect("not poisoned").pop();
                    let Some(range) = next else { return };
                    match self.put(range, how.pause).await {
                        Ok(answer) if answer.status == 204 => {}
                        Ok(answer) if matches!(answer.status, 409 | 429 | 503) => return,
                        Ok(answer) => panic!("a chunk was refused: {answer:?} {}", answer.text()),
                        Err(_) => return,
                    }
                }
            });
            join_all(lanes).await;
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Completes, trying again while the server is away or at work, and holds the digest against what was sent.
    pub(crate) async fn complete(&self) {
        let deadline = Instant::now() + TRIES;
        let told = loop {
            match self.call("POST", "/complete").await {
                Ok(answer) if matches!(answer.status, 200 | 201) => break answer.json(),
                Ok(answer) if !matches!(answer.status, 202 | 409 | 503) => {
                    panic!("not completed: {answer:?} {}", answer.text())
                }
                Ok(answer) if answer.status == 409 && answer.code() == "upload_incomplete" => {
                    panic!("all was acknowledged, and now: {}", answer.text())
                }
                other => assert!(Instant::now() < deadline, "not completed: {other:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let object = &told["object"];
        assert_eq!(
            object["digest"]["sha-256"].as_str(),
            Some(sha256(&self.content).as_str()),
            "exact_bytes: {told}"
        );
        assert_eq!(object["size"].as_u64(), Some(self.length()));
    }

    /// Reads the object back and compares every byte.
    pub(crate) async fn verify(&self) {
        let answer = self.call("GET", "/content").await.expect("the content");
        answer.expect(200);
        assert_eq!(
            sha256(&answer.body),
            sha256(&self.content),
            "exact_bytes: {} bytes came back of {}",
            answer.body.len(),
            self.length()
        );
    }
}

/// Cuts ranges into chunks of `size`; 0 leaves them whole. The first one is the last of the list.
fn cut(ranges: Vec<Range<u64>>, size: u64) -> Vec<Range<u64>> {
    let mut chunks = Vec::new();
    for range in ranges {
        let step = if size == 0 {
            range.end - range.start
        } else {
            size
        };
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + step);
            chunks.push(start..end);
            start = end;
        }
    }
    chunks.reverse();
    chunks
}

/// In lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[test]
fn chunks_cover_what_is_missing_once() {
    let mut chunks = cut(vec![0..10, 20..25], 4);
    chunks.reverse();
    assert_eq!(chunks, [0..4, 4..8, 8..10, 20..24, 24..25]);
    assert_eq!(cut(vec![1..2, 3..9], 0), [3..9, 1..2]);
}
