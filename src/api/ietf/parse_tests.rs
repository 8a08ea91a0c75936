use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::super::{v3, v5, v6, v8};
use super::*;
use crate::model::DigestAlgorithm;

const ALL: [&Dialect; 4] = [&v3::DIALECT, &v5::DIALECT, &v6::DIALECT, &v8::DIALECT];

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

/// What a request says, in short.
fn told(content: &Content) -> String {
    let number =
        |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    format!(
        "{}..{} of {}{}",
        content.start,
        number(content.end.map(Offset::get)),
        number(content.length.map(Length::get)),
        if content.last { ", the last" } else { "" },
    )
}

fn refused(problem: &Problem) -> String {
    format!(
        "{} {}: {}",
        problem.status.as_u16(),
        problem.code.word(),
        problem.detail
    )
}

fn created(dialect: &Dialect, fields: &[(&'static str, &str)]) -> String {
    match creation(dialect, &headers(fields)) {
        Ok(creation) if creation.resumable => told(&creation.content),
        Ok(creation) => format!("{}, conventional", told(&creation.content)),
        Err(problem) => refused(&problem),
    }
}

fn appended(dialect: &Dialect, fields: &[(&'static str, &str)]) -> String {
    match append(dialect, &headers(fields)) {
        Ok(content) => told(&content),
        Err(problem) => refused(&problem),
    }
}

#[test]
fn a_creation_of_version_3_has_upload_incomplete() {
    let told = |fields: &[(&'static str, &str)]| created(&v3::DIALECT, fields);
    insta::assert_snapshot!(told(&[("upload-incomplete", "?0"), ("content-length", "9")]), @"0..9 of 9, the last");
    insta::assert_snapshot!(told(&[("upload-incomplete", "?1"), ("content-length", "9")]), @"0..9 of ?");
    insta::assert_snapshot!(told(&[("upload-complete", "?0"), ("content-length", "9")]), @"0..9 of 9, the last, conventional");
}

#[test]
fn a_creation_since_version_5_has_upload_complete() {
    for dialect in &ALL[1..] {
        let told = |fields: &[(&'static str, &str)]| created(dialect, fields);
        insta::allow_duplicates! {
            insta::assert_snapshot!(told(&[("upload-complete", "?1"), ("content-length", "9")]), @"0..9 of 9, the last");
            insta::assert_snapshot!(told(&[("upload-complete", "?1")]), @"0..? of ?, the last");
            insta::assert_snapshot!(told(&[("upload-complete", "?0"), ("content-length", "9")]), @"0..9 of ?");
            insta::assert_snapshot!(told(&[("upload-complete", "?0"), ("content-length", "9"), ("upload-length", "20")]), @"0..9 of 20");
            insta::assert_snapshot!(told(&[("upload-complete", "?1"), ("content-length", "9"), ("upload-length", "20")]), @"400 range_mismatch: Upload-Length is 20, but by offset and Content-Length it is 9");
            insta::assert_snapshot!(told(&[("upload-complete", "?0"), ("content-length", "9"), ("upload-length", "8")]), @"400 range_mismatch: Upload-Length is 8, but the content alone has 9 bytes");
            insta::assert_snapshot!(told(&[("upload-incomplete", "?1"), ("content-length", "9")]), @"0..9 of 9, the last, conventional");
            insta::assert_snapshot!(told(&[("upload-complete", "0"), ("upload-length", "-1")]), @"0..? of ?, the last, conventional");
            insta::assert_snapshot!(told(&[("upload-complete", "?0"), ("upload-offset", "5")]), @"400 bad_request: a new upload begins at 0; an append with Upload-Offset has to be sent to the URL of its upload");
            insta::assert_snapshot!(told(&[("upload-complete", "?0"), ("upload-offset", "0")]), @"0..? of ?");
        }
    }
}

#[test]
fn an_append_of_version_3_is_the_last_unless_it_says_otherwise() {
    let told = |fields: &[(&'static str, &str)]| appended(&v3::DIALECT, fields);
    insta::assert_snapshot!(told(&[("upload-offset", "5"), ("content-length", "9")]), @"5..14 of 14, the last");
    insta::assert_snapshot!(told(&[("upload-offset", "5"), ("upload-incomplete", "?0")]), @"5..? of ?, the last");
    insta::assert_snapshot!(told(&[("upload-offset", "5"), ("upload-incomplete", "?1")]), @"5..? of ?");
    insta::assert_snapshot!(told(&[("upload-incomplete", "?1")]), @"400 bad_request: an append needs Upload-Offset, the number of bytes that are there, as in Upload-Offset: 100");
}

#[test]
fn an_append_of_version_5_needs_no_media_type() {
    let told = |fields: &[(&'static str, &str)]| appended(&v5::DIALECT, fields);
    insta::assert_snapshot!(told(&[("upload-offset", "5"), ("upload-complete", "?1"), ("content-length", "9")]), @"5..14 of 14, the last");
    insta::assert_snapshot!(told(&[("upload-offset", "5"), ("upload-complete", "?0"), ("content-type", "text/plain")]), @"5..? of ?");
    insta::assert_snapshot!(told(&[("upload-offset", "5"), ("content-length", "9")]), @"400 bad_request: an append needs Upload-Complete: ?1 if its content ends the upload, ?0 if more follows");
}

#[test]
fn an_append_since_version_6_needs_its_media_type() {
    for dialect in &ALL[2..] {
        let told = |fields: &[(&'static str, &str)]| appended(dialect, fields);
        let media = ("content-type", "Application/Partial-Upload; a=1");
        insta::allow_duplicates! {
            insta::assert_snapshot!(told(&[media, ("upload-offset", "5"), ("upload-complete", "?1"), ("content-length", "9")]), @"5..14 of 14, the last");
            insta::assert_snapshot!(told(&[media, ("upload-offset", "5"), ("upload-complete", "?0"), ("content-length", "9"), ("upload-length", "3")]), @"5..14 of 3");
            insta::assert_snapshot!(told(&[media, ("upload-offset", "5"), ("upload-complete", "?1"), ("content-length", "9"), ("upload-length", "15")]), @"400 range_mismatch: Upload-Length is 15, but by offset and Content-Length it is 14");
            insta::assert_snapshot!(told(&[media, ("upload-offset", "5"), ("upload-complete", "?1"), ("content-length", "18446744073709551615")]), @"413 upload_limit: the content is larger than any upload can be");
            insta::assert_snapshot!(told(&[media, ("upload-offset", "-5"), ("upload-complete", "?1")]), @"400 bad_request: an append needs Upload-Offset, the number of bytes that are there, as in Upload-Offset: 100");
            insta::assert_snapshot!(told(&[media, ("upload-offset", "5"), ("upload-complete", "true")]), @"400 bad_request: an append needs Upload-Complete: ?1 if its content ends the upload, ?0 if more follows");
            insta::assert_snapshot!(told(&[("upload-offset", "5"), ("upload-complete", "?1")]), @"415 unsupported_media_type: an append has to be application/partial-upload");
            insta::assert_snapshot!(told(&[("content-type", "application/octet-stream"), ("upload-offset", "5")]), @"415 unsupported_media_type: an append has to be application/partial-upload");
        }
    }
}

#[test]
fn what_a_version_forbids_is_refused() {
    let forbidden = |name: &'static str| {
        let fields = headers(&[(name, "?1")]);
        let mark = |refused: bool| if refused { "x" } else { "-" };
        ALL.map(|dialect| {
            let head = mark(retrieval(dialect, &fields).is_err());
            let delete = mark(cancellation(dialect, &fields).is_err());
            format!("{}:{head}{delete}", dialect.version)
        })
        .join(" ")
    };
    insta::assert_snapshot!(forbidden("upload-offset"), @"3:xx 5:xx 6:xx 8:--");
    insta::assert_snapshot!(forbidden("upload-complete"), @"3:-- 5:xx 6:xx 8:--");
    insta::assert_snapshot!(forbidden("upload-incomplete"), @"3:xx 5:-- 6:-- 8:--");
    insta::assert_snapshot!(forbidden("upload-length"), @"3:-- 5:-- 6:x- 8:--");
    insta::assert_snapshot!(forbidden("content-type"), @"3:-- 5:-- 6:-- 8:--");
}

#[test]
fn only_versions_that_are_served_are_named() {
    let named = |value: &str| {
        let fields = headers(&[("upload-draft-interop-version", value)]);
        Dialect::named(&fields).map(|dialect| dialect.version)
    };
    for served in [3, 5, 6, 8] {
        assert_eq!(named(&served.to_string()), Some(served));
    }
    for other in ["4", "7", "9", "99", "08.0", "\"8\"", "eight", "-8", ""] {
        assert_eq!(named(other), None, "{other}");
    }
    assert_eq!(Dialect::of(&HeaderMap::new()).version, 8);
}

#[test]
fn the_file_is_declared_by_the_fields_of_its_representation() {
    let declared = |fields: &[(&'static str, &str)]| declared(&headers(fields));
    let all = declared(&[
        ("content-type", "image/jpeg; q=1"),
        ("content-disposition", "inline; filename*=UTF-8''%C3%A9.jpg"),
        ("repr-digest", "crc32c=:AAAAAQ==:"),
    ])
    .expect("sound");
    assert_eq!(all.filename.as_deref(), Some("é.jpg"));
    assert_eq!(all.content_type.as_deref(), Some("image/jpeg; q=1"));
    assert!(all.digests.get(DigestAlgorithm::Crc32c).is_some());
    assert!(all.sequential, "appends are in order");
    let part = declared(&[("content-type", "application/partial-upload")]).expect("sound");
    assert_eq!(part.content_type, None, "that is no type of a file");
    for wrong in [
        ("content-type", "jpeg"),
        ("content-disposition", "inline; filename*=UTF-8''%0A"),
        ("repr-digest", "crc32c=1"),
    ] {
        let problem = declared(&[wrong]).expect_err(wrong.1);
        assert_eq!(problem.code, Code::BadRequest, "{wrong:?}");
    }
}

#[test]
fn content_is_written_at_the_end_of_the_upload_alone() {
    let fields = headers(&[
        ("content-type", PARTIAL_UPLOAD),
        ("upload-offset", "5"),
        ("upload-complete", "?1"),
        ("content-length", "4"),
        ("content-digest", "crc32c=:AAAAAQ==:"),
    ]);
    let handle = Handle {
        id: crate::model::UploadId::generate(),
        key: crate::model::UploadKey::generate(),
    };
    let write = append(&v8::DIALECT, &fields).expect("sound").write(&handle);
    assert!(write.append);
    assert_eq!((write.start, write.end), (Offset(5), Some(Offset(9))));
    assert_eq!(write.length, Some(Length(9)));
    let complete = completion(&handle, Offset(9));
    assert_eq!(
        complete.length,
        Some(Length(9)),
        "its content's end is its end"
    );
}

#[test]
fn sealed_what_is_no_handle_looks_like_an_upload_that_is_not_there() {
    let unknown = Problem::no_such_upload().to_json();
    for segment in ["", "abc", &"A".repeat(63), &"A".repeat(65), "%00", "../x"] {
        let problem = handle(segment).expect_err("no handle");
        assert_eq!(problem.to_json(), unknown, "{segment}");
    }
    handle(&"A".repeat(64)).expect("the form of a handle");
}

proptest! {
    #[test]
    fn no_request_panics(
        offset in "[-0-9?;]{0,18}",
        complete in "[?01;a=]{0,4}",
        length in "[0-9]{0,20}",
        content_length in "[0-9]{0,20}",
        digest in "[ -~]{0,20}",
        disposition in "[ -~]{0,40}",
    ) {
        let fields = headers(&[
            ("content-type", PARTIAL_UPLOAD),
            ("upload-offset", &offset),
            ("upload-complete", &complete),
            ("upload-incomplete", &complete),
            ("upload-length", &length),
            ("content-length", &content_length),
            ("content-disposition", &disposition),
            ("content-digest", &digest),
            ("repr-digest", &digest),
        ]);
        for dialect in ALL {
            let _ = (creation(dialect, &fields), append(dialect, &fields));
            let _ = (retrieval(dialect, &fields), cancellation(dialect, &fields));
        }
    }
}
