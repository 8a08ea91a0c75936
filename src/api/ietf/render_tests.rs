use std::collections::BTreeMap;

use http_body_util::BodyExt as _;

use super::super::{v3, v5, v6, v8};
use super::*;
use crate::engine::EngineError;
use crate::model::digest::Digests;
use crate::model::upload::{Declared, Epoch, FailureReason, HashPoint, Protocol, Role, Upload};
use crate::model::{ByteRange, Digest, DigestAlgorithm, Length, Plan, RangeSet, UploadKey};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const ALL: [&Dialect; 4] = [&v3::DIALECT, &v5::DIALECT, &v6::DIALECT, &v8::DIALECT];
fn id() -> UploadId {
    UploadId::from_bytes([7; 16])
}

fn wording(dialect: &'static Dialect) -> Wording {
    Wording {
        dialect,
        limits: Limits {
            max_size: 1000,
            max_append_size: Some(50),
        },
        now: NOW,
    }
}

fn place() -> Place {
    Place {
        location: HeaderValue::from_static("/resumable/abc"),
        id: id(),
        expires_at: Some(NOW.after(Duration::from_mins(1))),
    }
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
        content_type: None,
        digests: [
            digest(DigestAlgorithm::Sha256, "ab", 32),
            digest(DigestAlgorithm::Md5, "cd", 16),
        ]
        .into_iter()
        .collect(),
        etag: "tag".to_owned(),
        verified: crate::model::upload::Verified::Stream,
        store_checked: true,
    }
}

