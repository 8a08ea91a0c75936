use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::model::DigestAlgorithm;

const MAX: Length = Length(1000);

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        let name: HeaderName = name.parse().expect("a name");
        (name, HeaderValue::from_str(value).expect("a value"))
    };
    fields.iter().map(field).collect()
}

fn asked(query: &str, fields: &[(&str, &str)]) -> Result<Asked, Problem> {
    request(Some(query).filter(|q| !q.is_empty()), &headers(fields), MAX)
}

fn file(query: &str, fields: &[(&str, &str)]) -> File {
    let asked = asked(query, fields).expect("sound");
    asked.file(MAX).expect("sound")
}

/// Status, word and detail of a refusal.
fn refused(query: &str, fields: &[(&str, &str)]) -> String {
    let problem = asked(query, fields).expect_err("refused");
    let (status, word) = (problem.status.as_u16(), problem.code.word());
    format!("{status} {word}: {}", problem.detail)
}

const ONES: &str = "1111111111111111111111111111111111111111111111111111111111111111";

#[test]
fn nothing_has_to_be_told() {
    let File {
        create,
        stage,
        max_size,
    } = file("", &[]);
    assert!(!stage);
    assert_eq!((create.length, max_size), (None, MAX));
    assert_eq!(create.declared, Declared::default());
    assert_eq!(create.protocol, Protocol::Objects);
}

#[test]
fn all_can_be_told() {
    let query = format!(
        "filename=%C3%A9+a%26b.jpg&size=100&digest=sha-256%3A{ONES}&stage=true&digest=crc32c:00000001"
    );
    let told = file(&query, &[("content-type", "image/jpeg")]);
    assert!(told.stage);
    assert_eq!(told.create.length, Some(Length(100)));
    let declared = told.create.declared;
    assert_eq!(declared.filename.as_deref(), Some("é a&b.jpg"));
    assert_eq!(declared.content_type.as_deref(), Some("image/jpeg"));
    let sha256 = declared.digests.get(DigestAlgorithm::Sha256);
    assert_eq!(sha256.expect("told").to_hex(), ONES);
    assert_eq!(declared.digests.iter().count(), 2);
}

#[test]
fn header_fields_tell_digests_too() {
    let zeros = "AAAAAAAAAAAAAAAAAAAAAA==";
    let declared = file(
        "digest=crc32c:00000001",
        &[
            ("content-digest", "crc32c=:AAAAAQ==:"),
            ("content-md5", zeros),
            ("repr-digest", &format!("md5=:{zeros}:")),
        ],
    )
    .create
    .declared;
    assert_eq!(declared.digests.iter().count(), 2);
    insta::assert_snapshot!(refused("digest=crc32c:00000002", &[("repr-digest", "crc32c=:AAAAAQ==:")]), @"400 bad_request: two different crc32c digests are told of the file");
}

#[test]
fn a_length_comes_from_the_size_or_the_body() {
    let length = |query: &str, fields: &[(&str, &str)]| file(query, fields).create.length;
    assert_eq!(length("", &[("content-length", "7")]), Some(Length(7)));
    assert_eq!(
        length("size=7", &[("content-length", "7")]),
        Some(Length(7))
    );
    assert_eq!(length("size=0", &[]), Some(Length(0)));
    let write = file("size=7", &[]).write(&Handle {
        id: crate::model::UploadId::generate(),
        key: crate::model::UploadKey::generate(),
    });
    assert_eq!(write.end, Some(Offset(7)));
    assert_eq!(write.whole, Some(Whole { at_most: MAX }));
    // A form has more than its file.
    let form = ("content-type", "multipart/form-data; boundary=x");
    assert_eq!(length("", &[form, ("content-length", "700")]), None);
    assert_eq!(
        length("size=7", &[form, ("content-length", "700")]),
        Some(Length(7))
    );
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    insta::assert_snapshot!(refused("size=8", &[("content-length", "7")]), @"409 range_mismatch: size says 8 bytes, Content-Length 7");
    insta::assert_snapshot!(refused("size=1001", &[]), @"413 upload_limit: at most 1000 bytes are taken");
    insta::assert_snapshot!(refused("", &[("content-length", "1001")]), @"413 upload_limit: at most 1000 bytes are taken");
    let form = ("content-type", "multipart/form-data; boundary=x");
    insta::assert_snapshot!(refused("size=8", &[form, ("content-length", "7")]), @"409 range_mismatch: size says 8 bytes, but the form around the file has only 7");
    let most = (MAX.get() + MAX_FORM_BYTES).to_string();
    asked("", &[form, ("content-length", &most)]).expect("it may be");
    let more = (MAX.get() + MAX_FORM_BYTES + 1).to_string();
    insta::assert_snapshot!(refused("", &[form, ("content-length", &more)]), @"413 upload_limit: at most 1000 bytes are taken");
}

