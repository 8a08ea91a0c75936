//! Those who come with a token, and those who look after what they left, beside a running server.

use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::client::{Answer, Connection};
use crate::harness::{Server, Settings, quoted};

const SECRET: &str = "a secret of the tests with more than 32 bytes";
const MIB: usize = 1024 * 1024;
/// Bytes in a request.
const CHUNK: usize = 8 * MIB;

fn settings() -> Settings {
    Settings::folder()
        .with("auth", "mode", &quoted("required"))
        .with("auth.join", "secret", &quoted(SECRET))
}

/// How large the upload of the test is: `JUMAR_E2E_MIB`, 64 if it is not set; 1024 make a thorough run.
fn chunks() -> usize {
    let mib = match std::env::var("JUMAR_E2E_MIB") {
        Ok(mib) => mib.parse().expect("JUMAR_E2E_MIB is a number"),
        Err(_) => 64,
    };
    mib * MIB / CHUNK
}

/// A chunk's bytes, which are like no other's.
fn chunk(number: usize) -> Vec<u8> {
    let words = (number * CHUNK / 8) as u64..((number + 1) * CHUNK / 8) as u64;
    let word = |at: u64| (at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    words.flat_map(word).collect()
}

fn out(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The token that a command has made.
async fn token(server: &Server, arguments: &[&str]) -> String {
    let made = out(&server.run(arguments).await);
    made.lines().last().expect("a line").to_owned()
}

/// A token of Alice's, and its id.
async fn of_alice(server: &Server) -> (String, String) {
    let token = token(server, &["token", "join", "--subject", "alice"]).await;
    let claims = token.split('.').nth(1).expect("claims");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    let id = claims["jti"].as_str().expect("an id").to_owned();
    (format!("Bearer {token}"), id)
}

/// A client with an upload.
struct Client {
    connection: Connection,
    bearer: String,
    path: String,
    key: String,
    length: usize,
}

impl Client {
    async fn begin(server: &Server, bearer: &str, length: usize) -> Self {
        let mut connection = Connection::open(server.main).await;
        let json = json!({ "length": length }).to_string();
        let fields = [
            ("Authorization", bearer),
            ("Content-Type", "application/json"),
        ];
        let created = connection.call("POST", "/v1/uploads", &fields, json.as_bytes());
        let created = created.await.expect(201).json();
        let text = |name: &str| created[name].as_str().expect("a text").to_owned();
        Self {
            connection,
            bearer: bearer.to_owned(),
            path: format!("/v1/uploads/{}", text("upload_id")),
            key: text("upload_key"),
            length,
        }
    }

    async fn call(
        &mut self,
        method: &str,
        below: &str,
        field: (&str, &str),
        body: &[u8],
    ) -> Answer {
        let fields = [
            ("Authorization", self.bearer.as_str()),
            ("Upload-Key", &self.key),
            field,
        ];
        let path = format!("{}{below}", self.path);
        self.connection.call(method, &path, &fields, body).await
    }

    fn range(&self, number: usize) -> String {
        let (first, last) = (number * CHUNK, (number + 1) * CHUNK - 1);
        format!("bytes {first}-{last}/{}", self.length)
    }

    async fn put(&mut self, number: usize) -> Answer {
        let range = self.range(number);
        let bytes = chunk(number);
        self.call("PUT", "/chunk", ("Content-Range", &range), &bytes)
            .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_bytes_of_an_upload_in_the_middle_of_which_its_token_is_revoked() {
    const NOTHING: (&str, &str) = ("Accept", "*/*");
    let server = Server::start(settings()).await;
    let (chunks, half) = (chunks(), chunks() / 2);
    let (first, id) = of_alice(&server).await;
    let mut client = Client::begin(&server, &first, chunks * CHUNK).await;
    for number in 0..half {
        client.put(number).await.expect(204);
    }

    // Whoever was let in may finish what they say; the next request is refused.
    let (range, length, bytes) = (client.range(half), CHUNK.to_string(), chunk(half));
    let fields = [
        ("Authorization", client.bearer.as_str()),
        ("Upload-Key", &client.key),
        ("Content-Range", &range),
        ("Content-Length", &length),
    ];
    let path = format!("{}/chunk", client.path);
    client.connection.head("PUT", &path, &fields).await;
    let (now, later) = bytes.split_at(CHUNK / 2);
    client.connection.send(now).await.expect("sent");
    out(&server.run(&["token", "revoke", &id]).await);
    client.connection.send(later).await.expect("sent");
    client.connection.answer().await.expect(204);
    let refused = client.call("GET", "", NOTHING, b"").await;
    refused.expect_problem(401, "unauthorized");
    client.connection = Connection::open(server.main).await;
    let refused = client.call("POST", "/complete", NOTHING, b"{}").await;
    refused.expect_problem(401, "unauthorized");
    client.connection = Connection::open(server.main).await;

    let (renewed, _) = of_alice(&server).await;
    client.bearer = renewed;
    let status = client
        .call("GET", "", NOTHING, b"")
        .await
        .expect(200)
        .json();
    assert_eq!(status["offset"], (half + 1) * CHUNK, "{status}");
    for number in half + 1..chunks {
        client.put(number).await.expect(204);
    }
    let mut completed = client.call("POST", "/complete", NOTHING, b"{}").await;
    while completed.status == 202 {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        completed = client.call("POST", "/complete", NOTHING, b"{}").await;
    }
    let object = completed.expect(201).json()["object"].clone();
    let mut sha256 = Sha256::new();
    for number in 0..chunks {
        let bytes = chunk(number);
        let range = format!("bytes={}-{}", number * CHUNK, (number + 1) * CHUNK - 1);
        let read = client.call("GET", "/content", ("Range", &range), b"").await;
        assert!(read.expect(206).body == bytes, "chunk {number}");
        sha256.update(&bytes);
    }
    let sha256 = hex::encode(sha256.finalize());
    assert_eq!(object["digest"]["sha-256"], sha256, "{object}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_looked_after_from_the_shell_beside_a_running_server() {
    const NOTHING: (&str, &str) = ("Accept", "*/*");
    let server = Server::start(settings()).await;
    let key = ["token", "create", "--name", "nightly", "--scope", "upload"];
    let key = format!("Bearer {}", token(&server, &key).await);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let mut client = Client::begin(&server, &key, 2 * CHUNK).await;
    client.put(0).await.expect(204);
    let id = client.path.rsplit('/').next().expect("an id").to_owned();

    let list = ["uploads", "list", "--json", "--state", "uploading"];
    let listed = out(&server.run(&list).await);
    let lines: Vec<&str> = listed.lines().collect();
    let [line] = lines[..] else {
        panic!("{listed}");
    };
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(line["upload_id"], id, "{line}");
    let table = out(&server.run(&["uploads", "list"]).await);
    assert!(
        table.contains(&id) && !table.contains(&client.key),
        "{table}"
    );
    let shown = out(&server.run(&["uploads", "show", &id]).await);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["offset"], CHUNK, "{shown}");

    for _ in 0..2 {
        out(&server.run(&["uploads", "abort", &id]).await);
    }
    let refused = client.put(1).await;
    assert!(refused.status >= 400, "{refused:?}");
    client.connection = Connection::open(server.main).await;
    let gone = client.call("GET", "", NOTHING, b"").await;
    gone.expect(410);
    let unknown = "00000000-0000-4000-8000-000000000000";
    let refused = server.run(&["uploads", "show", unknown]).await;
    assert!(!refused.status.success());
}
