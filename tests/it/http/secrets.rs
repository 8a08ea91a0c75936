//! Keys are in the answer to a creation, and nowhere else.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use jumar::config::{AuthMode, Limit};
use jumar::model::Timestamp;
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both, uploaded};
use crate::support::tokens::{join_token, take_join_tokens};

/// The log in memory, as long as somebody listens. It is the whole process's, because a subscriber of one thread misses what
/// other threads were the first to say.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Option<Vec<u8>>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(log) = self.0.lock().unwrap().as_mut() {
            log.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const IDEMPOTENCY_KEY: &str = "idempotency-7f3b9c1d5e";

/// Everything that a client can do to an upload, well and badly, and all that was answered but the creation.
async fn all_operations(server: &Server) -> (Vec<String>, String) {
    let mut said = String::new();
    let create = async || {
        let key = [("Idempotency-Key", IDEMPOTENCY_KEY)];
        server
            .post_with(
                &key,
                &json!({"length": 6 * MIB, "digest": {"sha-256": "00".repeat(32)}}),
            )
            .await
    };
    let first = uploaded(create().await.expect(201));
    let upload = uploaded(create().await.expect(201));
    let other = server.create_of(3).await;
    let bytes = noise(6 * MIB, 1);
    let mut hear = |answer: crate::support::http::Answer| {
        let _ = write!(said, "{:?}{}", answer.headers, answer.text());
    };
    hear(server.put(&upload, 0, &bytes[..5_000_000], 6 * MIB).await);
    hear(server.put(&first, 0, b"1", 6 * MIB).await);
    hear(create().await);
    let fields = [("Content-Length", "1291456")];
    let mut cut = server
        .put_head(&upload, "bytes 5000000-6291455/6291456", &fields)
        .await;
    cut.send(&bytes[5_000_000..5_500_000]).await.unwrap();
    drop(cut);
    server.wait_for_offset(&upload, 5_500_000).await;
    hear(server.complete(&upload).await);
    hear(
        server
            .put(&upload, 5_500_000, &bytes[5_500_000..], 6 * MIB)
            .await,
    );
    for (method, below) in [
        ("GET", ""),
        ("HEAD", ""),
        ("POST", "/complete"),
        ("GET", "/content"),
        ("PATCH", ""),
        ("DELETE", ""),
    ] {
        hear(server.ask(&upload, method, below, &[], b"").await);
        hear(server.ask(&other, method, below, &[], b"").await);
    }
    let misplaced = format!("{{\"{}\":\"{}\"}}", other.key, other.key);
    hear(
        server
            .ask(&other, "POST", "/complete", &[], misplaced.as_bytes())
            .await,
    );
    let mut secrets = vec![first.key, upload.key, IDEMPOTENCY_KEY.to_owned()];
    if server.ground.s3.is_some() {
        let upload = server.create_of(6 * MIB).await;
        let numbers = json!({"part_numbers": [1, 2]}).to_string();
        let urls = async || {
            let asked = server.ask(&upload, "POST", "/parts/urls", &[], numbers.as_bytes());
            asked.await
        };
        for part in urls().await.expect(200).json()["parts"].as_array().unwrap() {
            let (_, signature) = part["url"]
                .as_str()
                .unwrap()
                .split_once("Signature=")
                .unwrap();
            secrets.push(signature.split('&').next().unwrap().to_owned());
        }
        hear(server.ask(&upload, "POST", "/parts/1", &[], b"").await);
        hear(server.put(&upload, 0, b"1", 6 * MIB).await);
        hear(urls().await);
    }
    (secrets, said)
}

/// The same for tus, whose URLs are the secrets.
async fn tus_operations(server: &Server) -> (Vec<String>, String) {
    let mut said = String::new();
    let mut secrets = Vec::new();
    let ask = async |method: &str, url: &str, fields: &[(&str, &str)], body: &[u8]| {
        let bytes = ("Content-Type", "application/offset+octet-stream");
        let common = [("Tus-Resumable", "1.0.0"), bytes, ("Upload-Offset", "0")];
        let fields = [&common[..], fields].concat();
        server.call(method, url, &fields, body).await
    };
    for _ in 0..2 {
        let fields = [("Upload-Concat", "partial"), ("Upload-Length", "3")];
        let created = ask("POST", "/files", &fields, b"12").await;
        let url = created.expect(201).header("location").unwrap();
        secrets.push(url.trim_start_matches("/files/").to_owned());
    }
    let [one, two] = [0, 1].map(|n: usize| format!("/files/{}", secrets[n]));
    let altered = format!("{}-", &one[..one.len() - 1]);
    for urls in [&one, &altered, "/files/nonsense"] {
        let urls = format!("final;{urls} {two}");
        let created = ask("POST", "/files", &[("Upload-Concat", &urls)], b"").await;
        if let Some(url) = created.header("location") {
            secrets.push(url.trim_start_matches("/files/").to_owned());
        } else {
            let _ = write!(said, "{:?}{}", created.headers, created.text());
        }
    }
    for url in [one, two, altered] {
        for method in ["PATCH", "GET", "POST", "OPTIONS", "DELETE", "GET"] {
            for body in ["", "123456"] {
                let answer = ask(method, &url, &[], body.as_bytes()).await;
                let _ = write!(said, "{:?}{}", answer.headers, answer.text());
            }
        }
    }
    (secrets, said)
}

