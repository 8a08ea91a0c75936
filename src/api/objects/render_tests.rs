use http_body_util::BodyExt as _;

use super::*;
use crate::api::session::Advice;
use crate::engine::Status;
use crate::model::digest::Digests;
use crate::model::upload::{Declared, Epoch, FailureReason, HashPoint, Protocol, Role, Verified};
use crate::model::{
    ByteRange, Digest, DigestAlgorithm, Offset, Plan, Timestamp, Upload, UploadId, UploadKey,
    UploadState,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn settings() -> Settings {
    Settings {
        base: "/v1/objects".to_owned(),
        sessions: "/v1/uploads".to_owned(),
        public_url: "https://up.example".to_owned(),
        max_size: Length(1000),
        advice: Advice {
            chunk_size: 1024,
            max_parallel_chunks: 4,
        },
        form_timeout: Duration::from_secs(1),
    }
}

fn handle() -> Handle {
    Handle {
        id: UploadId::from_bytes([7; 16]),
        key: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"
            .parse()
            .expect("a key"),
    }
}

fn upload() -> Upload {
    Upload {
        id: handle().id,
        key_hash: UploadKey::generate().hash(),
        owner: crate::model::UploadOwner::default(),
        max_size: None,
        typed: false,
        protocol: Protocol::Objects,
        role: Role::Whole,
        declared: Declared::default(),
        state: UploadState::Uploading,
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
    let sha256 = Digest::from_hex(DigestAlgorithm::Sha256, &"ab".repeat(32));
    Object {
        key: "k".parse().expect("a key"),
        first: handle().id,
        space: crate::model::SpaceName::default(),
        shared: false,
        size: Length(100),
        content_type: Some("image/jpeg".to_owned()),
        digests: Digests::from_iter([sha256.expect("hex")]),
        etag: "store-tag".to_owned(),
        verified: Verified::Stream,
        store_checked: true,
    }
}

/// Status, header fields, body.
async fn shown(outcome: Outcome) -> String {
    let answer = taken(
        &Taken {
            handle: handle(),
            outcome,
        },
        link(),
        &settings(),
    );
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.expect("in memory").to_bytes();
    let fields: Vec<String> = parts
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
        .collect();
    let text = String::from_utf8(body.to_vec()).expect("text");
    format!("{}\n{}\n\n{text}", parts.status, fields.join("\n"))
}

#[tokio::test]
async fn an_object_comes_with_the_key_that_reads_it() {
    insta::assert_snapshot!(shown(Outcome::Done(Box::new(object()))).await, @r#"
    201 Created
    cache-control: no-store
    content-type: application/json
    location: https://up.example/v1/uploads/07070707-0707-0707-0707-070707070707/content
    etag: "abababababababababababababababababababababababababababababababab"

    {"upload_id":"07070707-0707-0707-0707-070707070707","object":{"key":"k","size":100,"content_type":"image/jpeg","digest":{"sha-256":"abababababababababababababababababababababababababababababababab"},"etag":"abababababababababababababababababababababababababababababababab","url":"/a/signed/link","verified":"stream","store_checked":true},"upload_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"}
    "#);
}

#[tokio::test]
async fn what_is_staged_is_a_session() {
    let staged = Status {
        upload: upload(),
        received: ByteRange::new(0, 100).into_iter().collect(),
        sealed: None,
    };
    insta::assert_snapshot!(shown(Outcome::Staged(Box::new(staged))).await, @r#"
    201 Created
    cache-control: no-store
    content-type: application/json
    location: https://up.example/v1/uploads/07070707-0707-0707-0707-070707070707

    {"upload_id":"07070707-0707-0707-0707-070707070707","upload_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE","chunk_size":1024,"max_parallel_chunks":4,"length":100,"expires_at":"2023-11-14T22:14:20Z","received":[[0,100]]}
    "#);
}

#[tokio::test]
async fn what_is_being_made_can_be_asked_for() {
    let retry_after = Duration::from_millis(2500);
    insta::assert_snapshot!(shown(Outcome::Working { retry_after }).await, @r#"
    202 Accepted
    cache-control: no-store
    content-type: application/json
    location: https://up.example/v1/uploads/07070707-0707-0707-0707-070707070707
    retry-after: 2

    {"upload_id":"07070707-0707-0707-0707-070707070707","state":"assembling","upload_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"}
    "#);
}

fn refused(error: EngineError) -> String {
    let mut json = refusal(error).to_json();
    let members = json.as_object_mut().expect("an object");
    for constant in ["type", "title"] {
        members.remove(constant);
    }
    if members.contains_key("incident") {
        members.insert("incident".to_owned(), "…".into());
    }
    json.to_string()
}

#[test]
fn refusals_say_that_nothing_is_kept_and_name_no_offset() {
    let broken = |source| {
        refused(EngineError::BodyBroken {
            offset: Offset(5),
            source,
        })
    };
    insta::assert_snapshot!(broken(BodyError::Cut("reset by 10.0.0.1".into())), @r#"{"code":"bad_request","detail":"the body ended early; nothing of it is kept","status":400}"#);
    insta::assert_snapshot!(broken(BodyError::Stalled(Duration::from_mins(1))), @r#"{"code":"bad_request","detail":"the body ended early: nothing came for 60 s; nothing of it is kept","status":400}"#);
    insta::assert_snapshot!(broken(BodyError::Malformed("the form is odd".into())), @r#"{"code":"bad_request","detail":"the form is odd; nothing of it is kept","status":400}"#);
    insta::assert_snapshot!(broken(BodyError::ShuttingDown), @r#"{"code":"store_unavailable","detail":"it cannot be taken now; nothing of it is kept","incident":"…","retry_after_secs":1,"status":503}"#);
    let mismatch = |conflict| {
        refused(EngineError::RangeMismatch {
            conflict,
            detail: "what came is kept".to_owned(),
            length: Some(Length(10)),
            expected_offset: Some(Offset(5)),
        })
    };
    insta::assert_snapshot!(mismatch(Conflict::Short), @r#"{"code":"range_mismatch","detail":"the file ended before the 10 bytes that were announced; nothing of it is kept","length":10,"status":409}"#);
    insta::assert_snapshot!(mismatch(Conflict::Beyond), @r#"{"code":"range_mismatch","detail":"the file has more than the 10 bytes that were announced; nothing of it is kept","length":10,"status":409}"#);
}

#[test]
fn other_refusals_are_those_of_every_protocol() {
    insta::assert_snapshot!(refused(EngineError::TooLarge { max: Length(10) }), @r#"{"code":"upload_limit","detail":"at most 10 bytes are taken","max_size":10,"status":413}"#);
    insta::assert_snapshot!(refused(EngineError::DigestMismatch { algorithm: DigestAlgorithm::Sha256 }), @r#"{"algorithm":"sha-256","code":"digest_mismatch","detail":"the sha-256 digest is not that of the bytes that came","status":422}"#);
    insta::assert_snapshot!(refused(EngineError::Failed { reason: FailureReason::StoreLost }), @r#"{"code":"upload_failed","detail":"the upload failed: store_lost","failure_reason":"store_lost","status":409}"#);
    insta::assert_snapshot!(refused(EngineError::Displaced), @r#"{"code":"store_unavailable","detail":"it cannot be taken now; nothing of it is kept","incident":"…","retry_after_secs":5,"status":503}"#);
}
