//! Clients that mean harm: heads and bodies that never end, requests that are two, paths that lead elsewhere, storms. Each is refused
//! or cut, and the upload of somebody else goes on beside.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{self, Connection};
use crate::harness::{Server, Settings};
use crate::random::Random;
use crate::session::{How, Session};

const MIB: u64 = 1 << 20;
/// How long the server lets a head take in these tests, and a body pause.
const PATIENCE: Duration = Duration::from_secs(2);

fn impatient() -> Settings {
    Settings::folder()
        .with("server", "head_timeout_secs", "2")
        .with("server", "body_stall_secs", "2")
}

/// Somebody else's upload, from its creation to its bytes read back.
async fn upload_of_another(server: &Server) {
    let session = Session::create_until(server.main, Random::new().bytes(2 * MIB)).await;
    session
        .send_all(How {
            chunk: 512 * 1024,
            ..How::WHOLE
        })
        .await;
    session.complete().await;
    session.verify().await;
}

/// Sends the beginning, then byte after byte of what never ends; how long it took until the server hung up.
async fn trickle(server: std::net::SocketAddr, beginning: String, pause: Duration) -> Duration {
    let mut stream = TcpStream::connect(server).await.expect("a connection");
    let begun = Instant::now();
    stream.write_all(beginning.as_bytes()).await.expect("sent");
    let (mut read, mut write) = stream.into_split();
    let hang_up = async {
        let mut bytes = [0; 1024];
        while matches!(read.read(&mut bytes).await, Ok(1..)) {}
    };
    let send = async {
        while write.write_all(b"a").await.is_ok() {
            sleep(pause).await;
        }
    };
    timeout(Duration::from_secs(30), async {
        tokio::select! {
            () = hang_up => {}
            () = send => {}
        }
    })
    .await
    .expect("the server hangs up");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounded_heads_that_never_end_are_cut_and_others_go_on() {
    let server = Server::start(impatient()).await;
    let mut slow = JoinSet::new();
    for at in 0..150 {
        let beginning = match at % 3 {
            0 => String::new(),
            1 => "PUT /v1/uploads HT".to_owned(),
            _ => "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Endless: ".to_owned(),
        };
        slow.spawn(trickle(server.main, beginning, PATIENCE / 10));
    }
    upload_of_another(&server).await;
    while let Some(took) = slow.join_next().await {
        let took = took.expect("it ends");
        assert!(took < PATIENCE * 4, "{took:?} for a head");
    }
    // One that comes fast and never ends is refused for its size.
    let mut fast = Connection::open(server.main).await;
    let mut head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Endless: ".to_vec();
    head.resize(4 << 20, b'a');
    let _ = fast.send(&head).await;
    if let Ok(refused) = fast.try_answer().await {
        assert_eq!(refused.status, 431);
    }
    upload_of_another(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounded_bodies_that_never_end_are_cut_and_others_go_on() {
    let server = Server::start(impatient().with("uploads", "max_size_bytes", "8388608")).await;
    // They stop in the middle.
    let mut stopped = Vec::new();
    for _ in 0..60 {
        let session = Session::create_until(server.main, Random::new().bytes(MIB)).await;
        let mut connection = Connection::open(server.main).await;
        let range = session.content_range(&(0..MIB));
        let fields = [
            ("Upload-Key", session.key.as_str()),
            ("Content-Range", &range),
            ("Content-Length", "1048576"),
        ];
        let path = format!("{}/chunk", session.path);
        connection.head("PUT", &path, &fields).await;
        connection
            .send(session.slice(&(0..10_000)))
            .await
            .expect("sent");
        stopped.push((session, connection));
    }
    // They go on and on.
    let endless = async {
        let mut connection = Connection::open(server.main).await;
        let fields = [("Transfer-Encoding", "chunked")];
        connection.head("POST", "/v1/objects", &fields).await;
        let bytes = vec![7; 64 * 1024];
        let mut sent = 0;
        while connection.send_coded(&bytes).await.is_ok() && sent < 256 * MIB {
            sent += bytes.len() as u64;
        }
        (sent, connection.try_answer().await)
    };
    let ((sent, refused), ()) = tokio::join!(endless, upload_of_another(&server));
    assert!(
        sent < 256 * MIB,
        "{sent} bytes of an endless body were taken"
    );
    if let Ok(refused) = refused {
        refused.expect_problem(413, "upload_limit");
    }
    // What came of those that stopped is kept, and they are told so.
    for (session, mut connection) in stopped {
        let cut = connection.try_answer().await.expect("an answer");
        assert!(matches!(cut.status, 400 | 408), "{cut:?}");
        assert!(connection.is_closed().await);
        let (status, _) = session.status().await;
        assert_eq!(status["offset"], 10_000, "{status}");
    }
}

/// A request that some see as one and others as two. `%` stands for the one that is smuggled.
const SMUGGLED: [(&str, &str); 19] = [
    (
        "two lengths",
        "Content-Length: 4\r\nContent-Length: 60\r\n\r\nabcd%",
    ),
    ("two lengths in one", "Content-Length: 4, 60\r\n\r\nabcd%"),
    ("a length with a sign", "Content-Length: +4\r\n\r\nabcd%"),
    (
        "a length that is too large",
        "Content-Length: 99999999999999999999\r\n\r\n%",
    ),
    ("a length in hex", "Content-Length: 0x4\r\n\r\nabcd%"),
    (
        "length and chunked",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%",
    ),
    (
        "chunked and length",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n%",
    ),
    (
        "a coding that is not the last",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n%",
    ),
    (
        "a coding that is none",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n%",
    ),
    (
        "chunked twice",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%",
    ),
    (
        "an odd size",
        "Transfer-Encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n%",
    ),
    (
        "a size with a sign",
        "Transfer-Encoding: chunked\r\n\r\n-4\r\nabcd\r\n0\r\n\r\n%",
    ),
    (
        "a size that is too large",
        "Transfer-Encoding: chunked\r\n\r\n10000000000000004\r\nabcd\r\n0\r\n\r\n%",
    ),
    (
        "a chunk that is longer",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n%",
    ),
    (
        "a folded field",
        "X-Folded: a\r\n Content-Length: 4\r\n\r\nabcd%",
    ),
    (
        "a folded coding",
        "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n%",
    ),
    (
        "a space before the colon",
        "Content-Length : 4\r\n\r\nabcd%",
    ),
    ("a field without a name", ": 4\r\n\r\nabcd%"),
    (
        "a NUL in a field",
        "X-Nul: a\0b\r\nContent-Length: 4\r\n\r\nabcd%",
    ),
];

/// All that the server says until it hangs up, or says nothing more for a while.
async fn said(server: &Server, bytes: &[u8]) -> (String, bool) {
    let mut stream = TcpStream::connect(server.main).await.expect("a connection");
    let _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    let closed = timeout(Duration::from_secs(8), stream.read_to_end(&mut said)).await;
    (String::from_utf8_lossy(&said).into_owned(), closed.is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_could_be_two_is_refused_and_the_connection_closed() {
    let server = Server::start(impatient()).await;
    let mut wrong = Vec::new();
    let hidden = "GET /healthz HTTP/1.1\r\nHost: hidden\r\n\r\n";
    for path in ["/v1/uploads", "/v1/objects"] {
        for (what, shape) in SMUGGLED {
            let fields = "Host: a\r\nContent-Type: application/json\r\n";
            let request = format!("POST {path} HTTP/1.1\r\n{fields}{shape}").replace('%', hidden);
            let (said, closed) = said(&server, request.as_bytes()).await;
            let answers = said.matches("HTTP/1.1 ").count();
            // RFC 9112, section 6.3: chunked counts, and the connection ends with the answer.
            let may_be_taken = matches!(what, "length and chunked" | "chunked and length");
            let refused = said.starts_with("HTTP/1.1 400 ");
            if answers != 1 || !(refused || may_be_taken) || !closed {
                wrong.push(format!(
                    "{path}, {what}: {answers} answers, closed {closed}: {said}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    upload_of_another(&server).await;
}

/// Everything below a folder, but for what the server keeps in its own.
fn outside(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("readable");
    let mut names: Vec<_> = names
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_paths_and_names_lead_nowhere_else() {
    let key = r#""{filename}/{id}""#;
    let server = Server::start(impatient().with("store", "key", key)).await;
    let secret = server.folder().join("config.toml");
    let before = outside(server.folder());
    let long = format!("/v1/uploads/{}", "a".repeat(100_000));
    let evil = format!("http://evil.example{}", secret.display());
    for path in [
        "/v1/uploads/../../config.toml",
        "/v1/uploads/%2e%2e/%2e%2e/config.toml",
        "/v1/uploads/..%2f..%2fconfig.toml/content",
        "/v1/uploads/%2e%2e%2f%2e%2e%2fconfig.toml/content",
        "/v1/uploads/%00/content",
        "/v1/uploads/%c0%ae%c0%ae/content",
        "/v1/objects/sha256/..%2f..%2fconfig.toml",
        "//config.toml",
        "//v1//uploads//x",
        "/files/..%2f..%2fconfig.toml",
        "/files/%00",
        "/resumable/..%5c..%5cconfig.toml",
        "/v1/uploads/%",
        long.as_str(),
        evil.as_str(),
    ] {
        for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"] {
            let answer = client::try_call(server.main, method, path, &[], b"x").await;
            if let Ok(answer) = answer {
                let shown = &path[..path.len().min(60)];
                assert!(
                    (400..500).contains(&answer.status),
                    "{method} {shown}: {answer:?}"
                );
                assert!(!answer.text().contains("head_timeout"), "{answer:?}");
            }
        }
    }
    for name in [
        "../../escaped",
        "..",
        "/etc/escaped",
        "a/../../escaped",
        "..\\escaped",
        "%2e%2e/escaped",
        "C:\\escaped",
        ".",
    ] {
        let json = serde_json::json!({"filename": name, "length": 3}).to_string();
        let fields = [("Content-Type", "application/json")];
        let created =
            client::try_call(server.main, "POST", "/v1/uploads", &fields, json.as_bytes());
        let created = created.await.expect("an answer");
        if created.status == 400 {
            continue;
        }
        let told = created.expect(201).json();
        let [id, key] =
            ["upload_id", "upload_key"].map(|name| told[name].as_str().expect("a text"));
        let fields = [("Upload-Key", key), ("Content-Range", "bytes 0-2/3")];
        let path = format!("/v1/uploads/{id}/chunk");
        let put = client::try_call(server.main, "PUT", &path, &fields, b"abc").await;
        put.expect("an answer").expect(204);
        let path = format!("/v1/uploads/{id}/complete");
        let done = client::try_call(server.main, "POST", &path, &fields[..1], b"{}").await;
        let object = done.expect("an answer").expect(201).json();
        let key = object["object"]["key"].as_str().expect("a key").to_owned();
        let file = server.folder().join("data/objects").join(&key);
        assert_eq!(
            fs::read(file).expect("the object's file"),
            b"abc",
            "{name} is at {key}"
        );
    }
    assert_eq!(
        outside(server.folder()),
        before,
        "no file beside the server's own"
    );
    let parent = server.folder().parent().expect("a parent");
    assert!(!parent.join("escaped").exists() && !Path::new("/etc/escaped").exists());
    upload_of_another(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_writer_a_hundred_at_once_and_storms_of_single_bytes_spoil_nothing() {
    let server = Server::start(impatient()).await;
    let session = Session::create_until(server.main, Random::new().bytes(MIB)).await;
    let mut writers = JoinSet::new();
    for at in 0..100 {
        let session = session.clone();
        writers.spawn(async move {
            let start = (at % 10) * 50_000;
            let put = session.put(start..start + 200_000, Duration::from_millis(1));
            put.await.map(|answer| answer.status)
        });
    }
    for at in 0..300 {
        let session = session.clone();
        writers.spawn(async move {
            let start = MIB - 1 - at * 7;
            let put = session.put(start..start + 1, Duration::ZERO).await;
            put.map(|answer| answer.status)
        });
    }
    let mut seen = BTreeMap::<u16, u32>::new();
    let storm = async {
        while let Some(status) = writers.join_next().await {
            // A connection that is closed on a writer may take its answer with it.
            if let Ok(status) = status.expect("it ends") {
                *seen.entry(status).or_default() += 1;
            }
        }
    };
    tokio::join!(storm, upload_of_another(&server));
    assert!(
        seen.keys()
            .all(|status| [204, 409, 429, 503].contains(status)),
        "{seen:?}"
    );
    assert!(seen.contains_key(&204), "{seen:?}");
    session.send_all(How::WHOLE).await;
    session.complete().await;
    session.verify().await;
}
