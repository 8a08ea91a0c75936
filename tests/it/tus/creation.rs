//! Creating uploads, also with their first bytes or without their length, and when they expire.

use std::time::Duration;

use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::kit::{
    BYTES, CHUNKED, DEFERRED, base64, begin, begin_patch, content, create, create_of,
    finishing_fails, head, location, native, offset, patch, patch_with, post, post_bytes, sound,
    wait_for_offset,
};
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both};

async fn uploads(server: &Server) -> u64 {
    server.running.engine().open_uploads().await.unwrap()
}

#[tokio::test]
async fn creation_has_a_length_or_says_that_it_comes_later() {
    for server in both().await {
        let created = post(&server, &[("Upload-Length", "100")]).await;
        created.expect(201);
        assert_eq!(created.header("upload-offset"), None);
        let id = created.header("upload-id").unwrap();
        assert_eq!(id, native(&location(&created)).id);
        post(&server, &[DEFERRED]).await.expect(201);
        let length = ("Upload-Length", "100");
        for wrong in [
            &[][..],
            &[length, DEFERRED],
            &[length, length],
            &[("Upload-Defer-Length", "0")],
            &[("Upload-Defer-Length", "true")],
            &[("Upload-Length", "-1")],
            &[("Upload-Length", "many")],
            &[("Upload-Length", "")],
        ] {
            let refused = post(&server, wrong).await;
            assert_eq!(refused.status, 400, "{wrong:?}");
            refused.expect_problem(400, "bad_request");
        }
        assert_eq!(uploads(&server).await, 2);
    }
}

#[tokio::test]
async fn creation_over_the_limit_is_413() {
    let server = Server::with(|config| config.uploads.max_size_bytes = 100 * MIB).await;
    let most = (100 * MIB).to_string();
    post(&server, &[("Upload-Length", &most)]).await.expect(201);
    for length in ["104857601", "99999999999999999999999"] {
        let refused = post(&server, &[("Upload-Length", length)]).await;
        refused.expect_problem(413, "upload_limit");
        assert_eq!(refused.json()["max_size"], 100 * MIB);
    }
    let open = create(&server, &[DEFERRED]).await;
    let refused = patch_with(&server, &open, 0, &[("Upload-Length", "104857601")], b"1").await;
    refused.expect_problem(413, "upload_limit");
}

#[tokio::test]
async fn creation_of_an_empty_upload_completes_it() {
    for server in both().await {
        for concat in [None, Some(("Upload-Concat", "partial"))] {
            let mut fields = vec![("Upload-Length", "0")];
            fields.extend(concat);
            let created = post(&server, &fields).await;
            assert_eq!(created.expect(201).header("upload-expires"), None);
            let url = location(&created);
            assert_eq!(server.status(&native(&url)).await["state"], "completed");
            assert_eq!(offset(&server, &url).await, 0);
            assert_eq!(patch(&server, &url, 0, b"").await.expect(204).offset(), 0);
            let bytes = post_bytes(&server, &fields, b"").await;
            assert_eq!(bytes.expect(201).offset(), 0);
            let state = server.status(&native(&location(&bytes))).await;
            assert_eq!(state["state"], "completed");
        }
        finishing_fails(&server, When::Always, Fault::Unavailable);
        let away = post(&server, &[("Upload-Length", "0")]).await;
        away.expect_problem(503, "store_unavailable");
    }
}

#[tokio::test]
async fn creation_takes_metadata_that_is_sound() {
    let server = Server::fs().await;
    let huge = format!("a {}", base64(vec![b'x'; 4096]));
    let control = format!("filename {}", base64("a\nb"));
    for wrong in [
        "a YQ",
        "a *",
        "a YQ==,a YQ==",
        "a YQ==,",
        ",",
        "a  YQ==",
        "a YQ== YQ==",
        "\u{e9} YQ==",
        huge.as_str(),
        control.as_str(),
    ] {
        let fields = [("Upload-Length", "1"), ("Upload-Metadata", wrong)];
        let refused = post(&server, &fields).await;
        refused.expect_problem(400, "bad_request");
    }
    assert_eq!(uploads(&server).await, 0);
    let huge = format!("a {}", base64(vec![b'x'; 4000]));
    let fields = [("Upload-Length", "1"), ("Upload-Metadata", huge.as_str())];
    let url = create(&server, &fields).await;
    let told = head(&server, &url).await;
    assert_eq!(told.header("upload-metadata"), Some(huge.as_str()));
}

