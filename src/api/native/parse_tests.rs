use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::api::error::Code;
use crate::engine::Expected;
use crate::model::DigestAlgorithm;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("a value"),
        );
    }
    headers
}

fn refused(body: &str) -> String {
    let problem = create(&HeaderMap::new(), body.as_bytes()).expect_err(body);
    assert_eq!(problem.code, Code::BadRequest, "{body}");
    problem.detail
}

#[test]
fn nothing_has_to_be_declared() {
    for body in ["", "{}"] {
        let command = create(
            &headers(&[("content-type", "text/plain")][..usize::from(body.is_empty())]),
            body.as_bytes(),
        )
        .expect("sound");
        assert_eq!(command.declared, Declared::default());
        assert_eq!(command.length, None);
        assert!(command.idempotency.is_none());
    }
}

#[test]
fn everything_can_be_declared() {
    let hex = "ab".repeat(32);
    let body = format!(
        r#"{{"filename":"../é\u202e.jpg","length":7,"content_type":"image/jpeg; q=1","metadata":{{"a":"b"}},"digest":{{"sha-256":"{hex}","crc32c":"00000001"}},"sequential":true}}"#
    );
    let fields = headers(&[
        ("content-type", "application/json; charset=utf-8"),
        ("idempotency-key", "0123456789012345678901"),
    ]);
    let command = create(&fields, body.as_bytes()).expect("sound");
    assert_eq!(
        command.declared.filename.as_deref(),
        Some("../é\u{202e}.jpg")
    );
    assert_eq!(
        command.declared.content_type.as_deref(),
        Some("image/jpeg; q=1")
    );
    assert_eq!(command.declared.metadata["a"], "b");
    assert!(
        command
            .declared
            .digests
            .get(DigestAlgorithm::Sha256)
            .is_some()
    );
    assert!(
        command
            .declared
            .digests
            .get(DigestAlgorithm::Crc32c)
            .is_some()
    );
    assert!(command.declared.sequential);
    assert_eq!(command.length, Some(Length(7)));
    let debug = format!("{command:?}");
    assert!(!debug.contains("0123456789012345678901"), "{debug}");
}

