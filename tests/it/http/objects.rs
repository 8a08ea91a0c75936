//! `POST /v1/objects`: a file in one request, raw or in a form.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::h2::H2;
use crate::support::http::{Answer, Connection};
use crate::support::rig::{Ground, MIB, noise};
use crate::support::server::{Server, Upload, both, uploaded};

pub(super) const BASE: &str = "/v1/objects";
/// Several cells and a bit.
const LARGE: u64 = 12 * MIB + 7;

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// What a form has around its file: what comes before, and what comes after.
pub(super) fn around(fields: &[(&str, &str)], filename: &str) -> (String, String) {
    let field = |(name, value): &(&str, &str)| {
        format!("--frontier\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let fields: String = fields.iter().map(field).collect();
    let head = format!(
        "--frontier\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{filename}\"\r\nContent-Type: image/jpeg\r\n\r\n"
    );
    let before = fields + &head;
    (before, "\r\n--frontier--\r\n".to_owned())
}

pub(super) fn form(fields: &[(&str, &str)], filename: &str, file: &[u8]) -> Vec<u8> {
    let (before, after) = around(fields, filename);
    [before.as_bytes(), file, after.as_bytes()].concat()
}

pub(super) const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=frontier");

/// A connection on which the head of a request with a chunked body was sent.
pub(super) async fn begin(server: &Server, path: &str, fields: &[(&str, &str)]) -> Connection {
    let mut connection = server.connect().await;
    let mut fields = fields.to_vec();
    fields.push(("Transfer-Encoding", "chunked"));
    connection.head("POST", path, &fields).await;
    connection
}

/// Sends a body of unknown length.
async fn post_coded(server: &Server, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut connection = begin(server, path, fields).await;
    for piece in body.chunks(100_000) {
        if connection.send_coded(piece).await.is_err() {
            break;
        }
    }
    // Refused early, it may be closed by now.
    let _ = connection.send_coded(b"").await;
    connection.answer().await
}

/// The object of an answer, which is read back with the key that came with it.
pub(super) async fn expect_object(server: &Server, answer: &Answer, bytes: &[u8]) -> Value {
    let object = answer.expect(201).json()["object"].clone();
    assert_eq!(object["size"], bytes.len());
    assert_eq!(object["digest"]["sha-256"], sha256(bytes));
    assert_eq!(object["verified"], "stream");
    let upload = uploaded(answer);
    let url = upload.path("/content");
    let tag = object["etag"].as_str().map(|tag| format!("\"{tag}\""));
    assert_eq!(answer.header("etag"), tag.as_deref());
    let content = server.content(&upload, &[]).await;
    assert!(content.expect(200).body == bytes, "exact_bytes");
    // What is addressed by its content needs no key.
    let shared = object["key"] == sha256(bytes);
    let url = if shared {
        format!("{BASE}/sha256/{}", sha256(bytes))
    } else {
        url
    };
    let link = object["url"].as_str().unwrap();
    if shared {
        assert_eq!(link, url);
    } else {
        assert!(link.starts_with(&format!("{url}?expires=")), "{link}");
    }
    assert_eq!(answer.header("location"), Some(url.as_str()));
    object
}

async fn open_uploads(server: &Server) -> u64 {
    let open = server.running.engine().open_uploads().await;
    open.expect("told")
}

/// Whatever was sent, there is no trace of it.
pub(super) async fn expect_nothing(server: &Server) {
    assert_eq!(open_uploads(server).await, 0);
    assert_eq!(server.stored_files(), [""; 0]);
}

/// The same of a request that got no answer: cleaning up may take its time.
pub(super) async fn soon_nothing(server: &Server) {
    for _ in 0..1000 {
        if open_uploads(server).await == 0 && server.stored_files().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    expect_nothing(server).await;
}

/// Waits until an upload is there, and, where the store has parts, so many of the bytes.
async fn wait_until_it_is_taken(server: &Server) {
    for _ in 0..1000 {
        let begun = server.ground.s3.as_ref().map_or_else(
            || !server.stored_files().is_empty(),
            |s3| !s3.backend().open_uploads().is_empty(),
        );
        if begun && open_uploads(server).await == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it was never begun");
}

fn spooled(server: &Server) -> usize {
    let spool = server.ground.folder.path().join("spool");
    std::fs::read_dir(spool).unwrap().count()
}

#[tokio::test]
async fn a_raw_body() {
    for server in both().await {
        let path = format!("{BASE}?filename=film%201.mp4");
        let fields = [("Content-Type", "video/mp4")];
        let small = server.call("POST", &path, &fields, b"0123456789").await;
        let object = expect_object(&server, &small, b"0123456789").await;
        assert_eq!(object["content_type"], "video/mp4");
        let content = server.content(&uploaded(&small), &[]).await;
        assert_eq!(content.header("content-type"), Some("video/mp4"));
        let disposition = r#"attachment; filename="film 1.mp4""#;
        assert_eq!(content.header("content-disposition"), Some(disposition));
        let bytes = noise(LARGE, 1);
        let known = server.call("POST", BASE, &[], &bytes).await;
        expect_object(&server, &known, &bytes).await;
        let unknown = post_coded(&server, BASE, &[], &bytes).await;
        expect_object(&server, &unknown, &bytes).await;
        let empty = server.call("POST", BASE, &[], b"").await;
        expect_object(&server, &empty, b"").await;
        let empty = post_coded(&server, BASE, &[], b"").await;
        expect_object(&server, &empty, b"").await;
        assert_eq!((open_uploads(&server).await, spooled(&server)), (0, 0));
    }
}

#[tokio::test]
async fn exact_bytes_what_is_told_is_held_against_what_comes() {
    for server in both().await {
        let bytes = noise(LARGE, 2);
        let told =
            |size: usize, digest: &str| format!("{BASE}?size={size}&digest=sha-256:{digest}");
        let right = told(bytes.len(), &sha256(&bytes));
        let known = server.call("POST", &right, &[], &bytes).await;
        expect_object(&server, &known, &bytes).await;
        let unknown = post_coded(&server, &right, &[], &bytes).await;
        let upload = uploaded(&unknown);
        expect_object(&server, &unknown, &bytes).await;
        for (size, digest, status, code) in [
            (bytes.len() - 1, sha256(&bytes), 409, "range_mismatch"),
            (bytes.len() + 1, sha256(&bytes), 409, "range_mismatch"),
            (bytes.len(), sha256(b"other"), 422, "digest_mismatch"),
        ] {
            let before = server.stored_files();
            let path = told(size, &digest);
            let wrong = post_coded(&server, &path, &[], &bytes).await;
            wrong.expect_problem(status, code);
            assert_eq!(wrong.header("upload-offset"), None, "there is none");
            let wrong = server.call("POST", &path, &[], &bytes).await;
            wrong.expect_problem(status, code);
            assert_eq!(server.stored_files(), before);
            assert_eq!(open_uploads(&server).await, 0);
        }
        server.content(&upload, &[]).await.expect(200);
        let wrong = [("Repr-Digest", "crc32c=:AAAAAQ==:")];
        let wrong = server.call("POST", BASE, &wrong, b"x").await;
        wrong.expect_problem(422, "digest_mismatch");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_comes_or_in_the_middle() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let server = Server::start(ground, |config| {
            config.objects.max_size_bytes = 6 * MIB;
        })
        .await;
        let most = noise(6 * MIB, 3);
        let more = noise(6 * MIB + 1, 3);
        let size = format!("{BASE}?size={}", more.len());
        for refused in [
            server.call("POST", BASE, &[], &more).await,
            post_coded(&server, BASE, &[], &more).await,
            post_coded(&server, &size, &[], b"").await,
            server
                .call("POST", BASE, &[FORM], &form(&[], "a", &more))
                .await,
            post_coded(&server, BASE, &[FORM], &form(&[], "a", &more)).await,
        ] {
            refused.expect_problem(413, "upload_limit");
            assert_eq!(refused.json()["max_size"], 6 * MIB);
        }
        expect_nothing(&server).await;
        let taken = post_coded(&server, BASE, &[FORM], &form(&[], "a", &most)).await;
        expect_object(&server, &taken, &most).await;
    }
}

#[tokio::test]
async fn nobody_is_invited_to_send_what_is_refused() {
    let server = Server::with(|config| config.objects.max_size_bytes = MIB).await;
    let ask = async |path: &str, length: &str, fields: &[(&str, &str)]| {
        let mut connection = server.connect().await;
        let mut fields = fields.to_vec();
        fields.extend([("Content-Length", length), ("Expect", "100-continue")]);
        connection.head("POST", path, &fields).await;
        connection
    };
    let zeros = "0".repeat(64);
    for (path, length, status) in [
        ("/v1/objects", "1048577", 413),
        ("/v1/objects?size=5", "6", 409),
        ("/v1/objects?size=1048577", "6", 413),
        ("/v1/objects?colour=red", "6", 400),
        ("/v1/objects?filename=a%00b", "6", 400),
        ("/v1/objects?digest=sha-256:00", "6", 400),
    ] {
        let refused = ask(path, length, &[]).await.answer().await;
        assert_eq!((refused.status, refused.informational), (status, vec![]));
    }
    let mut form = ask(BASE, "1114113", &[FORM]).await;
    assert_eq!(form.answer().await.informational, [0; 0]);
    let mut full = ask(BASE, "6", &[]).await;
    full.expect_continue().await;
    full.send(b"123456").await.unwrap();
    full.answer().await.expect(201);
    let path = format!("{BASE}?digest=sha-256:{zeros}");
    let mut wrong = ask(&path, "6", &[]).await;
    wrong.expect_continue().await;
    wrong.send(b"123456").await.unwrap();
    wrong.answer().await.expect(422);
}

#[tokio::test]
async fn what_the_disk_has_no_room_for_is_not_invited() {
    let server = Server::with(|config| config.spool.min_free_bytes = 1 << 60).await;
    let mut connection = server.connect().await;
    let fields = [("Content-Length", "6"), ("Expect", "100-continue")];
    connection.head("POST", BASE, &fields).await;
    let refused = connection.answer().await;
    refused.expect_problem(503, "store_unavailable");
    assert_eq!(refused.informational, [0; 0]);
    assert_eq!(open_uploads(&server).await, 0);
}

#[tokio::test]
async fn what_is_malformed_is_named() {
    let server = Server::fs().await;
    for (query, part) in [
        ("colour=red&size=1", "colour"),
        ("size=many", "size"),
        ("digest=sha256:00", "sha256"),
        ("stage=perhaps", "stage"),
        ("filename=a%0D%0Ab", "control"),
    ] {
        let refused = server
            .call("POST", &format!("{BASE}?{query}"), &[], b"x")
            .await;
        refused.expect_problem(400, "bad_request");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains(part), "{detail}");
    }
    let refused = server
        .call("POST", BASE, &[("Content-Type", "jpeg")], b"x")
        .await;
    refused.expect_problem(400, "bad_request");
    expect_nothing(&server).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing() {
    for server in both().await {
        let bytes = noise(LARGE, 4);
        let half = &bytes[..bytes.len() / 2];
        let length = bytes.len().to_string();
        let mut known = server.connect().await;
        let fields = [("Content-Length", length.as_str())];
        known.head("POST", BASE, &fields).await;
        known.send(half).await.unwrap();
        wait_until_it_is_taken(&server).await;
        drop(known);
        soon_nothing(&server).await;
        let staged = format!("{BASE}?stage=true");
        for path in [BASE, &staged] {
            let mut unknown = begin(&server, path, &[]).await;
            unknown.send_coded(half).await.unwrap();
            wait_until_it_is_taken(&server).await;
            assert_eq!(spooled(&server), 0, "nothing is put by");
            drop(unknown);
            soon_nothing(&server).await;
        }
        let mut in_form = begin(&server, BASE, &[FORM]).await;
        let (before, after) = around(&[], "a");
        in_form.send_coded(before.as_bytes()).await.unwrap();
        in_form.send_coded(&bytes).await.unwrap();
        wait_until_it_is_taken(&server).await;
        // All of the file, and not all of the form.
        in_form
            .send_coded(&after.as_bytes()[..after.len() - 4])
            .await
            .unwrap();
        drop(in_form);
        soon_nothing(&server).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_leaves_nothing() {
    for server in both().await {
        let client = H2::open(server.main).await;
        let (feed, answer) = client.begin("POST", BASE, &[]);
        feed.send(Bytes::from(noise(LARGE, 5))).unwrap();
        wait_until_it_is_taken(&server).await;
        answer.abort();
        soon_nothing(&server).await;
        // The connection is good for more.
        let bytes = noise(LARGE, 6);
        let (feed, answer) = client.begin("POST", BASE, &[]);
        feed.send(Bytes::from(bytes.clone())).unwrap();
        drop(feed);
        let taken = answer.await.unwrap().expect("an answer");
        expect_object(&server, &taken, &bytes).await;
    }
}

#[tokio::test]
async fn a_body_that_stalls_leaves_nothing() {
    let server = Server::with(|config| config.server.body_stall_secs = 1).await;
    let mut connection = begin(&server, BASE, &[]).await;
    connection.send_coded(b"some").await.unwrap();
    let stalled = connection.answer().await;
    stalled.expect_problem(400, "bad_request");
    assert_eq!(stalled.header("connection"), Some("close"));
    expect_nothing(&server).await;
    let mut before_the_file = begin(&server, BASE, &[FORM]).await;
    before_the_file.send_coded(b"--front").await.unwrap();
    let stalled = before_the_file.answer().await;
    stalled.expect_problem(400, "bad_request");
    expect_nothing(&server).await;
}

#[tokio::test]
async fn a_body_that_the_server_cuts_when_it_ends_leaves_nothing() {
    for server in both().await {
        let mut connection = begin(&server, BASE, &[]).await;
        connection.send_coded(&noise(6 * MIB, 7)).await.unwrap();
        wait_until_it_is_taken(&server).await;
        server.running.drain();
        let cut = connection.answer().await;
        cut.expect_problem(503, "store_unavailable");
        let Server {
            running, ground, ..
        } = server;
        running.finished().await;
        let staged = std::fs::read_dir(ground.folder.path().join("staging"));
        assert_eq!(staged.map_or(0, Iterator::count), 0);
        if let Some(s3) = ground.s3 {
            assert_eq!(s3.backend().open_uploads(), []);
        }
    }
}

#[tokio::test]
async fn a_form() {
    for server in both().await {
        for bytes in [noise(LARGE, 8), b"--frontier\r\n".to_vec(), Vec::new()] {
            let plain = form(&[], "a b.jpg", &bytes);
            let taken = server.call("POST", BASE, &[FORM], &plain).await;
            let object = expect_object(&server, &taken, &bytes).await;
            assert_eq!(object["content_type"], "image/jpeg");
            let content = server.content(&uploaded(&taken), &[]).await;
            let disposition = r#"attachment; filename="a b.jpg""#;
            assert_eq!(content.header("content-disposition"), Some(disposition));
            let size = bytes.len().to_string();
            let digest = format!("sha-256:{}", sha256(&bytes));
            let fields = [
                ("size", size.as_str()),
                ("album", "1"),
                ("filename", "c.jpg"),
                ("digest", &digest),
            ];
            let told = form(&fields, "a.jpg", &bytes);
            let taken = post_coded(&server, BASE, &[FORM], &told).await;
            expect_object(&server, &taken, &bytes).await;
            let status = server.status(&uploaded(&taken)).await;
            assert_eq!(status["filename"], "c.jpg");
        }
        assert_eq!((open_uploads(&server).await, spooled(&server)), (0, 0));
    }
}

#[tokio::test]
async fn exact_bytes_a_form_counts_whole_or_not_at_all() {
    for server in both().await {
        let bytes = noise(6 * MIB, 9);
        let whole = form(&[], "a", &bytes);
        let (_, after) = around(&[], "a");
        let until_the_end = &whole[..whole.len() - after.len()];
        let two = [until_the_end, b"\r\n", &whole].concat();
        let none = form(&[], "", b"");
        let late = b"\r\n--frontier\r\nContent-Disposition: form-data; name=\"size\"\r\n\r\n1\r\n--frontier--";
        let late = [until_the_end, late].concat();
        let tabbed = form(&[], "a\tb", b"x");
        let cut_short = &whole[..whole.len() - 4];
        for (wrong, status, part) in [
            (two.as_slice(), 400, "second file"),
            (&none, 400, "no file"),
            (b"--frontier--\r\n", 400, "no file"),
            (b"no form at all", 400, "malformed"),
            (until_the_end, 400, "malformed"),
            (cut_short, 400, "malformed"),
            (&late, 400, "before the file"),
            (&tabbed, 400, "control characters"),
            (&form(&[("size", "5")], "a", &bytes), 409, "more than the 5"),
            (&form(&[("size", "7000000")], "a", &bytes), 409, "size says"),
            (&form(&[("digest", "md5:00")], "a", &bytes), 400, "md5"),
            (
                &form(&[("digest", "crc32c:00000001")], "a", &bytes),
                422,
                "crc32c",
            ),
        ] {
            let refused = server.call("POST", BASE, &[FORM], wrong).await;
            assert_eq!(refused.status, status, "{part}: {}", refused.text());
            let detail = refused.json()["detail"].to_string();
            assert!(detail.contains(part), "{part}: {detail}");
            expect_nothing(&server).await;
        }
        // Shorter than it said, where nothing tells before.
        let short = form(&[("size", "7000000")], "a", &bytes);
        let short = post_coded(&server, BASE, &[FORM], &short).await;
        short.expect_problem(409, "range_mismatch");
        expect_nothing(&server).await;
        let other = [("Content-Type", "multipart/form-data")];
        let other = server.call("POST", BASE, &other, &whole).await;
        other.expect_problem(400, "bad_request");
    }
}

async fn stage(server: &Server, query: &str, bytes: &[u8]) -> Upload {
    let path = format!("{BASE}?stage=true{query}");
    let staged = post_coded(server, &path, &[], bytes).await;
    let json = staged.expect(201).json();
    let length = bytes.len() as u64;
    let received: &[[u64; 2]] = if length > 0 { &[[0, length]] } else { &[] };
    assert_eq!(json["received"], serde_json::json!(received));
    assert_eq!(json["length"], length);
    assert_eq!(json["chunk_size"], 5 * MIB);
    assert_eq!(json["max_parallel_chunks"], 4);
    let upload = uploaded(&staged);
    assert_eq!(staged.header("location"), Some(upload.path("").as_str()));
    let status = server.status(&upload).await;
    assert_eq!(status["expires_at"], json["expires_at"]);
    assert_eq!(
        (&status["length"], &status["offset"]),
        (&length.into(), &length.into())
    );
    upload
}

#[tokio::test]
async fn staged_and_then_completed_or_aborted() {
    for server in both().await {
        for bytes in [noise(LARGE, 10), b"small".to_vec(), Vec::new()] {
            let upload = stage(&server, "&filename=a.bin", &bytes).await;
            let early = server.content(&upload, &[]).await;
            early.expect_problem(409, "upload_incomplete");
            // It is kept for its client as long as any.
            server.clock.advance(Duration::from_hours(24 * 2));
            server.prune().await;
            let completed = server.complete(&upload).await;
            let object = &completed.expect(201).json()["object"];
            assert_eq!(object["digest"]["sha-256"], sha256(&bytes));
            assert_eq!(object["verified"], "stream");
            assert!(server.content(&upload, &[]).await.body == bytes);
            let before = server.stored_files();
            let upload = stage(&server, "", &bytes).await;
            server.abort(&upload).await.expect(204);
            assert_eq!(server.stored_files(), before);
        }
        let wrong = format!("{BASE}?stage=true&digest=sha-256:{}", "0".repeat(64));
        let wrong = server.call("POST", &wrong, &[], b"x").await;
        wrong.expect_problem(422, "digest_mismatch");
        assert_eq!(open_uploads(&server).await, 0);
    }
}

/// The store is away when everything has come: nobody has to send it again.
#[tokio::test]
async fn what_cannot_be_completed_yet_is_completed_later() {
    use jumar::store::call::Call;
    use jumar::store::faulty::{Fault, When};
    let server = Server::s3().await;
    let bytes = noise(LARGE, 11);
    server
        .faults
        .fail(Call::Finish, When::Always, Fault::Unavailable);
    let waits = server.call("POST", BASE, &[], &bytes).await;
    let json = waits.expect(202).json();
    assert_eq!(json["state"], "assembling");
    assert!(waits.header("retry-after").is_some());
    let upload = uploaded(&waits);
    assert_eq!(waits.header("location"), Some(upload.path("").as_str()));
    server.faults.heal();
    server.complete(&upload).await;
    let status = server.status(&upload).await;
    assert_eq!(status["state"], "completed", "{status}");
    assert!(server.content(&upload, &[]).await.body == bytes);
}

/// Where objects are addressed by their content, the same bytes are one object, however they came.
#[tokio::test]
async fn the_same_bytes_again() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let server = Server::start(ground, |config| config.store.key = "{sha256}".into()).await;
        for bytes in [noise(LARGE, 12), b"small".to_vec()] {
            let first = server.call("POST", BASE, &[], &bytes).await;
            let again = post_coded(&server, BASE, &[FORM], &form(&[], "a", &bytes)).await;
            for (answer, deduplicated) in [(&first, false), (&again, true)] {
                let object = expect_object(&server, answer, &bytes).await;
                assert_eq!(object["key"], sha256(&bytes));
                assert_eq!(answer.json()["deduplicated"] == true, deduplicated);
            }
        }
        assert_eq!((open_uploads(&server).await, spooled(&server)), (0, 0));
        assert_eq!(server.stored_files().len(), 2);
    }
}

#[tokio::test]
async fn what_it_answers_to() {
    let server = Server::fs().await;
    let options = server.call("OPTIONS", BASE, &[], b"").await;
    assert_eq!(options.expect(204).header("allow"), Some("POST,OPTIONS"));
    let other = server.call("PUT", BASE, &[], b"x").await;
    other.expect_problem(405, "method_not_allowed");
    let page = ("Origin", "https://page.example");
    let preflight = [page, ("Access-Control-Request-Method", "POST")];
    let preflight = server.call("OPTIONS", BASE, &preflight, b"").await;
    assert!(preflight.header("access-control-allow-methods").is_some());
    let taken = server.call("POST", BASE, &[page], b"x").await;
    assert_eq!(
        taken.expect(201).header("access-control-allow-origin"),
        Some("*")
    );
    let mut admin = Connection::open(server.admin).await;
    let figures = admin.call("GET", "/metrics", &[], b"").await.text();
    for series in [
        r#"jumar_received_bytes_total{protocol="objects"}"#,
        r#"jumar_uploads_total{protocol="objects",event="completed"}"#,
        r#"jumar_request_duration_seconds_count{route="/v1/objects",status="201"}"#,
    ] {
        assert!(figures.contains(series), "{series}");
    }
}
