//! TLS: what is spoken, who is let in, and certificates that change under load.

use std::time::Duration;

use jumar::config::Config;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::http::PATIENCE;
use crate::support::rig::noise;
use crate::support::server::{Server, Upload, range, uploaded};
use crate::support::tls::{Authority, Client, Pair};

/// A server with a certificate.
struct Secured {
    server: Server,
    folder: TempDir,
    authority: Authority,
    pair: Pair,
}

impl Secured {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let pair = authority.issue();
        pair.write(folder.path());
        let server = Server::with(|config| {
            config.tls.cert_file = folder.path().join("cert.pem");
            config.tls.key_file = folder.path().join("key.pem");
            config.tls.reload_secs = 1;
            change(config);
        })
        .await;
        Self {
            server,
            folder,
            authority,
            pair,
        }
    }

    fn client(&self) -> Client {
        self.authority.client(None)
    }

    async fn create(&self, length: usize) -> Upload {
        let mut connection = self.client().connect(self.server.main).await;
        let json = json!({ "length": length }).to_string();
        let fields = [("Content-Type", "application/json")];
        let created = connection.call("POST", "/v1/uploads", &fields, json.as_bytes());
        uploaded(created.await.expect(201))
    }

    /// Waits until a new connection is shown another certificate than at first.
    async fn wait_for_another(&self) {
        let client = self.client();
        timeout(PATIENCE, async {
            while client.shown(self.server.main).await == self.pair.der() {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("another certificate in time");
    }
}

#[tokio::test]
async fn exact_bytes_over_tls() {
    let secured = Secured::start(|_| {}).await;
    let bytes = noise(3 << 20, 1);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = secured.authority.client_of(None, &[version]);
        let upload = secured.create(bytes.len()).await;
        let mut connection = client.connect(secured.server.main).await;
        let range = range(0, bytes.len(), Some(bytes.len() as u64));
        let fields = [
            ("Upload-Key", upload.key.as_str()),
            ("Content-Range", range.as_str()),
        ];
        let path = upload.path("/chunk");
        let put = connection.call("PUT", &path, &fields, &bytes).await;
        put.expect(204);
        let fields = &fields[..1];
        let path = upload.path("/complete");
        let completed = connection.call("POST", &path, fields, b"{}").await;
        completed.expect(201);
        let path = upload.path("/content");
        let content = connection.call("GET", &path, fields, b"").await;
        assert!(content.expect(200).body == bytes);
    }
}

/// The interim answers of the IETF's protocol need it.
#[tokio::test]
async fn only_http_1_is_negotiated() {
    let secured = Secured::start(|_| {}).await;
    let stream = secured.client().handshake(secured.server.main).await;
    let stream = stream.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn links_begin_with_https() {
    let secured = Secured::start(|_| {}).await;
    let mut connection = secured.client().connect(secured.server.main).await;
    let path = "/s3/params?filename=a.txt&type=text/plain";
    let form = connection.call("GET", path, &[], b"").await;
    let url = form.expect(200).json()["url"].clone();
    assert!(
        url.as_str().unwrap().starts_with("https://localhost/"),
        "{url}"
    );
}

#[tokio::test]
async fn plain_http_and_old_versions_are_refused() {
    let secured = Secured::start(|_| {}).await;
    let answer_to = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(secured.server.main).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("closed in time");
        answer
    };
    let http = answer_to(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!http.starts_with(b"HTTP/"), "{http:?}");
    // A hello that is sound but for its version, TLS 1.1: one suite, and an algorithm, a group and a format for it.
    let mut hello = vec![22, 3, 1, 0, 69, 1, 0, 0, 65, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 22]);
    hello.extend([0, 13, 0, 4, 0, 2, 4, 3]);
    hello.extend([0, 10, 0, 4, 0, 2, 0, 23]);
    hello.extend([0, 11, 0, 2, 1, 0]);
    let alert = answer_to(&hello).await;
    assert_eq!(alert.first(), Some(&21), "an alert: {alert:?}");
    assert!(
        alert.ends_with(&[2, 70]),
        "fatal, protocol_version: {alert:?}"
    );
    secured.client().connect(secured.server.main).await;
}

