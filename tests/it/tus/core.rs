//! The core protocol.

use std::time::Duration;

use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::kit::{
    BYTES, CHUNKED, DEFERRED, VERSION, ask, begin_patch, completed, content, create, create_of,
    delete, head, native, offset, patch, patch_with, post, sound, wait_for_offset,
};
use crate::support::h2::H2;
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both};

#[tokio::test]
async fn core_every_answer_has_the_version_and_pages_can_read_it() {
    let server = Server::fs().await;
    let url = create_of(&server, 1).await;
    let long = "x".repeat(100 << 10);
    for (method, path, field, status) in [
        ("OPTIONS", "/files", VERSION, 204),
        ("OPTIONS", "/files", ("X-None", ""), 204),
        ("OPTIONS", url.as_str(), VERSION, 204),
        ("POST", "/files", VERSION, 400),
        ("POST", "/files", ("X-None", ""), 412),
        ("PUT", "/files", VERSION, 405),
        ("POST", &url, VERSION, 405),
        ("HEAD", &url, VERSION, 200),
        ("HEAD", "/files/x", VERSION, 404),
        ("GET", "/files/%ff", VERSION, 404),
        ("PATCH", &url, VERSION, 415),
        ("GET", "/files/x/y", VERSION, 404),
        ("GET", &url, ("X-Long", long.as_str()), 431),
        ("GET", &url, ("Host", "two.example"), 400),
        ("DELETE", &url, VERSION, 204),
    ] {
        let fields = [field, ("Origin", "https://page.example")];
        let answer = sound(server.call(method, path, &fields, b"").await);
        assert_eq!(answer.status, status, "{method} {path} {answer:?}");
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("tus-resumable"), "{exposed}");
    }
    for elsewhere in ["/v1/uploads", "/healthz", "/filesystem"] {
        let answer = server.get(elsewhere).await;
        assert_eq!(answer.header("tus-resumable"), None, "{elsewhere}");
    }
}

#[tokio::test]
async fn core_another_version_or_none_is_412_and_nothing_is_done() {
    let server = Server::fs().await;
    let url = create_of(&server, 3).await;
    for version in [None, Some("0.2.2"), Some("1.0.1"), Some("")] {
        for method in ["POST", "HEAD", "PATCH", "DELETE"] {
            let path = if method == "POST" { "/files" } else { &url };
            let mut fields = vec![BYTES, ("Upload-Offset", "0"), ("Upload-Length", "3")];
            fields.extend(version.map(|version| ("Tus-Resumable", version)));
            let refused = sound(server.call(method, path, &fields, b"").await);
            assert_eq!(refused.expect(412).header("tus-version"), Some("1.0.0"));
        }
    }
    assert_eq!(server.running.engine().open_uploads().await.unwrap(), 1);
    assert_eq!(offset(&server, &url).await, 0);
}

#[tokio::test]
async fn core_get_needs_no_version() {
    for server in both().await {
        let metadata = (
            "Upload-Metadata",
            "filename YS50eHQ=,filetype dGV4dC9wbGFpbg==",
        );
        let url = completed(&server, &[metadata], b"12345").await;
        let got = content(&server, &url).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(got.shown(), @r#"
            200
            accept-ranges: bytes
            cache-control: private
            content-disposition: attachment; filename="a.txt"
            content-length: 5
            content-type: text/plain
            etag: "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
            tus-resumable: 1.0.0
            x-content-type-options: nosniff

            12345
            "#);
        }
        let range = sound(
            server
                .call("GET", &url, &[("Range", "bytes=1-2")], b"")
                .await,
        );
        assert_eq!(range.expect(206).body, b"23");
        let incomplete = create_of(&server, 5).await;
        let none = content(&server, &incomplete).await;
        none.expect_problem(409, "upload_incomplete");
    }
}

