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
        size: Length(100),
        content_type: None,
        digests: [
            digest(DigestAlgorithm::Sha256, "ab", 32),
            digest(DigestAlgorithm::Md5, "cd", 16),
        ]
        .into_iter()
        .collect(),
        etag: "tag".to_owned(),
        verified: true,
    }
}

/// An upload of 100 bytes that has so many.
fn status(state: UploadState, received: u64) -> Status {
    let upload = Upload {
        id: id(),
        key_hash: UploadKey::generate().hash(),
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
    insta::assert_snapshot!(shown(&v3::DIALECT), @"");
    insta::assert_snapshot!(shown(&v5::DIALECT), @"");
    insta::assert_snapshot!(shown(&v6::DIALECT), @"");
    insta::assert_snapshot!(shown(&v8::DIALECT), @"");
    insta::assert_snapshot!(fields(&progress(&v8::DIALECT, Offset(7))), @"");
}

#[test]
fn a_creation_that_is_not_whole() {
    insta::assert_snapshot!(in_all(|say| say.created(say.part(StatusCode::CREATED, Offset(7)), &place())), @"");
}

#[test]
fn an_append_that_is_not_the_last() {
    insta::assert_snapshot!(in_all(|say| say.part(say.dialect.appended, Offset(7))), @"");
}

#[tokio::test]
async fn a_final_answer() {
    insta::assert_snapshot!(in_all(|say| say.whole(id(), &object(), "/resumable/abc".to_owned())), @"");
    let answer = wording(&v8::DIALECT).whole(id(), &object(), "/resumable/abc".to_owned());
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("in memory")
        .to_bytes();
    insta::assert_snapshot!(String::from_utf8_lossy(&body), @"");
}

#[test]
fn a_creation_that_is_whole_does_not_expire() {
    let place = Place {
        expires_at: None,
        ..place()
    };
    let say = wording(&v8::DIALECT);
    let answer = say.whole(id(), &object(), "/resumable/abc".to_owned());
    insta::assert_snapshot!(head(&say.created(answer, &place)), @"");
}

#[test]
fn an_offset_of_an_upload_that_takes_bytes() {
    insta::assert_snapshot!(in_all(|say| say.retrieval(&status(UploadState::Uploading, 40))), @"");
}

#[test]
fn an_offset_of_an_upload_that_is_being_completed() {
    insta::assert_snapshot!(in_all(|say| say.retrieval(&assembling())), @"");
}

#[test]
fn an_offset_of_a_completed_upload() {
    insta::assert_snapshot!(in_all(|say| say.retrieval(&completed())), @"");
}

#[test]
fn what_is_being_completed_asks_for_patience() {
    let wait = Duration::from_millis(100);
    insta::assert_snapshot!(in_all(|say| say.working(Offset(100), wait)), @"");
}

#[test]
fn options_tell_limits_where_uploads_are_created() {
    let ttl = Some(Duration::from_mins(2));
    insta::assert_snapshot!(in_all(|say| say.options("POST", ttl)), @"");
    insta::assert_snapshot!(head(&wording(&v8::DIALECT).options("HEAD", None)), @"");
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
    insta::assert_snapshot!(in_all(|say| refusal(say, wrong(), Some(&live))), @"");
    insta::assert_snapshot!(in_all(|say| refusal(say, wrong(), Some(&completed()))), @"");
    let large = || EngineError::TooLarge { max: Length(9) };
    insta::assert_snapshot!(head(&refusal(wording(&v8::DIALECT), large(), Some(&live))), @"");
    insta::assert_snapshot!(head(&refusal(wording(&v8::DIALECT), large(), None)), @"");
    let other = EngineError::unavailable("away");
    insta::assert_snapshot!(head(&refusal(wording(&v8::DIALECT), other, Some(&assembling()))), @"");
}

#[test]
fn a_refusal_says_nothing_of_an_upload_that_has_ended() {
    let aborted = status(UploadState::Aborted { at: NOW }, 40);
    let gone =
        |upload: Option<&Status>| head(&refusal(wording(&v8::DIALECT), EngineError::Gone, upload));
    insta::assert_snapshot!(gone(Some(&aborted)), @"");
    assert_eq!(gone(None), gone(Some(&aborted)));
}

#[test]
fn an_upload_of_wrong_bytes_is_not_gone_on_with() {
    let wrong = || EngineError::DigestMismatch {
        algorithm: DigestAlgorithm::Sha256,
    };
    let reason = FailureReason::DigestMismatch;
    let failed = status(UploadState::Failed { reason, at: NOW }, 100);
    insta::assert_snapshot!(in_all(|say| refusal(say, wrong(), Some(&failed))), @"");
    let live = status(UploadState::Uploading, 40);
    insta::assert_snapshot!(head(&refusal(wording(&v8::DIALECT), wrong(), Some(&live))), @"");
}