/// Creations through every protocol with tokens, good and bad, over an open server and over one that wants them.
async fn token_operations(server: &Server) -> Vec<String> {
    let closed = Server::with(|config| {
        config.auth.mode = AuthMode::Required;
        take_join_tokens(config);
        let space = config.spaces.get_mut("default").expect("a space");
        space.open_per_device = Limit(None);
    })
    .await;
    let mut secrets = Vec::new();
    for server in [server, &closed] {
        let good = join_token(server.clock.now(), &json!({}));
        let bad = join_token(Timestamp(0), &json!({}));
        let altered = format!("{good}A");
        for token in [&good, &bad, &altered, "not-one-of-ours"] {
            let authorization = format!("Bearer {token}");
            for (path, name, value) in [
                ("/v1/uploads", "Content-Type", "application/json"),
                ("/files", "Tus-Resumable", "1.0.0"),
                ("/resumable", "Upload-Draft-Interop-Version", "8"),
                ("/s3/multipart", "Content-Type", "application/json"),
                ("/v1/objects", "Content-Type", "text/plain"),
            ] {
                let fields = [
                    ("Authorization", authorization.as_str()),
                    ("User-Agent", "forging\" status=200"),
                    ("Upload-Length", "3"),
                    (name, value),
                ];
                let answer = server.call("POST", path, &fields, b"").await;
                if path == "/v1/objects" && answer.status == 201 {
                    let key = answer.json()["upload_key"].as_str().map(ToOwned::to_owned);
                    secrets.push(key.expect("a key"));
                }
            }
            secrets.extend(token.split('.').map(ToOwned::to_owned));
        }
    }
    secrets
}

#[tokio::test]
async fn sealed_keys_are_in_no_log_no_figure_and_no_answer_but_incidents_are_in_both() {
    let log = Captured(Arc::new(Mutex::new(Some(Vec::new()))));
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("debug,jumar=trace,audit=trace")
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("the only one");
    for server in both().await {
        let (mut secrets, mut said) = all_operations(&server).await;
        let of_tus = tus_operations(&server).await;
        secrets.extend(of_tus.0);
        said.push_str(&of_tus.1);
        let ietf = crate::ietf::secrets::all_operations(&server).await;
        secrets.extend(ietf.0);
        said.push_str(&ietf.1);
        if server.ground.s3.is_some() {
            let of_plugin = super::s3_plugin::all_operations(&server).await;
            secrets.extend(of_plugin.0);
            said.push_str(&of_plugin.1);
        }
        secrets.extend(token_operations(&server).await);
        let upload = server
            .completed(json!({"filename": "a\u{2028}forged"}), b"123")
            .await;
        server
            .faults
            .fail(Call::Read, When::Next(1), Fault::Unavailable);
        let away = server.content(&upload, &[]).await.expect(503).json();
        let incident = away["incident"].as_str().unwrap();
        let figures = crate::support::http::Connection::open(server.admin)
            .await
            .call("GET", "/metrics", &[], b"")
            .await
            .text();
        let logged = log.0.lock().unwrap().clone().unwrap_or_default();
        let logged = String::from_utf8(logged).expect("text");
        assert!(
            logged.contains("answered") && logged.contains("DEBUG"),
            "it was captured"
        );
        let audits = logged.lines().filter(|line| line.contains(" audit: "));
        assert!(
            audits.count() > 50,
            "what changes something was written down"
        );
        assert!(logged.contains(incident), "the log knows the incident");
        for secret in secrets {
            assert!(!logged.contains(&secret), "in the log");
            assert!(!figures.contains(&secret), "in the figures");
            assert!(!said.contains(&secret), "in an answer");
        }
    }
    *log.0.lock().unwrap() = None;
}