#[test]
fn what_is_wrong_is_named() {
    insta::assert_snapshot!(refused("sise=1", &[]), @r#"400 bad_request: the parameter "sise" is not known; known are filename, size, digest and stage"#);
    insta::assert_snapshot!(refused("size=1&size=1", &[]), @"400 bad_request: size is told twice");
    insta::assert_snapshot!(refused("filename=a&filename=a", &[]), @"400 bad_request: filename is told twice");
    insta::assert_snapshot!(refused("stage=true&stage=true", &[]), @"400 bad_request: stage is told twice");
    insta::assert_snapshot!(refused("stage=yes", &[]), @"400 bad_request: stage has to be true or false");
    insta::assert_snapshot!(refused("stage", &[]), @"400 bad_request: stage has to be true or false");
    insta::assert_snapshot!(refused("size=-1", &[]), @"400 bad_request: size has to be a number of bytes");
    insta::assert_snapshot!(refused("size=%2B1", &[]), @"400 bad_request: size has to be a number of bytes");
    insta::assert_snapshot!(refused("size=", &[]), @"400 bad_request: size has to be a number of bytes");
    insta::assert_snapshot!(refused("size=99999999999999999999", &[]), @"400 bad_request: size has to be a number of bytes");
    insta::assert_snapshot!(refused("filename=a%0Ab", &[]), @"400 bad_request: filename may have no control characters");
    insta::assert_snapshot!(refused("filename=%FF", &[]), @"400 bad_request: the query has to be UTF-8, percent-encoded");
    insta::assert_snapshot!(refused("digest=abc", &[]), @"400 bad_request: digest: it has to be an algorithm and hex, as in sha-256:9f86d0…");
    insta::assert_snapshot!(refused("digest=sha-256:abc", &[]), @"400 bad_request: digest: a sha-256 digest is 32 bytes in hex, 64 characters");
    insta::assert_snapshot!(refused("digest=sha256:abc", &[]), @r#"400 bad_request: digest: the digest algorithm "sha256" is not known; known are sha-256, sha-512, sha, md5, crc32c, crc64nvme"#);
    insta::assert_snapshot!(refused("", &[("content-type", "jpeg")]), @"400 bad_request: Content-Type has to be a media type, as in image/jpeg");
    insta::assert_snapshot!(refused("", &[("content-type", "multipart/form-data")]), @"400 bad_request: multipart/form-data needs a boundary of 1 to 70 characters");
    insta::assert_snapshot!(refused("", &[("content-type", "multipart/form-data; boundary=")]), @"400 bad_request: multipart/form-data needs a boundary of 1 to 70 characters");
    insta::assert_snapshot!(refused("", &[("content-type", "multipart/form-data; boundary=x"), ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")]), @"400 bad_request: a form's header fields cannot tell the digest of its file: the parameter digest can");
}

#[test]
fn what_the_body_is() {
    let of = |content_type: &str| {
        let asked = asked("", &[("content-type", content_type)]).expect("sound");
        (asked.kind, asked.told.content_type)
    };
    let form = Kind::Form {
        boundary: "a b".to_owned(),
    };
    assert_eq!(of("Multipart/Form-Data; boundary=\"a b\""), (form, None));
    assert_eq!(of("application/x-www-form-urlencoded"), (Kind::Raw, None));
    for raw in ["text/plain; charset=utf-8", "multipart/mixed; boundary=x"] {
        assert_eq!(of(raw), (Kind::Raw, Some(raw.to_owned())));
    }
}

#[test]
fn what_a_part_says_comes_after_what_was_told() {
    let mut told = Told::default();
    told.take_part("a.jpg", Some("image/jpeg")).expect("sound");
    assert_eq!(told.filename.as_deref(), Some("a.jpg"));
    assert_eq!(told.content_type.as_deref(), Some("image/jpeg"));
    let mut told = Told::default();
    assert!(told.take("filename", "b.jpg").expect("sound"));
    told.take_part("a.jpg", Some("nonsense")).expect("sound");
    assert_eq!(told.filename.as_deref(), Some("b.jpg"));
    assert_eq!(told.content_type, None);
    let wrong = told.take_part("a\tb", None).expect_err("refused");
    assert_eq!(wrong.detail, "filename may have no control characters");
    assert!(!told.take("stage", "true").expect("not looked at"));
}

proptest! {
    #[test]
    fn no_query_breaks_it(query in "[ -~]{0,80}") {
        let _ = asked(&query, &[]);
    }
}