#[tokio::test]
async fn creation_with_upload_tells_how_much_was_taken() {
    for server in both().await {
        let bytes = noise(6 * MIB, 4);
        let length = ("Upload-Length", "6291456");
        let part = post_bytes(&server, &[length], &bytes[..5_500_000]).await;
        assert_eq!(part.expect(201).offset(), 5_500_000);
        assert!(part.header("upload-expires").is_some());
        let url = location(&part);
        assert_eq!(offset(&server, &url).await, 5_500_000);
        let rest = patch(&server, &url, 5_500_000, &bytes[5_500_000..]).await;
        rest.expect(204);
        let whole = post_bytes(&server, &[length], &bytes).await;
        assert_eq!(whole.expect(201).offset(), 6 * MIB);
        assert_eq!(whole.header("upload-expires"), None);
        for url in [url, location(&whole)] {
            assert!(content(&server, &url).await.expect(200).body == bytes);
        }
        let open = post_bytes(&server, &[DEFERRED], b"123").await;
        assert_eq!(open.expect(201).offset(), 3);
        let none = post_bytes(&server, &[length], b"").await;
        assert_eq!(none.expect(201).offset(), 0);
    }
}

#[tokio::test]
async fn creation_with_upload_has_to_fit_and_to_be_of_its_type() {
    for server in both().await {
        let length = ("Upload-Length", "5");
        let beyond = post_bytes(&server, &[length], b"123456").await;
        beyond.expect_problem(413, "range_mismatch");
        let other = ("Content-Type", "application/octet-stream");
        let post_with = async |fields: &[_]| {
            let fields = [fields, &[length]].concat();
            super::kit::ask(&server, "POST", "/files", &fields, b"12345").await
        };
        post_with(&[other])
            .await
            .expect_problem(415, "unsupported_media_type");
        post_with(&[])
            .await
            .expect_problem(415, "unsupported_media_type");
        let chunked = async |fields: &[(&str, &str)], body: &[u8]| {
            let fields = [fields, &[length, CHUNKED]].concat();
            let mut connection = begin(&server, "POST", "/files", &fields).await;
            connection.send_coded(body).await.unwrap();
            if !body.is_empty() {
                connection.send_coded(b"").await.unwrap();
            }
            sound(connection.answer().await)
        };
        chunked(&[other], b"12345")
            .await
            .expect_problem(415, "unsupported_media_type");
        chunked(&[BYTES], b"123456")
            .await
            .expect_problem(413, "range_mismatch");
        assert_eq!(
            uploads(&server).await,
            0,
            "nothing is left of what was refused"
        );
        chunked(&[other], b"").await.expect(201);
        assert_eq!(chunked(&[BYTES], b"12345").await.expect(201).offset(), 5);
    }
}

#[tokio::test]
async fn creation_with_upload_invites_the_body_when_the_upload_is_there() {
    let server = Server::fs().await;
    let fields = [BYTES, ("Content-Length", "5"), ("Expect", "100-continue")];
    let mut refused = begin(&server, "POST", "/files", &fields).await;
    let answer = refused.answer().await;
    answer.expect_problem(400, "bad_request");
    assert!(answer.informational.is_empty());
    let fields = [&fields[..], &[("Upload-Length", "5")]].concat();
    let mut taken = begin(&server, "POST", "/files", &fields).await;
    taken.expect_continue().await;
    assert_eq!(uploads(&server).await, 1);
    taken.send(b"12345").await.unwrap();
    assert_eq!(taken.answer().await.expect(201).offset(), 5);
}

