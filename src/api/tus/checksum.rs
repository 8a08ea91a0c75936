//! `Upload-Checksum`: what a body hashes to, before it or as a trailer after it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::TRAILER;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::error::Problem;
use crate::engine::{Expected, Trailing};
use crate::model::digest::Digests;
use crate::model::{Digest, DigestAlgorithm};

/// `Upload-Checksum`
pub(super) const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");

/// The names that tus gives the algorithms.
pub(super) const ALGORITHMS: [(&str, DigestAlgorithm); 5] = [
    ("sha1", DigestAlgorithm::Sha1),
    ("sha256", DigestAlgorithm::Sha256),
    ("sha512", DigestAlgorithm::Sha512),
    ("md5", DigestAlgorithm::Md5),
    ("crc32c", DigestAlgorithm::Crc32c),
];

/// What the body of a request has to hash to.
pub(super) fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let announced = headers
        .get_all(TRAILER)
        .iter()
        .filter_map(|names| names.to_str().ok())
        .flat_map(|names| names.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case(UPLOAD_CHECKSUM.as_str()));
    match (headers.contains_key(UPLOAD_CHECKSUM), announced) {
        (true, true) => Err(Problem::bad_request(
            "Upload-Checksum has to come before the body or after it, not both",
        )),
        (true, false) => the_one_in(headers)
            .map(Expected::Known)
            .map_err(Problem::bad_request),
        (false, true) => Ok(Expected::Trailing(Trailing::of(
            &ALGORITHMS.map(|(_, algorithm)| algorithm),
        ))),
        (false, false) => Ok(Expected::Known(Digests::default())),
    }
}

/// The checksum among header fields or trailers, or why there is none.
pub(super) fn the_one_in(fields: &HeaderMap) -> Result<Digests, String> {
    let mut values = fields.get_all(UPLOAD_CHECKSUM).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (Some(Ok(value)), None) => parse(value),
        (None, _) => Err("the Upload-Checksum that was to follow the body did not come".to_owned()),
        _ => Err("there has to be one Upload-Checksum, in ASCII".to_owned()),
    }
}

fn parse(value: &str) -> Result<Digests, String> {
    let (name, value) = value
        .split_once(' ')
        .ok_or("Upload-Checksum has to be an algorithm, a space, and base64")?;
    let (name, algorithm) = ALGORITHMS
        .into_iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| {
            let known = ALGORITHMS.map(|(name, _)| name).join(", ");
            format!("Upload-Checksum names an algorithm that is not known here; known are {known}")
        })?;
    let digest = STANDARD
        .decode(value)
        .ok()
        .and_then(|value| Digest::new(algorithm, value).ok())
        .ok_or_else(|| {
            let bytes = algorithm.len();
            format!("Upload-Checksum: {name} has to be {bytes} bytes in base64 with padding")
        })?;
    Ok([digest].into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn the_algorithms_of_tus_are_taken() {
        for (name, algorithm) in ALGORITHMS {
            let value = STANDARD.encode(vec![7; algorithm.len()]);
            let headers = fields(&[("upload-checksum", &format!("{name} {value}"))]);
            let Ok(Expected::Known(digests)) = expected(&headers) else {
                panic!("{name}");
            };
            let digest = digests.get(algorithm).expect("it is there");
            assert_eq!(digest.value(), vec![7; algorithm.len()]);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in [
            "",
            "crc32c",
            "crc32c ",
            "crc32c AA==",
            "crc32c AAAAAQ",
            "crc32c  AAAAAQ==",
            "crc32c *",
            "CRC32C AAAAAQ==",
            "crc32 AAAAAQ==",
            "sha-256 AAAAAQ==",
        ] {
            let headers = fields(&[("upload-checksum", wrong)]);
            assert!(expected(&headers).is_err(), "{wrong}");
        }
        let one = ("upload-checksum", "crc32c AAAAAQ==");
        assert!(expected(&fields(&[one])).is_ok());
        assert!(expected(&fields(&[one, one])).is_err());
        assert!(expected(&fields(&[one, ("trailer", "Upload-Checksum")])).is_err());
    }

    #[test]
    fn a_trailer_is_waited_for_where_it_is_announced() {
        for (trailer, waits) in [
            ("Upload-Checksum", true),
            ("x-other, upload-checksum", true),
            ("x-other", false),
        ] {
            let told = expected(&fields(&[("trailer", trailer)])).expect("sound");
            assert_eq!(matches!(told, Expected::Trailing(_)), waits, "{trailer}");
        }
        assert!(the_one_in(&HeaderMap::new()).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(value in "[ -~]{0,40}|crc32c [a-zA-Z+/=]{0,10}") {
            let _ = expected(&fields(&[("upload-checksum", &value)]));
        }
    }
}
