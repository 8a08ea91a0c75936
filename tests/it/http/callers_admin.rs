//! Looking after uploads, over sockets.

use std::time::Duration;

use jumar::config::{Config, Space};
use jumar::model::Scope;
use serde_json::{Value, json};

use crate::support::callers::{closed, open};
use crate::support::http::Answer;
use crate::support::server::{Server, Upload, uploaded};

fn two_spaces(config: &mut Config) {
    config.spaces.insert("photos".to_owned(), Space::default());
    closed(config);
}

/// Five uploads, the oldest first, an hour between them: the second and the fourth are photos.
async fn five(server: &Server) -> Vec<Upload> {
    let mut all = Vec::new();
    for number in 0..5 {
        let space = ["default", "photos"][number % 2];
        let owner = server.bearer(&json!({"sub": "alice", "space": space, "jti": space}));
        let fields = [("Authorization", owner.as_str()), ("Device-Id", "phone")];
        let json = json!({"length": 3, "filename": format!("{number}.txt")});
        let upload = uploaded(server.post_with(&fields, &json).await.expect(201));
        if number == 2 {
            let put = server.put_with(&upload, "bytes 0-2/3", &fields, b"123");
            put.await.expect(204);
            let done = server.ask(&upload, "POST", "/complete", &fields, b"{}");
            done.await.expect(201);
        }
        all.push(upload);
        server.clock.advance(Duration::from_mins(10));
    }
    all
}

async fn ask(server: &Server, admin: &str, method: &str, below: &str) -> Answer {
    let path = format!("/v1/admin{below}");
    server.with_token(admin, method, &path, &[], b"").await
}

