//! `104 (Upload Resumption Supported)`, and `100 (Continue)` beside it.

use std::time::Duration;

use super::{Client, client, newest, url_of, without_handles};
use crate::support::http::{Answer, Connection};
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both};

/// An interim answer, without handles.
fn shown(interim: &Answer) -> String {
    without_handles(&interim.shown()).trim().to_owned()
}

#[tokio::test]
async fn the_place_is_told_before_a_byte_of_content() {
    for server in both().await {
        let client = newest(&server);
        let fields = [("Upload-Complete", "?1"), ("Content-Length", "5")];
        let mut connection = client.send_head("POST", "/resumable", &fields).await;
        let interim = connection.interim().await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&interim), @r#"
            104
            location: /resumable/<handle>
            upload-draft-interop-version: 8
            upload-limit: max-size=53687091200, min-size=0, max-age=259200
            "#);
        }
        let url = url_of(&interim);
        connection.send(b"12345").await.unwrap();
        let done = connection.answer().await;
        assert_eq!(done.expect(201).informational, [0_u16; 0]);
        assert_eq!(url_of(&done), url, "the same in all answers");
        assert_eq!(client.get(&url).await.body, b"12345");
    }
}

#[tokio::test]
async fn each_version_that_is_served_names_itself() {
    let server = Server::fs().await;
    for version in ["3", "5", "6", "8"] {
        let client = client(&server, version);
        let fields = [client.complete(false), ("Content-Length", "2")];
        let mut connection = client.send_head("POST", "/resumable", &fields).await;
        let interim = connection.interim().await;
        assert_eq!(interim.status, 104);
        let named = interim.header("Upload-Draft-Interop-Version");
        assert_eq!(named, Some(version));
        connection.send(b"12").await.unwrap();
        let begun = connection.answer().await;
        assert_eq!(url_of(begun.expect(201)), url_of(&interim));
    }
}

#[tokio::test]
async fn continue_is_said_as_well_where_it_was_expected() {
    let server = Server::fs().await;
    let client = newest(&server);
    let fields = [
        ("Upload-Complete", "?1"),
        ("Content-Length", "5"),
        ("Expect", "100-continue"),
    ];
    let mut connection = client.send_head("POST", "/resumable", &fields).await;
    assert_eq!(connection.interim().await.status, 104);
    connection.expect_continue().await;
    connection.send(b"12345").await.unwrap();
    connection.answer().await.expect(201);
}

/// A whole upload that asks for nothing to be told on the way.
async fn silent(mut connection: Connection) {
    connection.send(b"12345").await.unwrap();
    let done = connection.answer().await;
    assert_eq!(done.expect(201).informational, [0_u16; 0]);
}

#[tokio::test]
async fn only_a_client_that_named_a_version_that_is_served_is_told() {
    let server = Server::fs().await;
    let fields = [("Upload-Complete", "?1"), ("Content-Length", "5")];
    for version in ["4", "7", "99", "x"] {
        let client = client(&server, version);
        silent(client.send_head("POST", "/resumable", &fields).await).await;
    }
    let none = Client {
        server: &server,
        version: None,
    };
    silent(none.send_head("POST", "/resumable", &fields).await).await;
    let conventional = [("Content-Length", "5")];
    let client = newest(&server);
    silent(client.send_head("POST", "/resumable", &conventional).await).await;
}

#[tokio::test]
async fn http_1_0_is_never_told() {
    let server = Server::fs().await;
    let mut connection = server.connect().await;
    let head = b"POST /resumable HTTP/1.0\r\nHost: x\r\nUpload-Complete: ?1\r\n\
        Upload-Draft-Interop-Version: 8\r\nContent-Length: 5\r\n\r\n";
    connection.send(head).await.unwrap();
    silent(connection).await;
}

#[tokio::test]
async fn a_refused_creation_gets_no_place() {
    let server = Server::with(|config| config.uploads.max_size_bytes = 100).await;
    let fields = [("Upload-Complete", "?1"), ("Content-Length", "101")];
    let mut connection = newest(&server)
        .send_head("POST", "/resumable", &fields)
        .await;
    let refused = connection.answer().await;
    assert_eq!(refused.expect(413).informational, [0_u16; 0]);
}

#[tokio::test]
async fn an_upload_is_gone_on_with_from_what_the_interim_answer_said() {
    for server in both().await {
        let client = newest(&server);
        let fields = [("Upload-Complete", "?1"), ("Content-Length", "10")];
        let mut cut = client.send_head("POST", "/resumable", &fields).await;
        let url = url_of(&cut.interim().await);
        cut.send(b"12345").await.unwrap();
        client.wait_for(&url, 5).await;
        drop(cut);
        let offset = client.head(&url).await.expect(204).offset();
        assert_eq!(offset, 5);
        client.append(&url, 5, true, b"67890").await.expect(201);
        assert_eq!(client.get(&url).await.body, b"1234567890");
    }
}

#[tokio::test]
async fn progress_is_told_on_long_bodies() {
    let server = Server::with(|config| config.uploads.commit_interval_secs = 1).await;
    for (version, told) in [("8", true), ("6", true), ("5", true), ("3", false)] {
        let client = client(&server, version);
        let url = client.begun(b"").await;
        let bytes = noise(4 * MIB, 9);
        let length = bytes.len().to_string();
        let fields = [("Content-Length", length.as_str())];
        let mut connection = client.append_head(&url, 0, false, &fields).await;
        let mut sent = 0;
        let mut offsets = Vec::new();
        for piece in bytes.chunks(bytes.len() / 4) {
            connection.send(piece).await.unwrap();
            sent += piece.len() as u64;
            if !told {
                tokio::time::sleep(Duration::from_millis(700)).await;
            } else if offsets.len() < 2 {
                let interim = connection.interim().await;
                assert_eq!(interim.header("Location"), None);
                assert_eq!(
                    interim.header("Upload-Draft-Interop-Version"),
                    Some(version)
                );
                assert!(interim.offset() <= sent, "only what is there");
                offsets.push(interim.offset());
            }
        }
        assert!(offsets.is_sorted(), "{offsets:?}");
        assert!(offsets.iter().all(|offset| *offset > 0), "{offsets:?}");
        let answer = connection.answer().await;
        assert_eq!(answer.offset(), sent);
        assert!(told || answer.informational.is_empty());
    }
}

#[tokio::test]
async fn progress_of_a_creation_is_told_after_its_place() {
    let server = Server::with(|config| config.uploads.commit_interval_secs = 1).await;
    let client = newest(&server);
    let fields = [("Upload-Complete", "?1"), ("Content-Length", "10")];
    let mut connection = client.send_head("POST", "/resumable", &fields).await;
    let place = connection.interim().await;
    assert!(place.header("Location").is_some());
    assert_eq!(place.header("Upload-Offset"), None);
    connection.send(b"12345").await.unwrap();
    let progress = connection.interim().await;
    assert_eq!((progress.status, progress.offset()), (104, 5));
    assert_eq!(progress.header("Location"), None);
    connection.send(b"67890").await.unwrap();
    let done = connection.answer().await;
    assert_eq!(url_of(done.expect(201)), url_of(&place));
}
