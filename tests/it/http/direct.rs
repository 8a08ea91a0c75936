//! `POST /v1/uploads/{id}/parts/urls` and `POST /v1/uploads/{id}/parts/{n}`

use serde_json::{Value, json};

use crate::support::direct::send;
use crate::support::http::Answer;
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, Upload, both};

const CELL: u64 = 5 * MIB;

async fn urls(server: &Server, upload: &Upload, json: &Value) -> Answer {
    let json = json.to_string();
    let fields = [("Content-Type", "application/json")];
    let asked = server.ask(upload, "POST", "/parts/urls", &fields, json.as_bytes());
    asked.await
}

async fn told(server: &Server, upload: &Upload, number: u64, json: &Value) -> Answer {
    let (below, json) = (format!("/parts/{number}"), json.to_string());
    server
        .ask(upload, "POST", &below, &[], json.as_bytes())
        .await
}

/// Puts a part as the answer says.
async fn put(part: &Value, bytes: &[u8]) -> Answer {
    let headers = part["headers"].as_object().unwrap();
    let fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    let (method, url) = (&part["method"], &part["url"]);
    send(
        method.as_str().unwrap(),
        url.as_str().unwrap(),
        &fields,
        bytes,
    )
    .await
}

#[tokio::test]
async fn exact_bytes_parts_go_past_the_server_and_through_it() {
    let server = Server::today(|_| {}).await;
    let bytes = noise(2 * CELL + 7, 1);
    let upload = server.create_of(bytes.len() as u64).await;
    let asked = urls(&server, &upload, &json!({"part_numbers": [1, 3]})).await;
    let asked = asked.expect(200);
    assert_eq!(asked.header("cache-control"), Some("no-store"));
    let asked = asked.json();
    let parts = asked["parts"].as_array().unwrap();
    let members: Vec<_> = parts[0].as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "expires_at",
            "headers",
            "length",
            "method",
            "offset",
            "part_number",
            "url"
        ]
    );
    let [first, last] = [&parts[0], &parts[1]];
    for (part, number, offset, length) in [(first, 1, 0, CELL), (last, 3, 2 * CELL, 7)] {
        assert_eq!(part["part_number"], number);
        assert_eq!(part["offset"], offset);
        assert_eq!(part["length"], length);
        assert_eq!(part["method"], "PUT");
        assert_eq!(part["headers"]["content-length"], length.to_string());
    }
    put(first, &bytes[..usize::try_from(CELL).unwrap()])
        .await
        .expect(200);
    let put = put(last, &bytes[usize::try_from(2 * CELL).unwrap()..]).await;
    let etag = put.expect(200).header("ETag").unwrap();
    let arrived = told(&server, &upload, 3, &json!({ "etag": etag })).await;
    assert_eq!(arrived.expect(204).offset(), 0);
    assert!(arrived.header("Upload-Expires").is_some());
    assert_eq!(
        server.status(&upload).await["received"],
        json!([[2 * CELL, 2 * CELL + 7]])
    );
    let second = &bytes[usize::try_from(CELL).unwrap()..usize::try_from(2 * CELL).unwrap()];
    let chunk = server.put(&upload, CELL, second, bytes.len() as u64).await;
    assert_eq!(chunk.expect(204).offset(), 0);
    let completed = server.complete(&upload).await;
    let object = &completed.expect(201).json()["object"];
    assert_eq!(object["verified"], "readback");
    assert_eq!(server.content(&upload, &[]).await.expect(200).body, bytes);
}

#[tokio::test]
async fn what_cannot_go_directly_says_so() {
    for server in both().await {
        let upload = server.create_of(2 * CELL).await;
        let ask = json!({"part_numbers": [1]});
        if server.ground.s3.is_none() {
            urls(&server, &upload, &ask)
                .await
                .expect_problem(409, "direct_unavailable");
            told(&server, &upload, 1, &json!({}))
                .await
                .expect_problem(409, "direct_unavailable");
            continue;
        }
        urls(&server, &upload, &ask).await.expect(200);
        let missing = told(&server, &upload, 1, &json!({})).await;
        let missing = missing.expect_problem(409, "upload_incomplete").json();
        assert_eq!(missing["missing"], json!([[0, CELL]]));
        server.put(&upload, 0, b"1", 2 * CELL).await.expect(204);
        let there = urls(&server, &upload, &json!({"part_numbers": [1, 2]})).await;
        let there = there.expect_problem(409, "direct_unavailable").json();
        assert_eq!(there["part_numbers"], json!([1]));
        for wrong in [
            json!({}),
            json!({"part_numbers": [3]}),
            json!({"part_numbers": "1"}),
        ] {
            urls(&server, &upload, &wrong)
                .await
                .expect_problem(400, "bad_request");
        }
        told(&server, &upload, 3, &json!({}))
            .await
            .expect_problem(400, "bad_request");
        let nonsense = server.ask(&upload, "POST", "/parts/one", &[], b"").await;
        nonsense.expect_problem(400, "bad_request");
        server.abort(&upload).await.expect(204);
        urls(&server, &upload, &ask)
            .await
            .expect_problem(410, "session_expired");
    }
}

#[tokio::test]
async fn sealed_without_the_key_there_is_nothing_to_put_to() {
    for server in both().await {
        let mut upload = server.create_of(CELL).await;
        upload.key = server.create_of(1).await.key;
        let ask = urls(&server, &upload, &json!({"part_numbers": [1]})).await;
        ask.expect_problem(404, "not_found");
        told(&server, &upload, 1, &json!({}))
            .await
            .expect_problem(404, "not_found");
        for below in ["/parts/urls", "/parts/1"] {
            let path = upload.path(below);
            let keyless = server.call("POST", &path, &[], b"{}").await;
            keyless.expect_problem(404, "not_found");
        }
    }
}

#[tokio::test]
async fn no_one_is_invited_to_ask_about_what_is_not_there() {
    let server = Server::fs().await;
    let mut upload = server.create_of(1).await;
    upload.key = server.create_of(1).await.key;
    for below in ["/parts/urls", "/parts/1"] {
        let fields = [
            ("Upload-Key", upload.key.as_str()),
            ("Expect", "100-continue"),
            ("Content-Length", "2"),
        ];
        let mut connection = server.connect().await;
        connection.head("POST", &upload.path(below), &fields).await;
        let answer = connection.answer().await;
        answer.expect_problem(404, "not_found");
        assert_eq!(answer.informational, Vec::<u16>::new());
    }
}
