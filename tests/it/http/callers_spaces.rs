//! What a space holds its uploads to, and what its callers are told.

use jumar::config::{Config, Limit, Space};
use serde_json::{Value, json};

use crate::support::callers::closed;
use crate::support::http::Answer;
use crate::support::server::{Server, range, uploaded};

/// A server that has `photos` beside `default`.
async fn with_photos(change: impl FnOnce(&mut Space)) -> Server {
    Server::with(|config: &mut Config| {
        let mut photos = Space {
            open_per_device: Limit(None),
            ..Space::default()
        };
        change(&mut photos);
        config.spaces.insert("photos".to_owned(), photos);
        config.quotas.open_wait_secs = 0;
        closed(config);
    })
    .await
}

fn photographer(server: &Server) -> String {
    server.bearer(&json!({"sub": "alice", "space": "photos"}))
}

async fn create(server: &Server, fields: &[(&str, &str)], json: &Value) -> Answer {
    let alice = photographer(server);
    let fields = [&[("Authorization", alice.as_str())], fields].concat();
    server.post_with(&fields, json).await
}

fn limit_of(answer: &Answer) -> Value {
    let json = answer.json();
    let member = |name: &str| json[name].clone();
    json!([
        member("limit"),
        member("allowed"),
        member("left"),
        member("resets_at")
    ])
}

#[tokio::test]
async fn what_may_be_uploaded() {
    let server = with_photos(|photos| {
        photos.content_types = vec!["image/*".to_owned()];
        photos.max_size_bytes = Limit::of(1000);
    })
    .await;
    for declared in [
        json!({"length": 3}),
        json!({"length": 3, "content_type": "text/html"}),
    ] {
        let refused = create(&server, &[], &declared).await;
        refused.expect_problem(415, "unsupported_media_type");
        assert!(refused.text().contains("image/*"), "{}", refused.text());
    }
    let too_large = json!({"length": 1001, "content_type": "image/png"});
    let refused = create(&server, &[], &too_large).await;
    refused.expect_problem(413, "upload_limit");
    assert_eq!(refused.json()["max_size"], 1000);

    let page = b"<!DOCTYPE html><html><body>not a picture</body></html>";
    let declared = json!({"length": page.len(), "content_type": "image/png"});
    let upload = uploaded(create(&server, &[], &declared).await.expect(201));
    let alice = photographer(&server);
    let mine = [("Authorization", alice.as_str())];
    let whole = range(0, page.len(), Some(page.len() as u64));
    let put = server.put_with(&upload, &whole, &mine, page).await;
    let done = server.ask(&upload, "POST", "/complete", &mine, b"{}").await;
    assert!(put.status == 415 || done.status >= 400, "{put:?} {done:?}");
    let status = server.ask(&upload, "GET", "", &mine, b"").await.json();
    assert_eq!(status["state"], "failed", "{status}");
    assert_eq!(status["failure_reason"], "content_type");
}

#[tokio::test]
async fn a_space_is_for_its_own_pages() {
    let server = Server::with(|config| {
        for (name, page) in [
            ("photos", "https://a.example"),
            ("films", "https://b.example"),
        ] {
            let space = Space {
                cors_origins: vec![page.to_owned()],
                ..Space::default()
            };
            config.spaces.insert(name.to_owned(), space);
        }
        config.server.cors_origins = vec!["https://c.example".to_owned()];
        closed(config);
    })
    .await;
    let [mine, other, strange] = [
        "https://a.example",
        "https://b.example",
        "https://d.example",
    ]
    .map(|page| ("Origin", page));
    let created = create(&server, &[mine], &json!({"length": 3})).await;
    let allowed = created.expect(201).header("access-control-allow-origin");
    assert_eq!(allowed, Some(mine.1));
    let refused = create(&server, &[other], &json!({"length": 3})).await;
    refused.expect_problem(403, "forbidden");
    let allowed = refused.header("access-control-allow-origin");
    assert_eq!(allowed, Some(other.1), "that page may read why");
    let refused = create(&server, &[strange], &json!({"length": 3})).await;
    refused.expect_problem(403, "forbidden");
    assert_eq!(refused.header("access-control-allow-origin"), None);
    // Who is no page sends none.
    create(&server, &[], &json!({"length": 3}))
        .await
        .expect(201);
    for page in [mine, other] {
        let asked = [page, ("Access-Control-Request-Method", "POST")];
        let preflight = server.call("OPTIONS", "/v1/uploads", &asked, b"").await;
        let allowed = preflight.expect(204).header("access-control-allow-origin");
        assert_eq!(allowed, Some(page.1));
    }
}

type Change = fn(&mut Space, Limit);