fn ids(answer: &Answer) -> Vec<String> {
    let json = answer.expect(200).json();
    let uploads = json["uploads"].as_array().expect("a list").iter();
    uploads
        .map(|upload| upload["upload_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn only_admins_look_after_uploads_on_an_open_server_too() {
    for change in [open, closed] {
        let server = Server::with(change).await;
        let uploader = server.api_key(Scope::Upload, None).await;
        let reader = server.api_key(Scope::Read, None).await;
        let id = "00000000-0000-4000-8000-000000000000";
        for (method, below) in [
            ("GET", "/uploads".to_owned()),
            ("GET", format!("/uploads/{id}")),
            ("DELETE", format!("/uploads/{id}")),
            ("GET", "/spaces".to_owned()),
            ("GET", "/prune".to_owned()),
        ] {
            let path = format!("/v1/admin{below}");
            let refused = server.call(method, &path, &[], b"").await;
            refused.expect_problem(401, "unauthorized");
            let challenge = refused.header("www-authenticate");
            assert!(challenge.is_some(), "{below}");
            for bearer in [&uploader, &reader] {
                let refused = ask(&server, bearer, method, &below).await;
                refused.expect_problem(403, "forbidden");
            }
        }
    }
}

#[tokio::test]
async fn uploads_are_listed_by_what_they_are() {
    let server = Server::with(two_spaces).await;
    let uploads = five(&server).await;
    let of = |numbers: &[usize]| -> Vec<String> {
        numbers.iter().map(|&n| uploads[n].id.clone()).collect()
    };
    let admin = server.api_key(Scope::Admin, None).await;
    let bound = server.api_key(Scope::Admin, Some("photos")).await;
    for (query, expected) in [
        ("", of(&[4, 3, 2, 1, 0])),
        ("?space=photos", of(&[3, 1])),
        ("?state=completed", of(&[2])),
        ("?state=pending&space=default", of(&[4, 0])),
        ("?older_than_secs=1800", of(&[2, 1, 0])),
        ("?limit=2", of(&[4, 3])),
    ] {
        let listed = ask(&server, &admin, "GET", &format!("/uploads{query}")).await;
        assert_eq!(ids(&listed), expected, "{query}");
    }
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = format!("/uploads?limit=2{cursor}");
        let page = ask(&server, &admin, "GET", &page).await;
        found.push(ids(&page));
        match &page.json()["cursor"] {
            Value::Null => break,
            Value::String(next) => cursor = format!("&cursor={next}"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(found, [of(&[4, 3]), of(&[2, 1]), of(&[0])]);

    let listed = ask(&server, &bound, "GET", "/uploads").await;
    assert_eq!(ids(&listed), of(&[3, 1]));
    let refused = ask(&server, &bound, "GET", "/uploads?space=default").await;
    refused.expect_problem(403, "forbidden");
    for method in ["GET", "DELETE"] {
        let others = format!("/uploads/{}", uploads[0].id);
        let refused = ask(&server, &bound, method, &others).await;
        refused.expect_problem(404, "not_found");
    }
    let spaces = ask(&server, &bound, "GET", "/spaces").await.json();
    let names: Vec<_> = spaces["spaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|space| &space["space"])
        .collect();
    assert_eq!(names, ["photos"]);

    for below in ["/uploads".to_owned(), format!("/uploads/{}", uploads[2].id)] {
        let text = ask(&server, &admin, "GET", &below).await.text();
        for upload in &uploads {
            assert!(!text.contains(&upload.key), "{text}");
        }
        assert!(
            !text.contains("signature") && !text.contains("upload_key"),
            "{text}"
        );
    }
    for (query, right) in [
        ("state=open", "pending"),
        ("limit=0", "between 1 and 1000"),
        ("limit=1001", "between 1 and 1000"),
        ("limit=many", "limit"),
        ("cursor=5", "cursor"),
        ("space=Not%20One", "space"),
        ("older_than_secs=-1", "older_than_secs"),
        ("order=name", "older_than_secs"),
    ] {
        let refused = ask(&server, &admin, "GET", &format!("/uploads?{query}")).await;
        refused.expect_problem(400, "bad_request");
        assert!(
            refused.text().contains(right),
            "{query}: {}",
            refused.text()
        );
    }
}

#[tokio::test]
async fn an_upload_is_looked_at_and_ended() {
    let server = Server::with(two_spaces).await;
    let uploads = five(&server).await;
    let admin = server.api_key(Scope::Admin, None).await;
    let path = |upload: &Upload| format!("/uploads/{}", upload.id);
    let shown = ask(&server, &admin, "GET", &path(&uploads[3])).await;
    let shown = shown.expect(200).json();
    for (member, value) in [
        ("space", json!("photos")),
        ("subject", json!("alice")),
        ("token", json!("photos")),
        ("device", json!("phone")),
        ("state", json!("pending")),
        ("filename", json!("3.txt")),
        ("received", json!([])),
    ] {
        assert_eq!(shown[member], value, "{member}: {shown}");
    }
    for _ in 0..2 {
        let ended = ask(&server, &admin, "DELETE", &path(&uploads[3])).await;
        ended.expect(204);
    }
    let shown = ask(&server, &admin, "GET", &path(&uploads[3])).await.json();
    assert_eq!(shown["state"], "aborted");
    let refused = ask(&server, &admin, "DELETE", &path(&uploads[2])).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    let spaces = ask(&server, &admin, "GET", "/spaces").await;
    let spaces = spaces.expect(200).json()["spaces"].clone();
    assert_eq!(spaces.as_array().unwrap().len(), 2, "{spaces}");
    let none = ask(&server, &admin, "GET", "/prune").await;
    none.expect_problem(404, "not_found");
    server.prune().await;
    let last = ask(&server, &admin, "GET", "/prune")
        .await
        .expect(200)
        .json();
    assert!(last["at"].is_string(), "{last}");
}

#[tokio::test]
async fn an_upload_is_ended_in_the_middle_of_a_body() {
    let server = Server::with(two_spaces).await;
    let admin = server.api_key(Scope::Admin, None).await;
    let alice = server.guest("alice");
    let mine = ("Authorization", alice.as_str());
    let created = server
        .post_with(&[mine], &json!({"length": 1_000_000}))
        .await;
    let upload = uploaded(created.expect(201));
    let fields = [mine, ("Content-Length", "1000000")];
    let range = "bytes 0-999999/1000000";
    let mut live = server.put_head(&upload, range, &fields).await;
    live.send(&vec![7; 500_000]).await.unwrap();
    let path = format!("/uploads/{}", upload.id);
    for _ in 0..1000 {
        let shown = ask(&server, &admin, "GET", &path).await.json();
        if shown["state"] == "uploading" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ask(&server, &admin, "DELETE", &path).await.expect(204);
    let cut = live.answer().await;
    assert!(
        matches!(cut.status, 404 | 409 | 410),
        "{cut:?}: {}",
        cut.text()
    );
    let shown = ask(&server, &admin, "GET", &path).await.json();
    assert_eq!(shown["state"], "aborted");
    server.prune().await;
    let mut left = server.stored_files();
    left.retain(|file| !file.ends_with("/spool/reserve"));
    assert_eq!(left, [""; 0], "nothing of it stays");
}
