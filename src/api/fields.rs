//! Header fields that more than one protocol has: digests of a body, dates, file names.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::error::Problem;
use crate::model::digest::Digests;
use crate::model::{Digest, DigestAlgorithm, Timestamp};

/// `Content-Digest` (RFC 9530).
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// `Repr-Digest` (RFC 9530).
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// `Content-MD5` (RFC 1864).
pub const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

const MAX_FILENAME_BYTES: usize = 1024;
const MAX_CONTENT_TYPE_BYTES: usize = 255;

/// RFC 9110, section 5.6.7: IMF-fixdate.
const HTTP_DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// RFC 8187, section 3.2.1: `attr-char`.
const NOT_ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The digests that a body has to have, from `Content-Digest` and `Content-MD5`.
///
/// Algorithms that we do not know are passed over if there is one beside them that we know (RFC 9530, section 2).
pub fn content_digests(headers: &HeaderMap) -> Result<Digests, Problem> {
    let mut digests = digest_field(headers, &CONTENT_DIGEST)?;
    let mut fields = headers.get_all(CONTENT_MD5).iter();
    if let Some(field) = fields.next() {
        let value = STANDARD
            .decode(field.as_bytes())
            .map_err(|_| Problem::bad_request("Content-MD5 has to be base64"))?;
        let md5 = Digest::new(DigestAlgorithm::Md5, value)
            .map_err(|_| Problem::bad_request("Content-MD5 has to be the base64 of 16 bytes"))?;
        let other = digests.get(DigestAlgorithm::Md5).is_some_and(|d| *d != md5);
        if other || fields.next().is_some() {
            return Err(Problem::bad_request(
                "there is more than one MD5 of the body",
            ));
        }
        digests.insert(md5);
    }
    Ok(digests)
}

/// A digest field of RFC 9530: a dictionary from algorithms to byte sequences. Absent, it has none.
pub fn digest_field(headers: &HeaderMap, name: &HeaderName) -> Result<Digests, Problem> {
    let mut digests = Digests::default();
    let lines: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if lines.is_empty() {
        return Ok(digests);
    }
    let members: Dictionary = Parser::new(&lines.join(&b", "[..]))
        .parse()
        .map_err(|error| {
            Problem::bad_request(format!("{name} is no structured dictionary: {error}"))
        })?;
    for (algorithm, entry) in &members {
        let Ok(algorithm) = algorithm.as_str().parse::<DigestAlgorithm>() else {
            continue;
        };
        let digest = match entry {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::ByteSequence(value) => Digest::new(algorithm, value.clone()).ok(),
                _ => None,
            },
            ListEntry::InnerList(_) => None,
        };
        digests.insert(digest.ok_or_else(|| {
            Problem::bad_request(format!(
                "{name}: {algorithm} has to be {} bytes in base64 between colons",
                algorithm.len()
            ))
        })?);
    }
    if digests.is_empty() && !members.is_empty() {
        let known: Vec<&str> = DigestAlgorithm::ALL.iter().map(|a| a.name()).collect();
        return Err(Problem::bad_request(format!(
            "{name} has no algorithm that is known here; known are {}",
            known.join(", ")
        )));
    }
    Ok(digests)
}

