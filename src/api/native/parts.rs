//! Parts that go directly to the store: from requests to commands, and from outcomes to answers. Pure.

use std::collections::BTreeMap;

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::parse::Credentials;
use super::render;
use crate::api::error::Problem;
use crate::api::json::json;
use crate::engine::{PartUrls, SignedPart};
use crate::model::{Digest, PartNumber, Timestamp};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UrlsJson {
    part_numbers: Vec<u32>,
    /// By part number: one digest, as a map from its algorithm's name to hex.
    digests: BTreeMap<u32, BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ArrivedJson {
    etag: Option<String>,
}

#[derive(Serialize)]
struct SignedJson<'a> {
    parts: Vec<SignedPartJson<'a>>,
}

#[derive(Serialize)]
struct SignedPartJson<'a> {
    part_number: u32,
    offset: u64,
    length: u64,
    url: &'a str,
    method: &'a str,
    headers: BTreeMap<&'a str, &'a str>,
    expires_at: Timestamp,
}

/// A request for URLs.
pub(super) fn urls(
    credentials: Credentials,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<PartUrls, Problem> {
    let json: UrlsJson = json(headers, body)?;
    let digests = json.digests.into_iter().map(|(number, digests)| {
        let [(name, hex)]: [_; 1] = (digests.into_iter().collect::<Vec<_>>())
            .try_into()
            .map_err(|_| {
                Problem::bad_request(format!("digests: part {number} has to have exactly one"))
            })?;
        let digest = name
            .parse()
            .and_then(|algorithm| Digest::from_hex(algorithm, &hex))
            .map_err(|error| Problem::bad_request(format!("digests: part {number}: {error}")))?;
        Ok((PartNumber(number), digest))
    });
    Ok(PartUrls {
        id: credentials.id,
        key: credentials.key,
        numbers: json.part_numbers.into_iter().map(PartNumber).collect(),
        digests: digests.collect::<Result<_, Problem>>()?,
    })
}

/// The part that a path names.
pub(super) fn number(text: &str) -> Result<PartNumber, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number
        .map(PartNumber)
        .ok_or_else(|| Problem::bad_request("a part is named by its number, from 1"))
}

/// The etag that a client got for a part, if it tells it.
pub(super) fn etag(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, Problem> {
    let json: ArrivedJson = json(headers, body)?;
    Ok(json.etag)
}

/// `200` with the requests that put the parts.
pub(super) fn signed(parts: &[SignedPart]) -> Response {
    let parts = parts
        .iter()
        .map(|part| SignedPartJson {
            part_number: part.number.0,
            offset: part.range.start(),
            length: part.range.len(),
            url: &part.request.url,
            method: part.request.method,
            headers: (part.request.headers.iter())
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            expires_at: part.request.expires_at,
        })
        .collect();
    render::json(StatusCode::OK, &SignedJson { parts })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::SignedRequest;
    use crate::model::{ByteRange, DigestAlgorithm, UploadId, UploadKey};

    fn asked(body: &str) -> Result<PartUrls, Problem> {
        let credentials = Credentials {
            id: UploadId::from_bytes([7; 16]),
            key: UploadKey::generate(),
        };
        urls(credentials, &HeaderMap::new(), body.as_bytes())
    }

    fn refused<T: std::fmt::Debug>(asked: Result<T, Problem>) -> String {
        let problem = asked.expect_err("refused");
        assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        problem.detail
    }

    #[test]
    fn parts_are_asked_for_by_number_some_with_a_digest() {
        let body = r#"{"part_numbers":[3,1],"digests":{"3":{"crc32c":"00000001"}}}"#;
        let ask = asked(body).expect("sound");
        assert_eq!(ask.numbers, [PartNumber(3), PartNumber(1)]);
        let digest = Digest::from_hex(DigestAlgorithm::Crc32c, "00000001").expect("hex");
        assert_eq!(ask.digests, [(PartNumber(3), digest)].into());
        for none in ["", "{}"] {
            assert!(asked(none).expect("sound").numbers.is_empty(), "{none}");
        }
    }

    #[test]
    fn what_is_no_question_says_why() {
        insta::assert_snapshot!(refused(asked(r#"{"part_numbers":[-1]}"#)), @"the JSON cannot be taken: invalid value: integer `-1`, expected u32 at line 1 column 19");
        insta::assert_snapshot!(refused(asked(r#"{"parts":[1]}"#)), @"the JSON cannot be taken: unknown field `parts`, expected `part_numbers` or `digests` at line 1 column 8");
        insta::assert_snapshot!(refused(asked(r#"{"part_numbers":[1],"digests":{"1":{}}}"#)), @"digests: part 1 has to have exactly one");
        insta::assert_snapshot!(refused(asked(r#"{"part_numbers":[1],"digests":{"1":{"md5":"00"}}}"#)), @"digests: part 1: a md5 digest is 16 bytes in hex, 32 characters");
        insta::assert_snapshot!(refused(asked(r#"{"part_numbers":[1],"digests":{"1":{"sha-3":"00"}}}"#)), @r#"digests: part 1: the digest algorithm "sha-3" is not known; known are sha-256, sha-512, sha, md5, crc32c, crc64nvme"#);
        insta::assert_snapshot!(refused(asked(r#"{"part_numbers":[1],"digests":{"one":{}}}"#)), @"the JSON cannot be taken: invalid value: expected key to be a number in quotes at line 1 column 32");
        for text in ["", "x", "+1", "-1", " 1", "4294967296"] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(refused(number(text)), @"a part is named by its number, from 1");
            }
        }
        assert_eq!(number("7").expect("a number"), PartNumber(7));
    }

    #[test]
    fn an_etag_is_told_or_not() {
        let told = |body: &str| etag(&HeaderMap::new(), body.as_bytes());
        assert_eq!(told("").expect("sound"), None);
        assert_eq!(told(r#"{"etag":null}"#).expect("sound"), None);
        let quoted = told(r#"{"etag":"\"abc\""}"#).expect("sound");
        assert_eq!(quoted.as_deref(), Some("\"abc\""));
        assert!(told(r#"{"ETag":"abc"}"#).is_err());
    }

    #[tokio::test]
    async fn a_request_is_told_with_all_that_belongs_to_it() {
        let part = SignedPart {
            number: PartNumber(2),
            range: ByteRange::new(5, 8).expect("not empty"),
            request: SignedRequest {
                method: "PUT",
                url: "https://s3.example/b/k?partNumber=2&X-Amz-Signature=0".to_owned(),
                headers: vec![("content-length".to_owned(), "3".to_owned())],
                expires_at: Timestamp(1_700_000_000_000),
            },
        };
        let (head, body) = signed(&[part]).into_parts();
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers["cache-control"], "no-store");
        let body = body.collect().await.expect("in memory").to_bytes();
        insta::assert_snapshot!(String::from_utf8_lossy(&body), @r#"{"parts":[{"part_number":2,"offset":5,"length":3,"url":"https://s3.example/b/k?partNumber=2&X-Amz-Signature=0","method":"PUT","headers":{"content-length":"3"},"expires_at":"2023-11-14T22:13:20Z"}]}"#);
    }

    proptest! {
        #[test]
        fn the_parsers_never_panic(body in "[ -~]{0,60}") {
            let _ = asked(&body);
            let _ = number(&body);
            let _ = etag(&HeaderMap::new(), body.as_bytes());
        }
    }
}
