use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::model::{UploadId, UploadKey};

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn some_handle() -> Handle {
    Handle {
        id: UploadId::generate(),
        key: UploadKey::generate(),
    }
}

const LENGTH: (&str, &str) = ("upload-length", "100");
const DEFERRED: (&str, &str) = ("upload-defer-length", "1");
const BODY: (&str, &str) = ("content-type", "application/offset+octet-stream");

/// The status and the word of a refusal.
fn refused<T: std::fmt::Debug>(parsed: Result<T, Problem>) -> (u16, &'static str) {
    let problem = parsed.expect_err("it is to be refused");
    (problem.status.as_u16(), problem.code.word())
}

#[test]
fn a_creation_in_full() {
    let creation = creation(&fields(&[
        LENGTH,
        BODY,
        ("content-length", "10"),
        ("upload-metadata", "filename YS50eHQ=,album MQ=="),
        ("upload-metadata", "filetype dGV4dC9wbGFpbg=="),
        ("upload-checksum", "crc32c AAAAAQ=="),
    ]));
    insta::assert_debug_snapshot!(creation.expect("sound"), @r#"
    Creation {
        create: Create {
            protocol: Tus,
            declared: Declared {
                filename: Some(
                    "a.txt",
                ),
                content_type: Some(
                    "text/plain",
                ),
                metadata: {
                    "album": "1",
                },
                metadata_field: Some(
                    "filename YS50eHQ=,album MQ==,filetype dGV4dC9wbGFpbg==",
                ),
                digests: Digests(
                    {},
                ),
                sequential: true,
            },
            length: Some(
                Length(
                    100,
                ),
            ),
            idempotency: None,
            role: Whole,
            seal: None,
        },
        chunk: Some(
            Chunk {
                start: Offset(
                    0,
                ),
                size: Some(
                    10,
                ),
                length: None,
                digests: Known(
                    Digests(
                        {
                            Crc32c: crc32c:00000001,
                        },
                    ),
                ),
            },
        ),
    }
    "#);
}

#[test]
fn a_length_or_that_it_comes_later_and_not_both() {
    let length = |headers: &[_]| creation(&fields(headers)).map(|c| c.create.length);
    assert_eq!(length(&[LENGTH]).expect("sound"), Some(Length(100)));
    assert_eq!(length(&[DEFERRED]).expect("sound"), None);
    for wrong in [
        &[][..],
        &[LENGTH, DEFERRED],
        &[LENGTH, LENGTH],
        &[DEFERRED, DEFERRED],
        &[("upload-defer-length", "0")],
        &[("upload-defer-length", "")],
        &[LENGTH, ("upload-defer-length", "0")],
        &[("upload-length", "")],
        &[("upload-length", "-1")],
        &[("upload-length", "+1")],
        &[("upload-length", "1.0")],
        &[("upload-length", "0x1")],
        &[("upload-length", "1 ")],
        &[("upload-length", "٣")],
    ] {
        assert_eq!(refused(length(wrong)), (400, "bad_request"), "{wrong:?}");
    }
    // The engine says how much it takes.
    let huge = ("upload-length", "99999999999999999999");
    assert_eq!(length(&[huge]).expect("sound"), Some(Length(u64::MAX)));
}

#[test]
fn a_final_one_has_neither_and_keeps_its_urls_sealed() {
    let urls = format!("final;/files/{}", some_handle().reveal());
    let concat = ("upload-concat", urls.as_str());
    let made = creation(&fields(&[concat, BODY])).expect("sound");
    assert!(made.create.seal == Some(Secret(urls.clone())));
    assert!(made.chunk.is_none());
    assert_eq!(unwanted_body(&made.create.role).status.as_u16(), 400);
    for other in [LENGTH, DEFERRED, concat] {
        let wrong = creation(&fields(&[concat, other]));
        assert_eq!(refused(wrong), (400, "bad_request"), "{other:?}");
    }
    let partial = creation(&fields(&[("upload-concat", "partial"), LENGTH])).expect("sound");
    assert!(matches!(partial.create.role, NewRole::Partial));
    assert_eq!(partial.create.seal, None);
    assert_eq!(unwanted_body(&partial.create.role).status.as_u16(), 415);
}

#[test]
fn first_bytes_have_the_type_of_bytes_and_fit() {
    let chunk = |headers: &[_]| creation(&fields(headers)).map(|creation| creation.chunk);
    for other in ["application/octet-stream", "", "application/offset"] {
        let none = chunk(&[LENGTH, ("content-type", other)]).expect("sound");
        assert!(none.is_none(), "{other}");
    }
    let loud = ("content-type", "Application/Offset+Octet-Stream; x=y");
    assert!(chunk(&[LENGTH, loud]).expect("sound").is_some());
    let fits = chunk(&[LENGTH, BODY, ("content-length", "100")]);
    assert_eq!(fits.expect("sound").expect("a body").size, Some(100));
    let beyond = chunk(&[LENGTH, BODY, ("content-length", "101")]);
    assert_eq!(refused(beyond), (413, "range_mismatch"));
}

#[test]
fn a_patch_says_where_its_bytes_belong() {
    let write = |headers: &[_]| {
        let chunk = super::chunk(&fields(headers))?;
        Ok::<_, Problem>(chunk.into_write(&some_handle()))
    };
    let offset = ("upload-offset", "70");
    let write_30 = write(&[BODY, offset, ("content-length", "30"), LENGTH]).expect("sound");
    assert_eq!(write_30.start, Offset(70));
    assert_eq!(write_30.end, Some(Offset(100)));
    assert_eq!(write_30.length, Some(Length(100)));
    assert!(write_30.append);
    // Without a length the body's end decides; what is too large stays larger than every upload.
    assert_eq!(write(&[BODY, offset]).expect("sound").end, None);
    let far = ("upload-offset", "99999999999999999999");
    let far = write(&[BODY, far, ("content-length", "30")]).expect("sound");
    assert_eq!(far.end, Some(Offset(u64::MAX)));
    assert_eq!(
        refused(write(&[offset])),
        (415, "unsupported_media_type"),
        "no type"
    );
    for wrong in [
        &[BODY][..],
        &[BODY, offset, offset],
        &[BODY, ("upload-offset", "-1")],
        &[BODY, ("upload-offset", "x")],
        &[BODY, ("upload-offset", "")],
        &[BODY, offset, ("upload-length", "x")],
        &[BODY, offset, LENGTH, LENGTH],
        &[BODY, offset, ("upload-checksum", "crc32c")],
    ] {
        assert_eq!(refused(write(wrong)), (400, "bad_request"), "{wrong:?}");
    }
}

#[test]
fn one_version_is_spoken() {
    assert!(version(&fields(&[("tus-resumable", "1.0.0")])).is_ok());
    for wrong in [
        &[][..],
        &[("tus-resumable", "0.2.2")],
        &[("tus-resumable", "1.0.0 ")],
        &[("tus-resumable", "1.0.0"), ("tus-resumable", "1.0.0")],
    ] {
        assert_eq!(refused(version(&fields(wrong))).0, 412, "{wrong:?}");
    }
}

#[test]
fn the_override_replaces_the_method() {
    let named = |name| method(&Method::POST, &fields(&[("x-http-method-override", name)]));
    assert_eq!(method(&Method::HEAD, &HeaderMap::new()), Some(Method::HEAD));
    assert_eq!(named("PATCH"), Some(Method::PATCH));
    // Methods are case-sensitive, and others exist.
    assert_ne!(named("patch"), Some(Method::PATCH));
    assert_eq!(named(""), None);
    assert_eq!(named("PATCH, DELETE"), None);
}

#[test]
fn handles_are_taken_whole() {
    let sound = some_handle().reveal();
    assert!(handle(&sound).is_ok());
    for wrong in [
        "",
        &sound[1..],
        &format!("{sound}A"),
        &sound.replace(&sound[..1], "!"),
    ] {
        assert_eq!(refused(handle(wrong)), (404, "not_found"), "{wrong}");
    }
}

#[test]
fn a_checksum_may_follow() {
    let headers = fields(&[BODY, ("upload-offset", "0"), ("trailer", "Upload-Checksum")]);
    let chunk = chunk(&headers).expect("sound");
    assert!(matches!(chunk.digests, Expected::Trailing(_)));
}

proptest! {
    #[test]
    fn nothing_panics(values in prop::collection::vec("[ -~]{0,24}|[0-9]{1,22}", 8)) {
        const NAMES: [&str; 8] = [
            "upload-length",
            "upload-defer-length",
            "upload-offset",
            "upload-metadata",
            "upload-checksum",
            "upload-concat",
            "content-length",
            "x-http-method-override",
        ];
        let mut headers = fields(&[BODY]);
        let mut shown = String::new();
        for (name, value) in NAMES.into_iter().zip(&values) {
            let _ = writeln!(shown, "{name}: {value}");
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(name, value);
            }
        }
        let _ = creation(&headers);
        if let Ok(chunk) = chunk(&headers) {
            let write = chunk.into_write(&some_handle());
            prop_assert!(write.end.is_none_or(|end| end >= write.start), "{}", shown);
        }
        let _ = method(&Method::POST, &headers);
    }
}
