//! Uploads that are put together from partial ones.

use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};
use serde_json::json;

use super::kit::{
    CHUNKED, ask, begin, completed, content, create, delete, finishing_fails, head, location,
    native, offset, patch, patch_with, post, post_bytes, sound,
};
use crate::support::http::{Answer, try_call};
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both};

const PARTIAL: (&str, &str) = ("Upload-Concat", "partial");

/// A partial upload that is complete.
async fn part(server: &Server, bytes: &[u8]) -> String {
    completed(server, &[PARTIAL], bytes).await
}

/// A partial upload that has yet to get its bytes.
async fn open_part(server: &Server, length: &str) -> String {
    create(server, &[PARTIAL, ("Upload-Length", length)]).await
}

async fn put_together(server: &Server, urls: &str) -> Answer {
    let value = format!("final;{urls}");
    post(server, &[("Upload-Concat", &value)]).await
}

#[tokio::test]
async fn concatenation_keeps_the_order_and_takes_repeats_and_any_kind_of_url() {
    for server in both().await {
        let a = noise(6 * MIB, 7);
        let (one, two) = (part(&server, &a).await, part(&server, b" world").await);
        let absolute = format!("https://elsewhere.example:1{two}?a=/b#/c");
        let bare = one.rsplit('/').next().unwrap();
        let urls = format!("{one} {absolute} {two} {bare} {two}");
        let value = format!("final;{urls}");
        let metadata = ("Upload-Metadata", "filename YS50eHQ=");
        let whole = post(&server, &[("Upload-Concat", &value), metadata]).await;
        assert_eq!(whole.expect(201).header("upload-expires"), None);
        let whole_url = location(&whole);
        let told = head(&server, &whole_url).await;
        assert_eq!(told.expect(200).offset(), 12 * MIB + 18);
        assert_eq!(told.header("upload-length"), Some("12582930"));
        assert_eq!(
            told.header("upload-concat"),
            Some(value.as_str()),
            "as it came"
        );
        assert_eq!(told.header("upload-metadata"), Some(metadata.1));
        let expected = [&a[..], b" world", b" world", &a[..], b" world"].concat();
        let content = content(&server, &whole_url).await;
        assert!(content.expect(200).body == expected);
        let disposition = content.header("content-disposition");
        assert_eq!(disposition, Some("attachment; filename=\"a.txt\""));
        // Parts may be used again.
        let again = put_together(&server, &two).await;
        assert_eq!(offset(&server, &location(again.expect(201))).await, 6);
    }
}

#[tokio::test]
async fn concatenation_says_that_a_partial_one_is_partial() {
    for server in both().await {
        let url = open_part(&server, "5").await;
        let told = head(&server, &url).await;
        assert_eq!(told.header("upload-concat"), Some("partial"));
        assert_eq!(told.offset(), 0);
        patch(&server, &url, 0, b"12345").await.expect(204);
        let told = head(&server, &url).await;
        assert_eq!(told.header("upload-concat"), Some("partial"));
        assert_eq!(told.offset(), 5);
    }
}

#[tokio::test]
async fn concatenation_takes_no_length_and_no_body() {
    for server in both().await {
        let url = part(&server, b"12345").await;
        let value = format!("final;{url}");
        let concat = ("Upload-Concat", value.as_str());
        for wrong in [
            ("Upload-Length", "5"),
            ("Upload-Defer-Length", "1"),
            PARTIAL,
        ] {
            let refused = post(&server, &[concat, wrong]).await;
            refused.expect_problem(400, "bad_request");
        }
        let body = post_bytes(&server, &[concat], b"12345").await;
        body.expect_problem(400, "bad_request");
        let mut chunked = begin(&server, "POST", "/files", &[concat, CHUNKED]).await;
        chunked.send_coded(b"1").await.unwrap();
        chunked.send_coded(b"").await.unwrap();
        sound(chunked.answer().await).expect_problem(400, "bad_request");
        let whole = location(post_bytes(&server, &[concat], b"").await.expect(201));
        let patched = patch(&server, &whole, 5, b"").await;
        patched.expect_problem(403, "forbidden");
        let patched = patch(&server, &whole, 0, b"x").await;
        patched.expect_problem(403, "forbidden");
        assert_eq!(content(&server, &whole).await.body, b"12345");
    }
}

#[tokio::test]
async fn concatenation_of_what_is_no_partial_upload_is_400() {
    for server in both().await {
        let sound_part = part(&server, b"1").await;
        let altered = part(&server, b"1").await;
        let whole = completed(&server, &[], b"1").await;
        let made = location(put_together(&server, &sound_part).await.expect(201));
        let ended = part(&server, b"1").await;
        delete(&server, &ended).await.expect(204);
        let handle = sound_part.strip_prefix("/files/").unwrap();
        let last = if altered.ends_with('A') { "B" } else { "A" };
        let foreign = server.completed(json!({}), b"1").await;
        let foreign = jumar::model::Handle {
            id: foreign.id.parse().unwrap(),
            key: foreign.key.parse().unwrap(),
        };
        for wrong in [
            String::new(),
            "x".to_owned(),
            altered[..altered.len() - 1].to_owned(),
            format!("{}{last}", &altered[..altered.len() - 1]),
            format!("{sound_part},{sound_part}"),
            whole,
            made,
            ended,
            foreign.reveal(),
        ] {
            for urls in [wrong.clone(), format!("{sound_part} {wrong}")] {
                if urls == format!("{sound_part} ") {
                    continue;
                }
                let refused = put_together(&server, &urls).await;
                assert_eq!(refused.status, 400, "{urls}: {}", refused.text());
                refused.expect_problem(400, "bad_request");
                assert!(!refused.text().contains(&handle[..10]));
            }
        }
        for wrong in ["", "final", "Final;", "partial;", "whole"] {
            let refused = post(&server, &[("Upload-Concat", wrong), ("Upload-Length", "1")]).await;
            refused.expect_problem(400, "bad_request");
        }
    }
}