#[test]
fn what_cannot_be_declared_is_refused_with_the_reason() {
    insta::assert_snapshot!(refused("{"), @"the JSON cannot be taken: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(refused("[]"), @"the JSON has to be an object");
    insta::assert_snapshot!(refused(r#"{"file_name":"a"}"#), @"the JSON cannot be taken: unknown field `file_name`, expected one of `filename`, `length`, `content_type`, `metadata`, `digest`, `sequential` at line 1 column 12");
    insta::assert_snapshot!(refused(r#"{"length":-1}"#), @"the JSON cannot be taken: invalid value: integer `-1`, expected u64 at line 1 column 12");
    insta::assert_snapshot!(refused(r#"{"digest":{"sha-256":"abcd"}}"#), @"digest: a sha-256 digest is 32 bytes in hex, 64 characters");
    insta::assert_snapshot!(refused(r#"{"content_type":"jpeg"}"#), @"content_type has to be a media type, as in image/jpeg");
    for name in [r"a\u0000b", r"a\nb", r"a\u007fb", r"\u0085"] {
        let detail = refused(&format!(r#"{{"filename":"{name}"}}"#));
        assert_eq!(detail, "filename may have no control characters");
    }
    for body in [
        format!(r#"{{"filename":"{}"}}"#, "a".repeat(10_000)),
        format!(r#"{{"metadata":{{"a":"{}"}}}}"#, "a".repeat(4096)),
        r#"{"metadata":{"a":1}}"#.to_owned(),
        r#"{"digest":{"sha-3":"00"}}"#.to_owned(),
        r#"{"length":1.5}"#.to_owned(),
        r#"{"length":99999999999999999999999}"#.to_owned(),
        r#"{"content_type":"*/*"}"#.to_owned(),
        r#"{"content_type":"image/jpeg\r\nX: y"}"#.to_owned(),
        format!("{{\"metadata\":{}", "[".repeat(60_000)),
    ] {
        refused(&body);
    }
}

#[test]
fn only_json_is_taken_as_json() {
    for other in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
    ] {
        let problem = create(&headers(&[("content-type", other)]), b"{}").expect_err(other);
        assert_eq!(problem.code, Code::UnsupportedMediaType, "{other}");
    }
}

#[test]
fn idempotency_keys_are_long_enough_and_visible() {
    for key in [
        "012345678901234567890",
        "",
        "0123456789 0123456789 0123456789",
    ] {
        let problem = create(&headers(&[("idempotency-key", key)]), b"").expect_err(key);
        assert_eq!(problem.code, Code::BadRequest);
        assert!(key.is_empty() || !problem.detail.contains(key));
    }
    let long = "a".repeat(256);
    create(&headers(&[("idempotency-key", &long)]), b"").expect_err("too long");
}

#[test]
fn sealed_whatever_is_wrong_with_id_or_key_looks_the_same() {
    let id = UploadId::generate().to_string();
    let key = UploadKey::generate().reveal();
    credentials(&id, &headers(&[("upload-key", &key)])).expect("sound");
    let unknown = Problem::no_such_upload().to_json();
    for (id, fields) in [
        (id.as_str(), &[][..]),
        (&id, &[("upload-key", "short")]),
        (&id, &[("upload-key", &key), ("upload-key", &key)]),
        ("not-an-id", &[("upload-key", &key)]),
        ("..%2f", &[]),
    ] {
        let problem = credentials(id, &headers(fields)).expect_err("wrong");
        assert_eq!(problem.to_json(), unknown);
        // The key is looked at before the rest of a chunk.
        let problem = chunk(id, &headers(fields)).expect_err("wrong");
        assert_eq!(problem.to_json(), unknown);
    }
}

fn chunk_with(fields: &[(&'static str, &str)]) -> Result<Chunk, Problem> {
    let key = UploadKey::generate().reveal();
    let mut all = headers(fields);
    all.insert(UPLOAD_KEY, HeaderValue::from_str(&key).expect("base64"));
    chunk(&UploadId::generate().to_string(), &all)
}

#[test]
fn a_chunk_becomes_a_write_or_a_question() {
    let Ok(Chunk::Write(write)) = chunk_with(&[
        ("content-range", "bytes 5-9/20"),
        ("content-length", "5"),
        ("content-digest", "crc32c=:AAAAAQ==:"),
    ]) else {
        panic!("a write");
    };
    assert_eq!((write.start, write.end), (Offset(5), Some(Offset(10))));
    assert_eq!(write.length, Some(Length(20)));
    assert!(
        matches!(write.digests, Expected::Known(known) if known.get(DigestAlgorithm::Crc32c).is_some())
    );
    // Without Content-Length the body is in chunks, and its range tells where it ends.
    assert!(matches!(
        chunk_with(&[
            ("content-range", "bytes 5-9/*"),
            ("transfer-encoding", "chunked")
        ]),
        Ok(Chunk::Write(Write { length: None, .. }))
    ));
    assert!(matches!(
        chunk_with(&[("content-range", "bytes */20"), ("content-length", "0")]),
        Ok(Chunk::Ask {
            length: Some(Length(20)),
            ..
        })
    ));
    assert!(matches!(
        chunk_with(&[("content-range", "bytes */*")]),
        Ok(Chunk::Ask { length: None, .. })
    ));
}

#[test]
fn a_chunk_that_contradicts_itself_is_refused() {
    for (fields, code) in [
        (&[][..], Code::BadRequest),
        (&[("transfer-encoding", "chunked")], Code::BadRequest),
        (
            &[
                ("content-range", "bytes 0-1/2"),
                ("content-range", "bytes 0-1/2"),
            ],
            Code::BadRequest,
        ),
        (
            &[("content-range", "bytes 0-1/2"), ("content-length", "3")],
            Code::RangeMismatch,
        ),
        (
            &[("content-range", "bytes 0-1/2"), ("content-length", "0")],
            Code::RangeMismatch,
        ),
        (
            &[("content-range", "bytes */2"), ("content-length", "2")],
            Code::RangeMismatch,
        ),
        (
            &[
                ("content-range", "bytes 0-1/2"),
                ("content-digest", "new=:AA==:"),
            ],
            Code::BadRequest,
        ),
    ] {
        assert_eq!(
            chunk_with(fields).expect_err("refused").code,
            code,
            "{fields:?}"
        );
    }
}

#[test]
fn a_completion_may_bring_digest_and_length() {
    let credentials = Credentials {
        id: UploadId::generate(),
        key: UploadKey::generate(),
    };
    let command = complete(
        credentials.clone(),
        &HeaderMap::new(),
        br#"{"length":3,"digest":{"crc32c":"00000001"}}"#,
    )
    .expect("sound");
    assert_eq!(command.length, Some(Length(3)));
    assert!(!command.digests.is_empty());
    let empty = complete(credentials.clone(), &HeaderMap::new(), b"").expect("sound");
    assert!(empty.digests.is_empty());
    complete(credentials, &HeaderMap::new(), br#"{"filename":"a"}"#).expect_err("not here");
}

proptest! {
    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..64), text in "[{}\\[\\]\":,a-z0-9]{0,64}") {
        let _ = create(&HeaderMap::new(), &body);
        let _ = create(&HeaderMap::new(), text.as_bytes());
    }

    #[test]
    fn a_file_name_is_kept_as_it_came(name in "[^\\p{Cc}]{1,64}") {
        let body = serde_json::json!({ "filename": name }).to_string();
        let command = create(&HeaderMap::new(), body.as_bytes()).expect("sound");
        prop_assert_eq!(command.declared.filename, Some(name));
    }
}
