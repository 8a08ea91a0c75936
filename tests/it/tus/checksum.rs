//! Checksums of a body, before it and after it.

use jumar::store::faulty::{Fault, When};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use super::kit::{
    BYTES, CHUNKED, base64, begin, begin_patch, completed, content, create_of, finishing_fails,
    offset, patch, patch_with, post_bytes, sound,
};
use crate::support::http::Answer;
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both};

fn sha1(bytes: &[u8]) -> String {
    format!("sha1 {}", base64(Sha1::digest(bytes)))
}

async fn checked(server: &Server, url: &str, at: u64, checksum: &str, bytes: &[u8]) -> Answer {
    patch_with(server, url, at, &[("Upload-Checksum", checksum)], bytes).await
}

#[tokio::test]
async fn checksum_of_each_algorithm_is_compared() {
    for server in both().await {
        let bytes = b"123456789";
        for sum in [
            sha1(bytes),
            format!("sha256 {}", base64(Sha256::digest(bytes))),
            format!("sha512 {}", base64(Sha512::digest(bytes))),
            format!("md5 {}", base64(Md5::digest(bytes))),
            // The check value of CRC-32C.
            format!("crc32c {}", base64(0xe306_9283_u32.to_be_bytes())),
        ] {
            let url = create_of(&server, 9).await;
            let wrong = checked(&server, &url, 0, &sum, b"12345678X").await;
            wrong.expect_problem(460, "digest_mismatch");
            assert_eq!(offset(&server, &url).await, 0, "{sum}");
            let right = checked(&server, &url, 0, &sum, bytes).await;
            assert_eq!(right.expect(204).offset(), 9, "{sum}");
        }
    }
}