#[tokio::test]
async fn clients_without_the_right_certificate_are_not_let_in() {
    let clients = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, clients.pem()).unwrap();
    let secured = Secured::start(|config| config.tls.client_ca_file = ca).await;
    let strangers = secured.authority.issue();
    for shown in [None, Some(&strangers)] {
        let client = secured.authority.client(shown);
        // In TLS 1.3 a client has finished before the server looks at its certificate.
        if let Ok(mut stream) = client.handshake(secured.server.main).await {
            let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(request).await;
            let mut answer = Vec::new();
            let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
            assert!(read.expect("closed in time").is_err(), "an alert");
            assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
        }
    }
    let known = secured.authority.client(Some(&clients.issue()));
    let mut connection = known.connect(secured.server.main).await;
    connection
        .call("GET", "/healthz", &[], b"")
        .await
        .expect(200);
}

/// Connections in the middle of a chunk go on, and new ones are shown the new certificate.
#[tokio::test]
async fn a_new_certificate_disturbs_no_connection() {
    let secured = Secured::start(|_| {}).await;
    let client = secured.client();
    let bytes = noise(1 << 20, 2);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut open = Vec::new();
    for _ in 0..8 {
        let upload = secured.create(bytes.len()).await;
        let mut connection = client.connect(secured.server.main).await;
        let length = bytes.len().to_string();
        let range = range(0, bytes.len(), Some(bytes.len() as u64));
        let fields = [
            ("Upload-Key", upload.key.as_str()),
            ("Content-Range", &range),
            ("Content-Length", &length),
        ];
        connection
            .head("PUT", &upload.path("/chunk"), &fields)
            .await;
        connection.send(first).await.unwrap();
        open.push(connection);
    }
    let new = secured.authority.issue();
    new.write(secured.folder.path());
    secured.wait_for_another().await;
    assert_eq!(client.shown(secured.server.main).await, new.der());
    for mut connection in open {
        connection.send(second).await.unwrap();
        let answer = connection.answer().await;
        assert_eq!(answer.expect(204).offset(), bytes.len() as u64);
    }
}

#[tokio::test]
async fn half_of_a_new_pair_keeps_the_old_one() {
    let secured = Secured::start(|_| {}).await;
    let client = secured.client();
    let new = secured.authority.issue();
    std::fs::write(secured.folder.path().join("cert.pem"), &new.cert).unwrap();
    sleep(Duration::from_millis(2500)).await;
    let shown = client.shown(secured.server.main).await;
    assert_eq!(shown, secured.pair.der());
    std::fs::write(secured.folder.path().join("key.pem"), &new.key).unwrap();
    secured.wait_for_another().await;
}

#[tokio::test]
async fn a_slow_handshake_keeps_nobody_waiting_and_is_cut() {
    let secured = Secured::start(|config| {
        config.server.max_connections = 3;
        config.tls.handshake_timeout_secs = 2;
    })
    .await;
    let main = secured.server.main;
    let mut slow = [
        TcpStream::connect(main).await.unwrap(),
        TcpStream::connect(main).await.unwrap(),
    ];
    // The first bytes of a hello, and no more.
    slow[1].write_all(&[22, 3, 1]).await.unwrap();
    secured.create(1).await;
    // Its slot is the last one. Whoever comes now has to wait for one of the slow.
    let mut kept = secured.client().connect(main).await;
    let client = secured.client();
    let waiting = tokio::spawn(async move { client.handshake(main).await.map(drop) });
    sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "a handshake holds a slot");
    for stream in &mut slow {
        let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await;
        assert!(matches!(read.expect("cut"), Ok(0) | Err(_)));
    }
    waiting.await.unwrap().expect("a slot has come free");
    kept.call("GET", "/healthz", &[], b"").await.expect(200);
}

/// Nothing was asked yet, so nothing is waited for.
#[tokio::test]
async fn a_handshake_does_not_hold_up_the_end() {
    let secured = Secured::start(|config| {
        config.server.drain_secs = 3600;
        config.tls.handshake_timeout_secs = 3600;
    })
    .await;
    let _silent = TcpStream::connect(secured.server.main).await.unwrap();
    secured.create(1).await;
    secured.server.running.drain();
    let ended = timeout(PATIENCE, secured.server.running.finished()).await;
    ended.expect("the end in time");
}