#[tokio::test]
async fn a_limit_says_which_it_is_and_what_is_left() {
    let tomorrow = "2023-11-15T00:00:00Z";
    let cases: [(Change, u64, u16, Value); 6] = [
        (
            |s, l| s.open_per_token = l,
            1,
            429,
            json!(["open_per_token", 1, 0, null]),
        ),
        (
            |s, l| s.uploads_per_day_per_device = l,
            1,
            429,
            json!(["uploads_per_day_per_device", 1, 0, tomorrow]),
        ),
        (
            |s, l| s.uploads_per_day_per_subject = l,
            1,
            429,
            json!(["uploads_per_day_per_subject", 1, 0, tomorrow]),
        ),
        (
            |s, l| s.bytes_per_day_per_subject = l,
            10,
            413,
            json!(["bytes_per_day_per_subject", 10, 4, tomorrow]),
        ),
        (|s, l| s.uploads = l, 1, 429, json!(["uploads", 1, 0, null])),
        (
            |s, l| s.stored_bytes = l,
            10,
            413,
            json!(["stored_bytes", 10, 4, null]),
        ),
    ];
    for (change, allowed, status, expected) in cases {
        let server = with_photos(|photos| change(photos, Limit::of(allowed))).await;
        create(&server, &[], &json!({"length": 6}))
            .await
            .expect(201);
        let refused = create(&server, &[], &json!({"length": 6})).await;
        refused.expect_problem(status, "upload_limit");
        assert_eq!(limit_of(&refused), expected);

        let server = with_photos(|photos| change(photos, Limit::of(0))).await;
        let refused = create(&server, &[], &json!({"length": 6})).await;
        refused.expect_problem(status, "upload_limit");
        assert_eq!(limit_of(&refused)[1], 0, "zero lets nothing in");
    }
}

#[tokio::test]
async fn a_caller_is_told_what_it_is_held_to() {
    let server = with_photos(|photos| {
        photos.max_size_bytes = Limit::of(1000);
        photos.stored_bytes = Limit::of(100);
        photos.uploads_per_day_per_device = Limit::of(5);
    })
    .await;
    let claims = json!({"sub": "alice", "space": "photos", "max_size": 500, "max_uploads": 7});
    let alice = server.bearer(&claims);
    let phone = [("Device-Id", "phone")];
    let created = server
        .with_token(&alice, "POST", "/v1/uploads", &phone, br#"{"length": 30}"#)
        .await;
    created.expect(201);
    let told = server
        .with_token(&alice, "GET", "/v1/quota", &phone, b"")
        .await;
    insta::assert_snapshot!(serde_json::to_string_pretty(&told.expect(200).json()).unwrap(), @r#"
    {
      "device": "phone",
      "limits": [
        {
          "allowed": 256,
          "left": 255,
          "limit": "open_per_token",
          "resets_at": null,
          "used": 1
        },
        {
          "allowed": 5,
          "left": 4,
          "limit": "uploads_per_day_per_device",
          "resets_at": "2023-11-15T00:00:00Z",
          "used": 1
        },
        {
          "allowed": 7,
          "left": 6,
          "limit": "uploads_per_token",
          "resets_at": null,
          "used": 1
        },
        {
          "allowed": 100,
          "left": 70,
          "limit": "stored_bytes",
          "resets_at": null,
          "used": 30
        }
      ],
      "max_size": 500,
      "space": "photos",
      "subject": "alice"
    }
    "#);
    server
        .get("/v1/quota")
        .await
        .expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn forged_devices_get_no_further_than_their_token() {
    let server = with_photos(|photos| photos.open_per_token = Limit::of(4)).await;
    let mut created = 0;
    for device in 0..10 {
        let device = format!("forged-{device}");
        let answer = create(&server, &[("Device-Id", &device)], &json!({"length": 6})).await;
        if answer.status == 201 {
            created += 1;
        } else {
            answer.expect_problem(429, "upload_limit");
            assert_eq!(answer.json()["limit"], "open_per_token");
            assert!(answer.header("retry-after").is_some());
        }
    }
    assert_eq!(created, 4);
}

#[tokio::test]
async fn guests_that_name_no_device_are_one() {
    let server = with_photos(|photos| photos.uploads_per_day_per_device = Limit::of(1)).await;
    let length = json!({"length": 6});
    create(&server, &[], &length).await.expect(201);
    let refused = create(&server, &[], &length).await;
    refused.expect_problem(429, "upload_limit");
    create(&server, &[("Device-Id", "phone")], &length)
        .await
        .expect(201);
    let long = "x".repeat(129);
    for wrong in ["", "two words", long.as_str()] {
        let refused = create(&server, &[("Device-Id", wrong)], &length).await;
        refused.expect_problem(400, "bad_request");
    }
    let twice = [("Device-Id", "a"), ("Device-Id", "b")];
    let refused = create(&server, &twice, &length).await;
    refused.expect_problem(400, "bad_request");
}