#[tokio::test]
async fn concatenation_of_too_many_is_431() {
    let server = Server::fs().await;
    let url = part(&server, b"1").await;
    let urls = |count: usize| vec![url.as_str(); count].join(" ");
    let most = put_together(&server, &urls(800)).await;
    assert_eq!(offset(&server, &location(most.expect(201))).await, 800);
    let more = put_together(&server, &urls(1000)).await;
    more.expect_problem(431, "head_too_large");
    let value = format!("final;{}", urls(10_000));
    let fields = [super::kit::VERSION, ("Upload-Concat", value.as_str())];
    let refused = try_call(server.main, "POST", "/files", &fields, b"").await;
    // So much more is not even read to its end.
    if let Ok(refused) = refused {
        assert_eq!(refused.status, 431);
    }
}

#[tokio::test]
async fn concatenation_beyond_the_limit_is_413() {
    let server = Server::with(|config| config.uploads.max_size_bytes = 5 * MIB).await;
    let url = open_part(&server, "5242880").await;
    let refused = put_together(&server, &format!("{url} {url}")).await;
    refused.expect_problem(413, "upload_limit");
    assert_eq!(refused.json()["max_size"], 5 * MIB);
}

#[tokio::test]
async fn concatenation_means_nothing_outside_of_a_creation() {
    let server = Server::fs().await;
    let url = create(&server, &[("Upload-Length", "5")]).await;
    for concat in [PARTIAL, ("Upload-Concat", "nonsense")] {
        ask(&server, "HEAD", &url, &[concat], b"").await.expect(200);
        patch_with(&server, &url, 0, &[concat], b"")
            .await
            .expect(204);
    }
    patch_with(&server, &url, 0, &[PARTIAL], b"12345")
        .await
        .expect(204);
    assert_eq!(head(&server, &url).await.header("upload-concat"), None);
    ask(&server, "DELETE", &url, &[PARTIAL], b"")
        .await
        .expect(204);
}

#[tokio::test]
async fn concatenation_unfinished_has_an_offset_when_its_parts_are_complete() {
    for server in both().await {
        let (one, two) = (open_part(&server, "5").await, open_part(&server, "6").await);
        patch(&server, &one, 0, b"hel").await.expect(204);
        let made = put_together(&server, &format!("{one} {two}")).await;
        assert!(made.expect(201).header("upload-expires").is_some());
        let whole = location(&made);
        for _ in 0..2 {
            let told = head(&server, &whole).await;
            assert_eq!(told.expect(200).header("upload-offset"), None);
            assert_eq!(told.header("upload-length"), Some("11"));
            assert!(told.header("upload-concat").unwrap().starts_with("final;"));
            patch(&server, &whole, 0, b"x")
                .await
                .expect_problem(403, "forbidden");
        }
        content(&server, &whole)
            .await
            .expect_problem(409, "upload_incomplete");
        patch(&server, &two, 0, b" world").await.expect(204);
        patch(&server, &one, 3, b"lo").await.expect(204);
        let told = head(&server, &whole).await;
        assert_eq!(told.expect(200).offset(), 11);
        assert_eq!(told.header("upload-length"), Some("11"));
        assert_eq!(content(&server, &whole).await.body, b"hello world");
    }
}

#[tokio::test]
async fn concatenation_is_created_also_while_the_store_is_away() {
    for server in both().await {
        let url = part(&server, b"12345").await;
        for call in [Call::CopyIn, Call::Read] {
            server.faults.fail(call, When::Always, Fault::Unavailable);
        }
        finishing_fails(&server, When::Always, Fault::Unavailable);
        let made = put_together(&server, &url).await;
        let whole = location(made.expect(201));
        let told = head(&server, &whole).await;
        assert_eq!(told.expect(423).header("upload-offset"), None);
        server.faults.heal();
        assert_eq!(offset(&server, &whole).await, 5);
        assert_eq!(content(&server, &whole).await.body, b"12345");
    }
}

#[tokio::test]
async fn concatenation_of_empty_parts() {
    for server in both().await {
        let empty = part(&server, b"").await;
        let whole = location(
            put_together(&server, &format!("{empty} {empty}"))
                .await
                .expect(201),
        );
        assert_eq!(offset(&server, &whole).await, 0);
        assert_eq!(content(&server, &whole).await.expect(200).body, b"");
        assert_eq!(server.status(&native(&whole)).await["state"], "completed");
    }
}