#[tokio::test]
async fn checksum_unknown_or_malformed_is_400_and_nothing_counts() {
    let server = Server::fs().await;
    let url = create_of(&server, 9).await;
    for wrong in [
        "",
        "sha1",
        "sha1 ",
        "sha1 AAAA",
        "sha1 *",
        "crc32 AAAAAQ==",
        "SHA1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "sha-256 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ] {
        let refused = checked(&server, &url, 0, wrong, b"123456789").await;
        refused.expect_problem(400, "bad_request");
    }
    let sum = sha1(b"123456789");
    let twice = [("Upload-Checksum", sum.as_str()); 2];
    let twice = patch_with(&server, &url, 0, &twice, b"123456789").await;
    twice.expect_problem(400, "bad_request");
    assert_eq!(offset(&server, &url).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksum_of_64_mib_that_is_wrong_counts_for_nothing() {
    for server in both().await {
        let bytes = noise(64 * MIB, 5);
        let url = create_of(&server, 64 * MIB + 1).await;
        patch(&server, &url, 0, b"1").await.expect(204);
        let wrong = checked(&server, &url, 1, &sha1(b"else"), &bytes).await;
        wrong.expect_problem(460, "digest_mismatch");
        assert_eq!(offset(&server, &url).await, 1);
        let right = checked(&server, &url, 1, &sha1(&bytes), &bytes).await;
        assert_eq!(right.expect(204).offset(), 64 * MIB + 1);
        let content = content(&server, &url).await;
        assert!(content.expect(200).body[1..] == bytes);
    }
}

#[tokio::test]
async fn checksum_of_a_body_that_was_cut_counts_for_nothing() {
    for server in both().await {
        let url = create_of(&server, 9).await;
        let sum = sha1(b"123456789");
        let fields = [("Upload-Checksum", sum.as_str()), ("Content-Length", "9")];
        let mut cut = begin_patch(&server, &url, 0, &fields).await;
        cut.send(b"12345").await.unwrap();
        cut.half_close().await;
        sound(cut.answer().await).expect_problem(400, "bad_request");
        assert_eq!(offset(&server, &url).await, 0);
    }
}

#[tokio::test]
async fn checksum_of_more_than_is_hashed_at_once_is_413() {
    let server = Server::with(|config| {
        config.uploads.max_size_bytes = 20 * MIB;
        config.uploads.max_checksummed_chunk_bytes = 1000;
    })
    .await;
    let bytes = noise(1001, 6);
    let url = create_of(&server, 10 * MIB).await;
    patch(&server, &url, 0, &noise(5000, 6)).await.expect(204);
    let refused = checked(&server, &url, 5000, &sha1(&bytes), &bytes).await;
    refused.expect_problem(413, "upload_limit");
    assert_eq!(refused.json()["max_size"], 1000);
    assert_eq!(offset(&server, &url).await, 5000);
}

#[tokio::test]
async fn checksum_with_a_creation_refuses_it_if_it_differs() {
    for server in both().await {
        let sum = sha1(b"12345");
        let fields = [("Upload-Length", "5"), ("Upload-Checksum", sum.as_str())];
        let wrong = post_bytes(&server, &fields, b"1234X").await;
        wrong.expect_problem(460, "digest_mismatch");
        assert_eq!(server.running.engine().open_uploads().await.unwrap(), 0);
        let right = post_bytes(&server, &fields, b"12345").await;
        assert_eq!(right.expect(201).offset(), 5);
    }
}

/// A chunked body and these lines after it.
async fn trailed(server: &Server, url: &str, at: u64, body: &[u8], trailers: &[&str]) -> Answer {
    let fields = [CHUNKED, ("Trailer", "X-Other, Upload-Checksum")];
    let mut connection = begin_patch(server, url, at, &fields).await;
    for piece in body.chunks(4) {
        connection.send_coded(piece).await.unwrap();
    }
    let end = format!("0\r\n{}\r\n", trailers.concat());
    connection.send(end.as_bytes()).await.unwrap();
    sound(connection.answer().await)
}

#[tokio::test]
async fn checksum_trailer_is_compared() {
    for server in both().await {
        let url = create_of(&server, 9).await;
        let line = format!("Upload-Checksum: {}\r\n", sha1(b"123456789"));
        let other = "X-Other: 1\r\n";
        let wrong = trailed(&server, &url, 0, b"12345678X", &[other, &line]).await;
        wrong.expect_problem(460, "digest_mismatch");
        assert_eq!(offset(&server, &url).await, 0);
        let right = trailed(&server, &url, 0, b"123456789", &[other, &line]).await;
        assert_eq!(right.expect(204).offset(), 9);
        assert_eq!(content(&server, &url).await.body, b"123456789");
        let mut creation = begin(
            &server,
            "POST",
            "/files",
            &[
                BYTES,
                CHUNKED,
                ("Trailer", "Upload-Checksum"),
                ("Upload-Length", "9"),
            ],
        )
        .await;
        creation.send_coded(b"123456789").await.unwrap();
        let end = format!("0\r\n{line}\r\n");
        creation.send(end.as_bytes()).await.unwrap();
        assert_eq!(sound(creation.answer().await).expect(201).offset(), 9);
    }
}

#[tokio::test]
async fn checksum_trailer_missing_doubled_malformed_or_beside_a_header_is_400() {
    for server in both().await {
        let url = create_of(&server, 9).await;
        let line = format!("Upload-Checksum: {}\r\n", sha1(b"123456789"));
        for wrong in [
            &[][..],
            &["X-Other: 1\r\n"],
            &[&line, &line],
            &["Upload-Checksum: sha1\r\n"],
            &["Upload-Checksum: crc32 AAAAAQ==\r\n"],
        ] {
            let refused = trailed(&server, &url, 0, b"123456789", wrong).await;
            assert_eq!(refused.status, 400, "{wrong:?}: {}", refused.text());
            refused.expect_problem(400, "bad_request");
            assert_eq!(offset(&server, &url).await, 0);
        }
        let sum = sha1(b"123456789");
        let both = [
            ("Upload-Checksum", sum.as_str()),
            ("Trailer", "Upload-Checksum"),
        ];
        let both = patch_with(&server, &url, 0, &both, b"123456789").await;
        both.expect_problem(400, "bad_request");
        // Nothing can follow a body of a known length.
        let none = [("Trailer", "Upload-Checksum")];
        let none = patch_with(&server, &url, 0, &none, b"123456789").await;
        none.expect_problem(400, "bad_request");
        assert_eq!(offset(&server, &url).await, 0);
    }
}

#[tokio::test]
async fn checksum_is_compared_before_the_upload_is_completed() {
    for server in both().await {
        finishing_fails(&server, When::Next(1), Fault::Unavailable);
        let url = create_of(&server, 9).await;
        let wrong = checked(&server, &url, 0, &sha1(b""), b"123456789").await;
        wrong.expect_problem(460, "digest_mismatch");
        assert_eq!(server.faults.count(jumar::store::call::Call::Publish), 0);
        assert_eq!(server.faults.count(jumar::store::call::Call::Put), 0);
        server.faults.heal();
        let url = completed(&server, &[], b"12345").await;
        let empty = checked(&server, &url, 5, &sha1(b""), b"").await;
        assert_eq!(empty.expect(204).offset(), 5);
    }
}
