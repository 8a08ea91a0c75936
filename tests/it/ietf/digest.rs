//! Digests of the whole and of one request's content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha512};

use super::{newest, url_of};
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both};

fn sha256(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)))
}

#[tokio::test]
async fn the_right_digest_of_the_whole() {
    for server in both().await {
        let client = newest(&server);
        let sha512 = STANDARD.encode(Sha512::digest(b"12345"));
        let both = format!("{}, sha-512=:{sha512}:", sha256(b"12345"));
        let fields = [("Repr-Digest", both.as_str())];
        let begun = client.create_with(false, &fields, b"123").await;
        let url = url_of(begun.expect(201));
        let done = client.append(&url, 3, true, b"45").await;
        done.expect(201);
        assert_eq!(done.header("Repr-Digest"), Some(both.as_str()));
    }
}

#[tokio::test]
async fn a_wrong_digest_of_the_whole_fails_the_upload() {
    for server in both().await {
        let client = newest(&server);
        let wrong = sha256(b"other");
        let fields = [("Repr-Digest", wrong.as_str())];
        let at_once = client.create_with(true, &fields, b"12345").await;
        let begun = client.create_with(false, &fields, b"123").await;
        let url = url_of(begun.expect(201));
        let at_last = client.append(&url, 3, true, b"45").await;
        for failed in [at_once, at_last] {
            failed.expect_problem(422, "digest_mismatch");
            assert_eq!(
                failed.header("Upload-Complete"),
                Some("?1"),
                "it is the outcome"
            );
            assert_eq!(failed.header("Upload-Offset"), None);
        }
        client.head(&url).await.expect(410);
        client.get(&url).await.expect_problem(410, "upload_failed");
        assert_eq!(server.stored_files(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn content_counts_if_it_has_its_digest() {
    for server in both().await {
        let client = newest(&server);
        let bytes = noise(6 * MIB, 7);
        let right = sha256(&bytes);
        let fields = [("Content-Digest", right.as_str())];
        let begun = client.create_with(false, &fields, &bytes).await;
        assert_eq!(begun.expect(201).offset(), bytes.len() as u64);
        let url = url_of(&begun);
        let right = sha256(b"more");
        let fields = [("Content-Digest", right.as_str())];
        let offset = bytes.len() as u64;
        let done = client.append_with(&url, offset, true, &fields, b"more");
        done.await.expect(201);
    }
}

#[tokio::test]
async fn content_with_a_wrong_digest_counts_for_nothing() {
    for server in both().await {
        let client = newest(&server);
        let wrong = sha256(b"other");
        let fields = [("Content-Digest", wrong.as_str())];
        let url = client.begun(b"123").await;
        for last in [false, true] {
            let refused = client.append_with(&url, 3, last, &fields, b"45").await;
            refused.expect_problem(422, "digest_mismatch");
            assert_eq!(refused.header("Upload-Complete"), Some("?0"));
            assert_eq!(refused.offset(), 3);
        }
        let refused = client.create_with(true, &fields, b"45").await;
        refused.expect_problem(422, "digest_mismatch");
        assert_eq!(refused.header("Upload-Complete"), Some("?0"));
        assert_eq!(refused.offset(), 0);
        let again = client.append(&url_of(&refused), 0, true, b"45").await;
        again.expect(201);
        client.append(&url, 3, true, b"45").await.expect(201);
        assert_eq!(client.get(&url).await.body, b"12345");
    }
}

#[tokio::test]
async fn a_wanted_digest_is_given() {
    let server = Server::fs().await;
    let fields = [("Want-Repr-Digest", "sha-256=9")];
    let done = newest(&server).create_with(true, &fields, b"12345").await;
    let expected = sha256(b"12345");
    assert_eq!(
        done.expect(201).header("Repr-Digest"),
        Some(expected.as_str())
    );
    let conventional = server.call("PUT", "/resumable", &[], b"12345").await;
    assert_eq!(conventional.header("Repr-Digest"), Some(expected.as_str()));
}