/// An upload of 100 bytes that has so many.
fn status(state: UploadState, received: u64) -> Status {
    let upload = Upload {
        id: id(),
        key_hash: UploadKey::generate().hash(),
        owner: crate::model::UploadOwner::default(),
        max_size: None,
        typed: false,
        protocol: Protocol::Ietf,
        role: Role::Whole,
        declared: Declared {
            metadata: BTreeMap::new(),
            digests: Digests::default(),
            ..Declared::default()
        },
        state,
        length: Some(Length(100)),
        plan: Plan::OneCell,
        epoch: Epoch(1),
        hash: HashPoint {
            offset: crate::model::Offset(0),
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
    };
    Status {
        upload,
        received: ByteRange::new(0, received)
            .into_iter()
            .collect::<RangeSet>(),
        sealed: None,
    }
}

fn completed() -> Status {
    let state = UploadState::Completed {
        object: object(),
        at: NOW,
    };
    status(state, 100)
}

fn assembling() -> Status {
    let state = UploadState::Assembling {
        attempts: 0,
        until: NOW,
    };
    status(state, 100)
}

/// Header fields in order of their names.
fn fields(headers: &HeaderMap) -> String {
    let mut fields: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
        .collect();
    fields.sort();
    fields.join("\n")
}

/// Status and header fields.
fn head(response: &Response) -> String {
    format!(
        "{}\n{}",
        response.status().as_u16(),
        fields(response.headers())
    )
}

/// The same answer in each version.
fn in_all(answer: impl Fn(Wording) -> Response) -> String {
    let one = |dialect: &&'static Dialect| {
        format!("# {}: {}", dialect.version, head(&answer(wording(dialect))))
    };
    ALL.iter().map(one).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_announcement_names_the_version_the_place_and_the_limits() {
    let shown = |dialect: &'static Dialect| fields(&wording(dialect).announcement(&place()));
    insta::assert_snapshot!(shown(&v3::DIALECT), @r#"
    location: /resumable/abc
    upload-draft-interop-version: 3
    "#);
    insta::assert_snapshot!(shown(&v5::DIALECT), @r#"
    location: /resumable/abc
    upload-draft-interop-version: 5
    "#);
    insta::assert_snapshot!(shown(&v6::DIALECT), @r#"
    location: /resumable/abc
    upload-draft-interop-version: 6
    upload-limit: max-size=1000, min-size=0, max-append-size=50, expires=60
    "#);
    insta::assert_snapshot!(shown(&v8::DIALECT), @r#"
    location: /resumable/abc
    upload-draft-interop-version: 8
    upload-limit: max-size=1000, min-size=0, max-append-size=50, max-age=60
    "#);
    insta::assert_snapshot!(fields(&progress(&v8::DIALECT, Offset(7))), @r#"
    upload-draft-interop-version: 8
    upload-offset: 7
    "#);
}

#[test]
fn a_creation_that_is_not_whole() {
    insta::assert_snapshot!(in_all(|say| say.created(say.part(StatusCode::CREATED, Offset(7)), &place())), @r#"
    # 3: 201
    cache-control: no-store
    location: /resumable/abc
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-incomplete: ?1
    upload-offset: 7
    # 5: 201
    cache-control: no-store
    location: /resumable/abc
    upload-complete: ?0
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-offset: 7
    # 6: 201
    cache-control: no-store
    location: /resumable/abc
    upload-complete: ?0
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-limit: max-size=1000, min-size=0, max-append-size=50, expires=60
    upload-offset: 7
    # 8: 201
    cache-control: no-store
    location: /resumable/abc
    upload-complete: ?0
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-limit: max-size=1000, min-size=0, max-append-size=50, max-age=60
    upload-offset: 7
    "#);
}

#[test]
fn an_append_that_is_not_the_last() {
    insta::assert_snapshot!(in_all(|say| say.part(say.dialect.appended, Offset(7))), @r#"
    # 3: 201
    cache-control: no-store
    upload-incomplete: ?1
    upload-offset: 7
    # 5: 201
    cache-control: no-store
    upload-complete: ?0
    upload-offset: 7
    # 6: 201
    cache-control: no-store
    upload-complete: ?0
    upload-offset: 7
    # 8: 204
    cache-control: no-store
    upload-complete: ?0
    upload-offset: 7
    "#);
}

#[tokio::test]
async fn a_final_answer() {
    insta::assert_snapshot!(in_all(|say| say.whole(id(), &object(), "/resumable/abc".to_owned())), @r#"
    # 3: 201
    cache-control: no-store
    content-type: application/json
    repr-digest: sha-256=:q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=:, md5=:zc3Nzc3Nzc3Nzc3Nzc3NzQ==:
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-incomplete: ?0
    upload-offset: 100
    # 5: 201
    cache-control: no-store
    content-type: application/json
    repr-digest: sha-256=:q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=:, md5=:zc3Nzc3Nzc3Nzc3Nzc3NzQ==:
    upload-complete: ?1
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-offset: 100
    # 6: 201
    cache-control: no-store
    content-type: application/json
    repr-digest: sha-256=:q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=:, md5=:zc3Nzc3Nzc3Nzc3Nzc3NzQ==:
    upload-complete: ?1
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-offset: 100
    # 8: 201
    cache-control: no-store
    content-type: application/json
    repr-digest: sha-256=:q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=:, md5=:zc3Nzc3Nzc3Nzc3Nzc3NzQ==:
    upload-complete: ?1
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-offset: 100
    "#);
    let answer = wording(&v8::DIALECT).whole(id(), &object(), "/resumable/abc".to_owned());
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("in memory")
        .to_bytes();
    insta::assert_snapshot!(String::from_utf8_lossy(&body), @r#"{"upload_id":"07070707-0707-0707-0707-070707070707","object":{"key":"k","size":100,"content_type":null,"digest":{"sha-256":"abababababababababababababababababababababababababababababababab","md5":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"},"etag":"abababababababababababababababababababababababababababababababab","url":"/resumable/abc","verified":"stream","store_checked":true}}"#);
}

#[test]
fn a_creation_that_is_whole_does_not_expire() {
    let place = Place {
        expires_at: None,
        ..place()
    };
    let say = wording(&v8::DIALECT);
    let answer = say.whole(id(), &object(), "/resumable/abc".to_owned());
    insta::assert_snapshot!(head(&say.created(answer, &place)), @r#"
    201
    cache-control: no-store
    content-type: application/json
    location: /resumable/abc
    repr-digest: sha-256=:q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=:, md5=:zc3Nzc3Nzc3Nzc3Nzc3NzQ==:
    upload-complete: ?1
    upload-id: 07070707-0707-0707-0707-070707070707
    upload-limit: max-size=1000, min-size=0, max-append-size=50
    upload-offset: 100
    "#);
}

#[test]
fn an_offset_of_an_upload_that_takes_bytes() {
    insta::assert_snapshot!(in_all(|say| say.retrieval(&status(UploadState::Uploading, 40))), @r#"
    # 3: 204
    cache-control: no-store
    upload-incomplete: ?1
    upload-offset: 40
    # 5: 204
    cache-control: no-store
    upload-complete: ?0
    upload-offset: 40
    # 6: 204
    cache-control: no-store
    upload-complete: ?0
    upload-length: 100
    upload-limit: max-size=1000, min-size=0, max-append-size=50, expires=60
    upload-offset: 40
    # 8: 204
    cache-control: no-store
    upload-complete: ?0
    upload-length: 100
    upload-limit: max-size=1000, min-size=0, max-append-size=50, max-age=60
    upload-offset: 40
    "#);
}

#[test]
fn an_offset_of_an_upload_that_is_being_completed() {
    insta::assert_snapshot!(in_all(|say| say.retrieval(&assembling())), @r#"
    # 3: 204
    cache-control: no-store
    upload-incomplete: ?1
    upload-offset: 100
    # 5: 204
    cache-control: no-store
    upload-complete: ?0
    upload-offset: 100
    # 6: 204
    cache-control: no-store
    upload-complete: ?0
    upload-limit: max-size=1000, min-size=0, max-append-size=50
    upload-offset: 100
    # 8: 204
    cache-control: no-store
    upload-complete: ?0
    upload-length: 100
    upload-limit: max-size=1000, min-size=0, max-append-size=50
    upload-offset: 100
    "#);
}

#[test]
fn an_offset_of_a_completed_upload() {
    insta::assert_snapshot!(in_all(|say| say.retrieval(&completed())), @r#"
    # 3: 204
    cache-control: no-store
    upload-incomplete: ?0
    upload-offset: 100
    # 5: 204
    cache-control: no-store
    upload-complete: ?1
    upload-offset: 100
    # 6: 204
    cache-control: no-store
    upload-complete: ?1
    upload-length: 100
    upload-limit: max-size=1000, min-size=0, max-append-size=50
    upload-offset: 100
    # 8: 204
    cache-control: no-store
    upload-complete: ?1
    upload-length: 100
    upload-limit: max-size=1000, min-size=0, max-append-size=50
    upload-offset: 100
    "#);
}

#[test]
fn what_is_being_completed_asks_for_patience() {
    let wait = Duration::from_millis(100);
    insta::assert_snapshot!(in_all(|say| say.working(Offset(100), wait)), @r#"
    # 3: 503
    cache-control: no-store
    content-type: application/problem+json
    retry-after: 1
    upload-incomplete: ?1
    upload-offset: 100
    # 5: 503
    cache-control: no-store
    content-type: application/problem+json
    retry-after: 1
    upload-complete: ?0
    upload-offset: 100
    # 6: 503
    cache-control: no-store
    content-type: application/problem+json
    retry-after: 1
    upload-complete: ?0
    upload-offset: 100
    # 8: 503
    cache-control: no-store
    content-type: application/problem+json
    retry-after: 1
    upload-complete: ?0
    upload-offset: 100
    "#);
}

#[test]
fn options_tell_limits_where_uploads_are_created() {
    let ttl = Some(Duration::from_mins(2));
    insta::assert_snapshot!(in_all(|say| say.options("POST", ttl)), @r#"
    # 3: 204
    accept-patch: application/partial-upload
    allow: POST
    cache-control: no-store
    # 5: 204
    accept-patch: application/partial-upload
    allow: POST
    cache-control: no-store
    # 6: 204
    accept-patch: application/partial-upload
    allow: POST
    cache-control: no-store
    upload-limit: max-size=1000, min-size=0, max-append-size=50, expires=120
    # 8: 204
    accept-patch: application/partial-upload
    allow: POST
    cache-control: no-store
    upload-limit: max-size=1000, min-size=0, max-append-size=50, max-age=120
    "#);
    insta::assert_snapshot!(head(&wording(&v8::DIALECT).options("HEAD", None)), @r#"
    204
    accept-patch: application/partial-upload
    allow: HEAD
    cache-control: no-store
    "#);
}

/// An append at byte 3 that failed like this.
fn refusal(say: Wording, error: EngineError, upload: Option<&Status>) -> Response {
    say.refusal(problem::of(error, say.dialect, Some(Offset(3))), upload)
}

#[test]
fn a_refusal_says_how_far_the_upload_got() {
    let wrong = || EngineError::OutOfOrder {
        expected: Offset(40),
    };
    let live = status(UploadState::Uploading, 40);
    insta::assert_snapshot!(in_all(|say| refusal(say, wrong(), Some(&live))), @r#"
    # 3: 409
    cache-control: no-store
    content-type: application/problem+json
    upload-incomplete: ?1
    upload-offset: 40
    # 5: 409
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?0
    upload-offset: 40
    # 6: 409
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?0
    upload-offset: 40
    # 8: 409
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?0
    upload-offset: 40
    "#);
    insta::assert_snapshot!(in_all(|say| refusal(say, wrong(), Some(&completed()))), @r#"
    # 3: 400
    cache-control: no-store
    content-type: application/problem+json
    upload-incomplete: ?0
    upload-offset: 100
    # 5: 400
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?1
    upload-offset: 100
    # 6: 400
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?1
    upload-offset: 100
    # 8: 400
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?0
    upload-offset: 100
    "#);
    let large = || EngineError::TooLarge { max: Length(9) };
    insta::assert_snapshot!(head(&refusal(wording(&v8::DIALECT), large(), Some(&live))), @r#"
    413
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?0
    upload-limit: max-size=1000, min-size=0, max-append-size=50
    upload-offset: 40
    "#);
    insta::assert_snapshot!(head(&refusal(wording(&v8::DIALECT), large(), None)), @r#"
    413
    cache-control: no-store
    content-type: application/problem+json
    upload-limit: max-size=1000, min-size=0, max-append-size=50
    "#);
    let other = EngineError::unavailable("away");
    insta::assert_snapshot!(head(&refusal(wording(&v8::DIALECT), other, Some(&assembling()))), @r#"
    503
    cache-control: no-store
    content-type: application/problem+json
    retry-after: 5
    upload-complete: ?0
    upload-offset: 100
    "#);
}

#[test]
fn a_refusal_says_nothing_of_an_upload_that_has_ended() {
    let aborted = status(UploadState::Aborted { at: NOW }, 40);
    let gone =
        |upload: Option<&Status>| head(&refusal(wording(&v8::DIALECT), EngineError::Gone, upload));
    insta::assert_snapshot!(gone(Some(&aborted)), @r#"
    410
    cache-control: no-store
    content-type: application/problem+json
    "#);
    assert_eq!(gone(None), gone(Some(&aborted)));
}

#[test]
fn an_upload_of_wrong_bytes_is_not_gone_on_with() {
    let wrong = || EngineError::DigestMismatch {
        algorithm: DigestAlgorithm::Sha256,
    };
    let reason = FailureReason::DigestMismatch;
    let failed = status(UploadState::Failed { reason, at: NOW }, 100);
    insta::assert_snapshot!(in_all(|say| refusal(say, wrong(), Some(&failed))), @r#"
    # 3: 422
    cache-control: no-store
    content-type: application/problem+json
    upload-incomplete: ?0
    # 5: 422
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?1
    # 6: 422
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?1
    # 8: 422
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?1
    "#);
    let live = status(UploadState::Uploading, 40);
    insta::assert_snapshot!(head(&refusal(wording(&v8::DIALECT), wrong(), Some(&live))), @r#"
    422
    cache-control: no-store
    content-type: application/problem+json
    upload-complete: ?0
    upload-offset: 40
    "#);
}
