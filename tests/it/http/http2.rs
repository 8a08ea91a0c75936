//! The same over HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::support::h2::H2;
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both, uploaded};

#[tokio::test]
async fn an_upload_in_chunks_beside_each_other() {
    for server in both().await {
        let client = H2::open(server.main).await;
        let created = client.call("POST", "/v1/uploads", &[], b"{}").await;
        let upload = uploaded(created.expect(201));
        let bytes = noise(7 * MIB, 1);
        let key = ("upload-key", upload.key.as_str());
        let path = upload.path("/chunk");
        let put = async |start: usize, end: usize| {
            let range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
            let fields = [key, ("content-range", &range)];
            client
                .call("PUT", &path, &fields, &bytes[start..end])
                .await
                .expect(204);
        };
        tokio::join!(
            put(0, 3_000_000),
            put(3_000_000, 6_000_000),
            put(6_000_000, bytes.len())
        );
        let digest = json!({"length": bytes.len()}).to_string();
        let complete = client
            .call("POST", &upload.path("/complete"), &[key], digest.as_bytes())
            .await;
        complete.expect(201);
        let content = client
            .call("GET", &upload.path("/content"), &[key], b"")
            .await;
        assert!(content.expect(200).body == bytes);
        let head = client.call("HEAD", &upload.path(""), &[key], b"").await;
        assert_eq!((head.status, head.offset()), (200, 7 * MIB));
    }
}

#[tokio::test]
async fn a_body_that_ends_early_keeps_what_came() {
    for server in both().await {
        let client = H2::open(server.main).await;
        let upload = server.create_of(100).await;
        let path = upload.path("/chunk");
        // By its end, and by the stream's reset.
        for (from, sent, ends) in [("0", 40, true), ("40", 20, false)] {
            let range = format!("bytes {from}-99/100");
            let fields = [
                ("upload-key", upload.key.as_str()),
                ("content-range", &range),
            ];
            let (feed, answer) = client.begin("PUT", &path, &fields);
            feed.send(Bytes::from(vec![1; sent])).unwrap();
            server
                .wait_for_offset(&upload, from.parse::<u64>().unwrap() + sent as u64)
                .await;
            if ends {
                drop(feed);
                let short = answer.await.unwrap().expect("an answer");
                short.expect_problem(409, "range_mismatch");
                assert_eq!(short.offset(), 40);
            } else {
                answer.abort();
                let put = server.put(&upload, 60, &[1; 40], 100).await;
                assert_eq!(put.expect(204).offset(), 100);
            }
        }
    }
}

#[tokio::test]
async fn an_early_refusal() {
    let server = Server::with(|config| config.uploads.max_size_bytes = MIB).await;
    let upload = server.create(&json!({})).await;
    let client = H2::open(server.main).await;
    let large = vec![0; 30 << 20];
    let range = format!("bytes 0-{}/*", large.len() - 1);
    let fields = [
        ("upload-key", upload.key.as_str()),
        ("content-range", &range),
    ];
    let refused = client
        .call("PUT", &upload.path("/chunk"), &fields, &large)
        .await;
    refused.expect_problem(413, "upload_limit");
    // The connection is good for more, again and again: no window was lost.
    for _ in 0..3 {
        let refused = client
            .call("PUT", &upload.path("/chunk"), &fields, &large)
            .await;
        refused.expect_problem(413, "upload_limit");
    }
    client.call("GET", "/healthz", &[], b"").await.expect(200);
}

#[tokio::test]
async fn a_displaced_request_and_large_heads() {
    let server = Server::fs().await;
    let upload = server.create_of(100).await;
    let client = H2::open(server.main).await;
    let fields = [
        ("upload-key", upload.key.as_str()),
        ("content-range", "bytes 0-99/100"),
    ];
    let (feed, answer) = client.begin("PUT", &upload.path("/chunk"), &fields);
    feed.send(Bytes::from_static(&[1; 50])).unwrap();
    server.wait_for_offset(&upload, 50).await;
    let ask = server.put_with(&upload, "bytes */100", &[], b"").await;
    assert_eq!(ask.expect(204).offset(), 50);
    let displaced = tokio::time::timeout(Duration::from_secs(20), answer).await;
    let displaced = displaced.expect("in time").unwrap().expect("an answer");
    displaced.expect_problem(409, "displaced");
    let large = "x".repeat(60 << 10);
    client
        .call("GET", "/healthz", &[("x-large", &large)], b"")
        .await
        .expect(200);
    let larger = "x".repeat(70 << 10);
    let refused = client
        .call("GET", "/healthz", &[("x-large", &larger)], b"")
        .await;
    refused.expect_problem(431, "head_too_large");
    client.call("GET", "/healthz", &[], b"").await.expect(200);
}