#[tokio::test]
async fn creation_with_upload_in_trouble_still_tells_the_url() {
    let server = Server::fs().await;
    server
        .faults
        .fail(Call::WriteAt, When::Next(1), Fault::Unavailable);
    let created = post_bytes(&server, &[("Upload-Length", "5")], b"12345").await;
    assert_eq!(created.expect(201).offset(), 0);
    let url = location(&created);
    patch(&server, &url, 0, b"12345").await.expect(204);
    for server in both().await {
        // All bytes are there, but it is not certain that it will be complete.
        finishing_fails(&server, When::Always, Fault::Unavailable);
        let created = post_bytes(&server, &[("Upload-Length", "5")], b"12345").await;
        assert_eq!(created.expect(201).header("upload-offset"), None);
        server.faults.heal();
        let url = location(&created);
        assert_eq!(offset(&server, &url).await, 5);
        assert_eq!(content(&server, &url).await.expect(200).body, b"12345");
    }
}

#[tokio::test]
async fn creation_defer_length_is_told_until_a_patch_brings_the_length_which_stays() {
    for server in both().await {
        let url = create(&server, &[DEFERRED]).await;
        patch(&server, &url, 0, b"123").await.expect(204);
        let told = head(&server, &url).await;
        assert_eq!(told.header("upload-defer-length"), Some("1"));
        assert_eq!(told.header("upload-length"), None);
        let less = patch_with(&server, &url, 3, &[("Upload-Length", "2")], b"").await;
        less.expect_problem(413, "range_mismatch");
        let wrong = patch_with(&server, &url, 3, &[("Upload-Length", "x")], b"4").await;
        wrong.expect_problem(400, "bad_request");
        let told = patch_with(&server, &url, 3, &[("Upload-Length", "6")], b"4").await;
        assert_eq!(told.expect(204).offset(), 4);
        let told = head(&server, &url).await;
        assert_eq!(told.header("upload-defer-length"), None);
        assert_eq!(told.header("upload-length"), Some("6"));
        let second = patch_with(&server, &url, 4, &[("Upload-Length", "7")], b"5").await;
        second.expect_problem(400, "range_mismatch");
        let same = patch_with(&server, &url, 4, &[("Upload-Length", "6")], b"56").await;
        assert_eq!(same.expect(204).offset(), 6);
        assert_eq!(content(&server, &url).await.body, b"123456");
        // The length alone may be the last that is missing.
        let url = create(&server, &[DEFERRED]).await;
        patch(&server, &url, 0, b"123").await.expect(204);
        let last = patch_with(&server, &url, 3, &[("Upload-Length", "3")], b"").await;
        assert!(last.expect(204).header("upload-id").is_some());
        assert_eq!(content(&server, &url).await.body, b"123");
    }
}

#[tokio::test]
async fn expiration_is_told_while_incomplete_and_moves_with_each_byte() {
    for server in both().await {
        let created = post(&server, &[("Upload-Length", "5")]).await;
        let at = "Fri, 17 Nov 2023 22:13:20 GMT";
        assert_eq!(created.header("upload-expires"), Some(at));
        let url = location(&created);
        server.clock.advance(Duration::from_mins(1));
        let written = patch(&server, &url, 0, b"12").await;
        let later = "Fri, 17 Nov 2023 22:14:20 GMT";
        assert_eq!(written.header("upload-expires"), Some(later));
        assert_eq!(
            head(&server, &url).await.header("upload-expires"),
            Some(later)
        );
        let last = patch(&server, &url, 2, b"345").await;
        assert_eq!(last.header("upload-expires"), None);
        assert_eq!(head(&server, &url).await.header("upload-expires"), None);
        server.let_expire();
        assert_eq!(
            offset(&server, &url).await,
            5,
            "what is complete does not expire"
        );
    }
}

/// Somebody who writes keeps it alive, and nobody else does.
#[tokio::test]
async fn expiration_afterwards_is_410() {
    for server in both().await {
        let url = create_of(&server, 10).await;
        let mut writer = begin_patch(&server, &url, 0, &[("Content-Length", "10")]).await;
        writer.send(b"12345").await.unwrap();
        wait_for_offset(&server, &url, 5).await;
        server.clock.advance(Duration::from_hours(80));
        writer.send(b"67890").await.unwrap();
        sound(writer.answer().await).expect(204);
        let url = create_of(&server, 10).await;
        patch(&server, &url, 0, b"1").await.expect(204);
        server.let_expire();
        for _ in 0..2 {
            let gone = head(&server, &url).await;
            assert_eq!(gone.expect(410).header("upload-offset"), None);
            patch(&server, &url, 1, b"2").await.expect(410);
            server.prune().await;
        }
    }
}