#[tokio::test]
async fn core_the_override_replaces_the_method() {
    let server = Server::fs().await;
    let url = create_of(&server, 5).await;
    let over = async |method, name, fields: &[_], body: &[u8]| {
        let mut fields = fields.to_vec();
        fields.push(("X-HTTP-Method-Override", name));
        ask(&server, method, &url, &fields, body).await
    };
    let written = over("POST", "PATCH", &[BYTES, ("Upload-Offset", "0")], b"123").await;
    assert_eq!(written.expect(204).offset(), 3);
    assert_eq!(
        over("DELETE", "HEAD", &[], b"").await.expect(200).offset(),
        3
    );
    assert!(
        over("PATCH", "OPTIONS", &[], b"")
            .await
            .expect(204)
            .header("tus-version")
            .is_some()
    );
    over("GET", "DELETE", &[], b"").await.expect(204);
    let unknown = over("POST", "BREW", &[], b"").await;
    unknown.expect_problem(405, "method_not_allowed");
    let there = "HEAD,PATCH,GET,DELETE,OPTIONS";
    assert_eq!(unknown.header("allow"), Some(there));
    let none = over("POST", "", &[], b"").await;
    none.expect_problem(405, "method_not_allowed");
    let post = [("X-HTTP-Method-Override", "POST"), ("Upload-Length", "1")];
    ask(&server, "PUT", "/files", &post, b"").await.expect(201);
}

#[tokio::test]
async fn core_other_methods_are_405_with_what_there_is() {
    let server = Server::fs().await;
    let url = create_of(&server, 1).await;
    for (path, methods, allow) in [
        ("/files", ["GET", "HEAD", "PATCH", "DELETE"], "POST,OPTIONS"),
        (
            &url,
            ["POST", "PUT", "TRACE", "BREW"],
            "HEAD,PATCH,GET,DELETE,OPTIONS",
        ),
    ] {
        for method in methods {
            let refused = ask(&server, method, path, &[], b"").await;
            assert_eq!(refused.expect(405).header("allow"), Some(allow), "{method}");
        }
    }
}