/// A file's name, if it is one that can be kept and given back.
pub fn checked_filename(name: String) -> Result<String, Problem> {
    if name.len() > MAX_FILENAME_BYTES {
        return Err(Problem::bad_request(format!(
            "filename may have at most {MAX_FILENAME_BYTES} bytes"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Problem::bad_request(
            "filename may have no control characters",
        ));
    }
    Ok(name)
}

/// Whether content can be answered with it as its media type.
#[must_use]
pub fn is_media_type(name: &str) -> bool {
    // The parser takes `*` as a type, which stands for several and is none.
    name.len() <= MAX_CONTENT_TYPE_BYTES
        && HeaderValue::from_str(name).is_ok()
        && name
            .parse::<mime::Mime>()
            .is_ok_and(|mime| mime.type_() != mime::STAR && mime.subtype() != mime::STAR)
}

/// A moment as an HTTP date, to the second.
#[must_use]
pub fn http_date(at: Timestamp) -> HeaderValue {
    let text = at
        .to_utc()
        .format(HTTP_DATE)
        .expect("every part of the format is there");
    HeaderValue::try_from(text).expect("a date is ASCII")
}

/// Digests as a digest field of RFC 9530 has them.
#[must_use]
pub fn digest_value(digests: &Digests) -> HeaderValue {
    let members: Vec<String> = digests
        .iter()
        .map(|digest| {
            format!(
                "{}=:{}:",
                digest.algorithm(),
                STANDARD.encode(digest.value())
            )
        })
        .collect();
    HeaderValue::try_from(members.join(", ")).expect("names and base64 are ASCII")
}

/// `Content-Disposition: attachment` with a file's name (RFC 6266), for old readers in quotes and in full as RFC 8187 has it.
#[must_use]
pub fn attachment(filename: Option<&str>) -> HeaderValue {
    let mut text = "attachment".to_owned();
    if let Some(name) = filename {
        text.push_str("; filename=\"");
        for character in name.chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                ' '..='~' => text.push(character),
                _ => text.push('_'),
            }
        }
        text.push('"');
        // Some readers take `%41` in the quoted form for an A, so such a name needs the other form too.
        if !name.bytes().all(|byte| matches!(byte, b' '..=b'~')) || name.contains('%') {
            let _ = write!(
                text,
                "; filename*=UTF-8''{}",
                utf8_percent_encode(name, NOT_ATTR_CHAR)
            );
        }
    }
    HeaderValue::try_from(text).expect("only printable ASCII was written")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    const CRC: &str = "crc32c=:AAAAAQ==:";

    #[test]
    fn known_digests_are_taken_and_unknown_ones_beside_them_passed_over() {
        let one = |values: &[&str]| content_digests(&headers(&CONTENT_DIGEST, values));
        assert_eq!(one(&[]).expect("none"), Digests::default());
        for values in [
            &[CRC][..],
            &["new-hash=:AA==:", CRC],
            &["a=1, crc32c=:AAAAAQ==:;p=1"],
        ] {
            let digests = one(values).expect("one is known");
            let digest = digests.get(DigestAlgorithm::Crc32c).expect("it is there");
            assert_eq!(digest.to_hex(), "00000001");
            assert_eq!(digests.iter().count(), 1);
        }
        for wrong in [
            "new-hash=:AA==:",
            "crc32c=:AA==:",
            "crc32c=1",
            "crc32c",
            "crc32c=(:AAAAAQ==:)",
            "crc32c=:*:",
            "=",
            "CRC32C=:AAAAAQ==:",
        ] {
            assert!(one(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn content_md5_is_taken_and_may_not_contradict() {
        let zeros = "AAAAAAAAAAAAAAAAAAAAAA==";
        let mut both = headers(&CONTENT_MD5, &[zeros]);
        assert!(
            content_digests(&both)
                .expect("sound")
                .get(DigestAlgorithm::Md5)
                .is_some()
        );
        both.insert(
            CONTENT_DIGEST,
            HeaderValue::from_static("md5=:AAAAAAAAAAAAAAAAAAAAAQ==:"),
        );
        assert!(content_digests(&both).is_err());
        for wrong in ["", "AAAA", "not base64"] {
            assert!(
                content_digests(&headers(&CONTENT_MD5, &[wrong])).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn dates_are_imf_fixdates() {
        assert_eq!(
            http_date(Timestamp(784_111_777_999)),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
        assert_eq!(http_date(Timestamp(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn file_names_are_quoted() {
        insta::assert_snapshot!(attachment(None).to_str().expect("ASCII"), @"attachment");
        insta::assert_snapshot!(attachment(Some("a b.txt")).to_str().expect("ASCII"), @r#"attachment; filename="a b.txt""#);
        insta::assert_snapshot!(attachment(Some("say \"hi\"\\.txt")).to_str().expect("ASCII"), @r#"attachment; filename="say \"hi\"\\.txt""#);
        insta::assert_snapshot!(attachment(Some("../../été 100%.jpg")).to_str().expect("ASCII"), @r#"attachment; filename="../../_t_ 100%.jpg"; filename*=UTF-8''..%2F..%2F%C3%A9t%C3%A9%20100%25.jpg"#);
        insta::assert_snapshot!(attachment(Some("\u{202e}gpj.exe")).to_str().expect("ASCII"), @r#"attachment; filename="_gpj.exe"; filename*=UTF-8''%E2%80%AEgpj.exe"#);
    }

    proptest! {
        #[test]
        fn any_text_makes_a_header_field(name in any::<String>(), at in any::<i64>()) {
            prop_assert!(attachment(Some(&name)).to_str().is_ok());
            let _ = http_date(Timestamp(at));
        }

        #[test]
        fn the_digest_parser_never_panics(value in "[ -~]{0,80}") {
            let _ = content_digests(&headers(&CONTENT_DIGEST, &[&value]));
            let _ = content_digests(&headers(&CONTENT_MD5, &[&value]));
        }
    }
}
