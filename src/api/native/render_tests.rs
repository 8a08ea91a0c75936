use std::time::Duration;

use http_body_util::BodyExt as _;

use super::*;
use crate::api::session::Advice;
use crate::model::Object;
use crate::model::upload::{Declared, Epoch, FailureReason, HashPoint, Protocol, Role};
use crate::model::{
    ByteRange, Digest, DigestAlgorithm, Length, Offset, Plan, RangeSet, Upload, UploadKey,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn settings() -> Settings {
    Settings {
        base: "/v1/uploads".to_owned(),
        public_url: String::new(),
        advice: Advice {
            chunk_size: 1024,
            max_parallel_chunks: 4,
        },
        json_timeout: Duration::from_secs(1),
    }
}

fn upload(state: UploadState) -> Upload {
    Upload {
        id: UploadId::from_bytes([7; 16]),
        key_hash: UploadKey::generate().hash(),
        owner: crate::model::UploadOwner::default(),
        max_size: None,
        typed: false,
        protocol: Protocol::Native,
        role: Role::Whole,
        declared: Declared {
            filename: Some("é.jpg".to_owned()),
            content_type: Some("image/jpeg".to_owned()),
            metadata: BTreeMap::from([("album".to_owned(), "1".to_owned())]),
            metadata_field: None,
            digests: Digests::default(),
            sequential: false,
        },
        state,
        length: Some(Length(100)),
        plan: Plan::OneCell,
        epoch: Epoch(1),
        hash: HashPoint {
            offset: Offset(0),
            state: Vec::new(),
        },
        readback: false,
        boot: String::new(),
        store_key: "k".parse().expect("a key"),
        store_upload_id: None,
        unchecked: false,
        created_at: NOW,
        updated_at: NOW,
        expires_at: NOW.after(Duration::from_mins(1)),
        sealed: None,
    }
}

fn link() -> String {
    "/a/signed/link".to_owned()
}

fn object() -> Object {
    let digest = |algorithm, byte: &str, len: usize| {
        Digest::from_hex(algorithm, &byte.repeat(len)).expect("hex")
    };
    Object {
        key: "k".parse().expect("a key"),
        first: UploadId::from_bytes([7; 16]),
        space: crate::model::SpaceName::default(),
        shared: false,
        size: Length(100),
        content_type: Some("image/jpeg".to_owned()),
        digests: [digest(DigestAlgorithm::Sha256, "ab", 32)]
            .into_iter()
            .collect(),
        etag: "store-tag".to_owned(),
        verified: crate::model::upload::Verified::Stream,
        store_checked: true,
    }
}

/// Status, header fields, body.
async fn shown(response: Response) -> String {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("in memory").to_bytes();
    let fields: Vec<String> = parts
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
        .collect();
    let text = String::from_utf8(body.to_vec()).expect("text");
    format!("{}\n{}\n\n{text}", parts.status, fields.join("\n"))
        .trim()
        .to_owned()
}

#[tokio::test]
async fn a_creation_shows_the_key_once() {
    let created = Created {
        upload: upload(UploadState::Pending),
        key: UploadKey::generate(),
    };
    let text = shown(super::created(&created, link(), &settings())).await;
    let text = text.replace(&created.key.reveal(), "(key)");
    insta::assert_snapshot!(text, @r#"
201 Created
cache-control: no-store
content-type: application/json
location: /v1/uploads/07070707-0707-0707-0707-070707070707
upload-expires: Tue, 14 Nov 2023 22:14:20 GMT

{"upload_id":"07070707-0707-0707-0707-070707070707","upload_key":"(key)","chunk_size":1024,"max_parallel_chunks":4,"length":100,"expires_at":"2023-11-14T22:14:20Z","received":[]}
"#);
}

#[tokio::test]
async fn an_upload_in_order_advises_one_chunk_at_a_time_and_urls_may_be_absolute() {
    let mut created = Created {
        upload: upload(UploadState::Pending),
        key: UploadKey::generate(),
    };
    created.upload.declared.sequential = true;
    let settings = Settings {
        public_url: "https://u.example".to_owned(),
        ..settings()
    };
    let text = shown(super::created(&created, link(), &settings)).await;
    assert!(text.contains("\"max_parallel_chunks\":1,"), "{text}");
    assert!(
        text.contains("location: https://u.example/v1/uploads/07070707-"),
        "{text}"
    );
}

#[tokio::test]
async fn progress_is_told_in_header_fields() {
    let done = Written {
        offset: Offset(42),
        length: None,
        expires_at: NOW,
    };
    insta::assert_snapshot!(shown(written(done)).await, @r#"
204 No Content
cache-control: no-store
upload-offset: 42
upload-expires: Tue, 14 Nov 2023 22:13:20 GMT
"#);
    insta::assert_snapshot!(shown(aborted()).await, @r#"
204 No Content
cache-control: no-store
"#);
}

#[tokio::test]
async fn a_status_tells_what_is_known() {
    let ranges = [(0, 10), (20, 30)];
    let mut known = Status {
        sealed: None,
        upload: upload(UploadState::Uploading),
        received: ranges
            .into_iter()
            .filter_map(|(a, b)| ByteRange::new(a, b))
            .collect(),
    };
    insta::assert_snapshot!(shown(status(&known, link())).await, @r#"
200 OK
cache-control: no-store
content-type: application/json
upload-offset: 10
upload-length: 100
upload-expires: Tue, 14 Nov 2023 22:14:20 GMT

{"upload_id":"07070707-0707-0707-0707-070707070707","state":"uploading","length":100,"offset":10,"received":[[0,10],[20,30]],"expires_at":"2023-11-14T22:14:20Z","filename":"é.jpg","content_type":"image/jpeg","metadata":{"album":"1"}}
"#);
    known.upload.state = UploadState::Failed {
        reason: FailureReason::StoreLost,
        at: NOW,
    };
    known.received = RangeSet::new();
    known.upload.length = None;
    let text = shown(status(&known, link())).await;
    assert!(text.contains(r#""failure_reason":"store_lost""#), "{text}");
    assert!(
        text.contains(r#""state":"failed","length":null,"offset":0,"received":[]"#),
        "{text}"
    );
    known.upload.state = UploadState::Completed {
        object: object(),
        at: NOW,
    };
    let text = shown(status(&known, link())).await;
    assert!(text.contains(r#""object":{"key":"k""#), "{text}");
}

#[tokio::test]
async fn a_completion_tells_the_object_or_asks_for_patience() {
    let upload = upload(UploadState::Completed {
        object: object(),
        at: NOW,
    });
    let id = upload.id;
    let done = |repeated| Completion::Done {
        object: object(),
        repeated,
    };
    let first = shown(completion(id, &done(false), link())).await;
    insta::assert_snapshot!(first, @r#"
201 Created
cache-control: no-store
content-type: application/json

{"upload_id":"07070707-0707-0707-0707-070707070707","object":{"key":"k","size":100,"content_type":"image/jpeg","digest":{"sha-256":"abababababababababababababababababababababababababababababababab"},"etag":"abababababababababababababababababababababababababababababababab","url":"/a/signed/link","verified":"stream","store_checked":true}}
"#);
    let again = shown(completion(id, &done(true), link())).await;
    assert_eq!(again, first.replace("201 Created", "200 OK"));
    let working = Completion::Working {
        retry_after: Duration::from_millis(300),
    };
    insta::assert_snapshot!(shown(completion(id, &working, link())).await, @r#"
202 Accepted
cache-control: no-store
content-type: application/json
retry-after: 1

{"upload_id":"07070707-0707-0707-0707-070707070707","state":"assembling"}
"#);
}
