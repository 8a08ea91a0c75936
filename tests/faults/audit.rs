//! What has to hold in every cell.

use jumar::model::UploadId;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::bench::Bench;
use crate::client::File;
use crate::support::http::Answer;

/// An answer is one of the contract: a refusal has its word, and whoever is to come back is told when.
pub(crate) fn sound(answer: &Answer) {
    let retry = answer.header("Retry-After").map(str::parse::<u64>);
    match answer.status {
        202 => assert!(matches!(retry, Some(Ok(1..))), "{answer:?}"),
        503 => {
            answer.expect_problem(503, "store_unavailable");
            assert!(matches!(retry, Some(Ok(1..))), "{answer:?}");
        }
        409 => assert!(
            [
                "direct_unavailable",
                "upload_completed",
                "upload_incomplete"
            ]
            .contains(&answer.code().as_str()),
            "{answer:?}"
        ),
        410 => {
            answer.expect_problem(410, "session_expired");
        }
        status => assert!(status < 300, "{answer:?}: {}", answer.text()),
    }
    if !matches!(answer.status, 200 | 201) {
        assert!(!answer.text().contains("\"object\""), "{answer:?}");
    }
}

/// A status names an object when the upload is completed, and not before.
pub(crate) fn names_no_object_early(status: &Value) {
    let completed = status["state"] == "completed";
    assert_eq!(status.get("object").is_some(), completed, "{status}");
}

/// The object that an answer names is there, and is the file.
pub(crate) fn object_of(bench: &Bench, file: &File, answer: &Answer) {
    let json = answer.json();
    let object = &json["object"];
    let key = object["key"].as_str().expect("a key");
    let stored = bench.server.s3_server().backend().bytes(key);
    assert!(
        stored.is_some_and(|stored| stored == file.bytes),
        "the object is not the file: {json}"
    );
    let digest = &object["digest"];
    if let Some(sha256) = digest["sha-256"].as_str() {
        assert_eq!(sha256, hex::encode(Sha256::digest(&file.bytes)), "{json}");
    } else {
        // Where the store's own checksum is taken, nobody knows the SHA-256.
        assert!(digest["crc64nvme"].is_string(), "{json}");
    }
    assert_eq!(object["size"], file.bytes.len(), "{json}");
}

/// How many events of a kind an upload had.
pub(crate) fn events(bench: &Bench, file: &File, kind: &str) -> i64 {
    let id: UploadId = file.upload().id.parse().expect("an id");
    let path = bench.server.ground.folder.path().join("jumar.db");
    let db = rusqlite::Connection::open(path).unwrap();
    let counted = db.query_row(
        "SELECT count(*) FROM events WHERE kind = ?1 AND upload_id = ?2",
        rusqlite::params![kind, id.as_bytes().as_slice()],
        |row| row.get(0),
    );
    counted.unwrap()
}

/// A completed upload: one object, one completion, told again as it was told first.
pub(crate) async fn completed_once(bench: &Bench, file: &File) {
    let told = ["completed", "failed"].map(|kind| events(bench, file, kind));
    assert_eq!(told, [1, 0], "completed and failed");
    let status = bench.server.status(file.upload()).await;
    names_no_object_early(&status);
    let again = bench.server.complete(file.upload()).await;
    again.expect(200);
    object_of(bench, file, &again);
    assert_eq!(again.json()["object"], status["object"]);
}