#[tokio::test]
async fn core_options_tells_what_the_server_can_do() {
    let server = Server::with(|config| config.uploads.max_size_bytes = 1000 * MIB).await;
    for path in ["/files", "/files/", "/files/anything"] {
        let mut options = sound(server.call("OPTIONS", path, &[], b"").await);
        options.headers.retain(|(name, _)| name != "allow");
        insta::allow_duplicates! {
            insta::assert_snapshot!(options.shown(), @r"
            204
            cache-control: no-store
            tus-checksum-algorithm: sha1,sha256,sha512,md5,crc32c
            tus-extension: creation,creation-with-upload,creation-defer-length,expiration,checksum,checksum-trailer,termination,concatenation,concatenation-unfinished
            tus-max-size: 1048576000
            tus-resumable: 1.0.0
            tus-version: 1.0.0
            ");
        }
    }
}

#[tokio::test]
async fn core_a_slash_at_the_end_of_the_base_does_not_matter() {
    let server = Server::fs().await;
    let created = ask(&server, "POST", "/files/", &[("Upload-Length", "1")], b"").await;
    let url = created.expect(201).header("location").unwrap().to_owned();
    assert!(url.starts_with("/files/") && !url.contains("//"), "{url}");
    assert_eq!(offset(&server, &url).await, 0);
}

#[tokio::test]
async fn core_head_tells_offset_length_and_metadata_and_is_not_to_be_stored() {
    for server in both().await {
        let given = "name YS50eHQ=,confidential, bytes /w==";
        let fields = [("Upload-Length", "10"), ("Upload-Metadata", given)];
        let url = create(&server, &fields).await;
        patch(&server, &url, 0, b"123").await.expect(204);
        let told = head(&server, &url).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(told.shown(), @r"
            200
            cache-control: no-store
            content-length: 0
            tus-resumable: 1.0.0
            upload-expires: Fri, 17 Nov 2023 22:13:20 GMT
            upload-length: 10
            upload-metadata: name YS50eHQ=,confidential, bytes /w==
            upload-offset: 3
            ");
        }
        let known = server.status(&native(&url)).await;
        assert_eq!(known["filename"], "a.txt");
        assert_eq!(known["metadata"], serde_json::json!({"confidential": ""}));
        patch(&server, &url, 3, b"4567890").await.expect(204);
        let told = head(&server, &url).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(told.shown(), @r"
            200
            cache-control: no-store
            content-length: 0
            tus-resumable: 1.0.0
            upload-length: 10
            upload-metadata: name YS50eHQ=,confidential, bytes /w==
            upload-offset: 10
            ");
        }
    }
}

#[tokio::test]
async fn core_head_unknown_is_404_without_an_offset() {
    for server in both().await {
        let url = create_of(&server, 1).await;
        let other = create_of(&server, 1).await;
        let (base, handle) = url.split_at("/files/".len());
        let other_than = |letter: &str| if letter == "A" { "B" } else { "A" };
        let (first, last) = (other_than(&handle[..1]), other_than(&handle[63..]));
        // The id of one upload with the key of another.
        let mixed = format!("{}{}", &handle[..22], &other[base.len() + 22..]);
        for wrong in [
            handle[..63].to_owned(),
            format!("{handle}A"),
            format!("{}{last}", &handle[..63]),
            format!("{first}{}", &handle[1..]),
            handle.to_ascii_lowercase(),
            mixed,
            "x".to_owned(),
            "%ff".to_owned(),
        ] {
            for method in ["HEAD", "PATCH", "DELETE", "GET"] {
                let fields = [BYTES, ("Upload-Offset", "0")];
                let unknown = ask(&server, method, &format!("{base}{wrong}"), &fields, b"").await;
                assert_eq!(unknown.expect(404).header("upload-offset"), None);
            }
        }
        assert_eq!(offset(&server, &url).await, 0);
    }
}

#[tokio::test]
async fn core_head_gone_is_410_without_an_offset() {
    for server in both().await {
        let ended = create_of(&server, 1).await;
        delete(&server, &ended).await.expect(204);
        head(&server, &ended).await.expect(410);
        let expired = create_of(&server, 1).await;
        server.let_expire();
        for url in [ended, expired] {
            let gone = head(&server, &url).await;
            assert_eq!(gone.expect(410).header("upload-offset"), None);
            let gone = patch(&server, &url, 0, b"1").await;
            gone.expect_problem(410, "session_expired");
            let gone = content(&server, &url).await;
            gone.expect_problem(410, "session_expired");
        }
    }
}

#[tokio::test]
async fn core_patch_of_another_type_is_415() {
    let server = Server::fs().await;
    let url = create_of(&server, 3).await;
    let at = ("Upload-Offset", "0");
    for wrong in ["application/octet-stream", "application/partial-upload", ""] {
        let refused = ask(
            &server,
            "PATCH",
            &url,
            &[at, ("Content-Type", wrong)],
            b"123",
        )
        .await;
        refused.expect_problem(415, "unsupported_media_type");
    }
    let refused = ask(&server, "PATCH", &url, &[at], b"123").await;
    refused.expect_problem(415, "unsupported_media_type");
    assert_eq!(offset(&server, &url).await, 0);
}

#[tokio::test]
async fn core_patch_at_another_offset_is_409_with_the_right_one() {
    for server in both().await {
        let url = create_of(&server, 10).await;
        patch(&server, &url, 0, b"123").await.expect(204);
        for wrong in [0, 2, 4, 10, 11, 1 << 40, u64::MAX] {
            let refused = patch(&server, &url, wrong, b"xx").await;
            refused.expect_problem(409, "chunk_out_of_order");
            assert_eq!(refused.offset(), 3, "{wrong}");
            assert_eq!(refused.json()["expected_offset"], 3);
        }
        let refused = patch_with(&server, &url, 5, &[("Upload-Length", "11")], b"x").await;
        refused.expect_problem(409, "chunk_out_of_order");
        assert_eq!(offset(&server, &url).await, 3);
        let open = create(&server, &[DEFERRED]).await;
        for wrong in [5, 1 << 60] {
            let refused = patch_with(&server, &open, wrong, &[("Upload-Length", "9")], b"x").await;
            refused.expect_problem(409, "chunk_out_of_order");
            let told = head(&server, &open).await;
            assert_eq!(told.header("upload-length"), None, "nothing is changed");
        }
        patch(&server, &url, 3, b"4567890").await.expect(204);
        assert_eq!(content(&server, &url).await.body, b"1234567890");
    }
}

#[tokio::test]
async fn core_patch_without_a_sound_offset_is_400() {
    let server = Server::fs().await;
    let url = create_of(&server, 3).await;
    let none = ask(&server, "PATCH", &url, &[BYTES], b"123").await;
    none.expect_problem(400, "bad_request");
    for wrong in ["-1", "x", "", "0x0", "1.5", "0, 0"] {
        let fields = [BYTES, ("Upload-Offset", wrong)];
        let refused = ask(&server, "PATCH", &url, &fields, b"123").await;
        refused.expect_problem(400, "bad_request");
    }
    let twice = [BYTES, ("Upload-Offset", "0"), ("Upload-Offset", "0")];
    let twice = ask(&server, "PATCH", &url, &twice, b"123").await;
    twice.expect_problem(400, "bad_request");
    assert_eq!(offset(&server, &url).await, 0);
}

#[tokio::test]
async fn core_patch_is_204_with_the_new_offset() {
    for server in both().await {
        let bytes = noise(6 * MIB + 1, 1);
        let url = create_of(&server, 6 * MIB + 1).await;
        let mut at = 0;
        for size in [1, 5_500_000, 0, bytes.len() - 5_500_001] {
            let written = patch(&server, &url, at as u64, &bytes[at..at + size]).await;
            at += size;
            assert_eq!(written.expect(204).offset(), at as u64);
            let last = at == bytes.len();
            assert_eq!(written.header("upload-id").is_some(), last);
            assert_eq!(written.header("upload-expires").is_none(), last);
        }
        assert!(content(&server, &url).await.expect(200).body == bytes);
    }
}

#[tokio::test]
async fn core_patch_keeps_what_came_of_a_cut_body() {
    for server in both().await {
        let bytes = noise(7 * MIB, 2);
        let url = create_of(&server, 7 * MIB).await;
        let length = [("Content-Length", "7340032")];
        let mut cut = begin_patch(&server, &url, 0, &length).await;
        cut.send(&bytes[..6_000_000]).await.unwrap();
        drop(cut);
        wait_for_offset(&server, &url, 6_000_000).await;
        assert_eq!(offset(&server, &url).await, 6_000_000);
        let mut half =
            begin_patch(&server, &url, 6_000_000, &[("Content-Length", "1340032")]).await;
        half.send(&bytes[6_000_000..6_000_010]).await.unwrap();
        half.half_close().await;
        let told = sound(half.answer().await);
        assert_eq!(told.expect_problem(400, "bad_request").offset(), 6_000_010);
        patch(&server, &url, 6_000_010, &bytes[6_000_010..])
            .await
            .expect(204);
        assert!(content(&server, &url).await.expect(200).body == bytes);
    }
}

#[tokio::test]
async fn core_patch_beyond_the_length_is_413_and_nothing_of_it_is_taken() {
    for server in both().await {
        let url = create_of(&server, 5).await;
        patch(&server, &url, 0, b"12").await.expect(204);
        let refused = patch(&server, &url, 2, b"3456").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(refused.shown(), @r#"
            413
            cache-control: no-store
            content-length: 213
            content-type: application/problem+json
            tus-resumable: 1.0.0
            upload-offset: 2

            {"code":"range_mismatch","detail":"the range ends at byte 6, beyond the upload's length of 5","expected_offset":2,"length":5,"status":413,"title":"The range does not fit","type":"urn:jumar:problem:range_mismatch"}
            "#);
        }
        assert_eq!(offset(&server, &url).await, 2);
        // Where only its end tells, what fits is kept.
        let mut chunked = begin_patch(&server, &url, 2, &[CHUNKED]).await;
        chunked.send_coded(b"3456").await.unwrap();
        chunked.send_coded(b"").await.unwrap();
        let refused = sound(chunked.answer().await);
        refused.expect_problem(413, "range_mismatch");
        assert_eq!(offset(&server, &url).await, 5);
        assert_eq!(content(&server, &url).await.expect(200).body, b"12345");
    }
}

#[tokio::test]
async fn core_patch_to_a_completed_upload_changes_nothing() {
    for server in both().await {
        let url = completed(&server, &[], b"12345").await;
        for _ in 0..2 {
            let repeated = patch(&server, &url, 5, b"").await;
            assert_eq!(repeated.expect(204).offset(), 5);
            assert!(repeated.header("upload-id").is_some());
        }
        let more = patch(&server, &url, 5, b"6").await;
        more.expect_problem(409, "upload_completed");
        let other = patch(&server, &url, 0, b"x").await;
        assert_eq!(other.expect(409).offset(), 5);
        assert_eq!(content(&server, &url).await.body, b"12345");
    }
}

#[tokio::test]
async fn core_nobody_is_invited_to_send_a_body_that_is_refused() {
    let server = Server::fs().await;
    let url = create_of(&server, 5).await;
    let waits = ("Expect", "100-continue");
    let length = ("Content-Length", "5");
    let mut refused = begin_patch(&server, &url, 3, &[length, waits]).await;
    let answer = refused.answer().await;
    answer.expect_problem(409, "chunk_out_of_order");
    assert!(answer.informational.is_empty());
    let mut taken = begin_patch(&server, &url, 0, &[length, waits]).await;
    taken.expect_continue().await;
    taken.send(b"12345").await.unwrap();
    assert_eq!(taken.answer().await.expect(204).offset(), 5);
}

/// The old connection hangs half open; its client comes back on another one.
#[tokio::test]
async fn core_a_client_that_comes_back_displaces_its_old_connection() {
    for server in both().await {
        let bytes = noise(6 * MIB, 3);
        let url = create_of(&server, 6 * MIB).await;
        let all = [("Content-Length", "6291456")];
        let mut old = begin_patch(&server, &url, 0, &all).await;
        old.send(&bytes[..5_500_000]).await.unwrap();
        wait_for_offset(&server, &url, 5_500_000).await;
        let since = tokio::time::Instant::now();
        let at = offset(&server, &url).await;
        assert!(
            since.elapsed() < Duration::from_secs(1),
            "{:?}",
            since.elapsed()
        );
        assert_eq!(at, 5_500_000);
        // What the old one still sends is nobody's.
        let _ = old.send(&vec![b'x'; 100_000]).await;
        let displaced = sound(old.answer().await);
        displaced.expect_problem(409, "displaced");
        assert_eq!(displaced.header("connection"), Some("close"));
        assert_eq!(offset(&server, &url).await, at, "it was final");
        // Without a HEAD between.
        let rest = [("Content-Length", "791456")];
        let mut old = begin_patch(&server, &url, at, &rest).await;
        old.send(&bytes[5_500_000..5_500_100]).await.unwrap();
        wait_for_offset(&server, &url, at + 100).await;
        let mut new = begin_patch(&server, &url, at + 100, &[("Content-Length", "791356")]).await;
        new.send(&bytes[5_500_100..]).await.unwrap();
        assert_eq!(sound(new.answer().await).expect(204).offset(), 6 * MIB);
        sound(old.answer().await).expect_problem(409, "displaced");
        assert!(content(&server, &url).await.expect(200).body == bytes);
    }
}

#[tokio::test]
async fn core_urls_begin_with_the_public_one_and_the_configured_base() {
    let server = Server::with(|config| {
        config.server.public_url = "https://up.example.org/jumar".to_owned();
        config.api.tus = "/deep/tus".to_owned();
    })
    .await;
    let created = ask(&server, "POST", "/deep/tus", &[("Upload-Length", "1")], b"").await;
    let url = created.expect(201).header("location").unwrap().to_owned();
    let path = url.strip_prefix("https://up.example.org/jumar").unwrap();
    assert!(path.starts_with("/deep/tus/"), "{path}");
    assert_eq!(offset(&server, path).await, 0);
    server.get("/files").await.expect(404);
    let none = post(&Server::fs().await, &[("Upload-Length", "1")]).await;
    assert!(none.header("location").unwrap().starts_with("/files/"));
}

/// A client that goes with its last byte on the way has sent all of it, and need not come back.
#[tokio::test]
async fn core_a_client_that_hangs_up_after_its_last_byte_has_a_completed_upload() {
    let server = Server::fs().await;
    let url = create_of(&server, 5).await;
    let slow = Fault::Delay(Duration::from_secs(1));
    server.faults.fail(Call::WriteAt, When::Always, slow);
    let h2 = H2::open(server.main).await;
    let fields = [
        VERSION,
        BYTES,
        ("Upload-Offset", "0"),
        ("Content-Length", "5"),
    ];
    let (feed, answer) = h2.begin("PATCH", &url, &fields);
    feed.send("12345".into()).unwrap();
    drop(feed);
    while server.faults.count(Call::WriteAt) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    answer.abort();
    for _ in 0..600 {
        if server.status(&native(&url)).await["state"] == "completed" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody completed it");
}
