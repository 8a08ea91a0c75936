//! The structured fields of the protocol (RFC 9651). One that is not what it has to be is as good as absent.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Item, Parser};

use super::dialect::Dialect;

/// RFC 5789
pub(super) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
pub(super) const INTEROP_VERSION: HeaderName =
    HeaderName::from_static("upload-draft-interop-version");
pub(super) const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
pub(super) const UPLOAD_INCOMPLETE: HeaderName = HeaderName::from_static("upload-incomplete");
pub(super) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub(super) const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");
pub(super) const UPLOAD_ID: HeaderName = HeaderName::from_static("upload-id");

/// The largest integer that a structured field may have.
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// A number that is not negative.
pub(super) fn integer(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    match item(headers, name)? {
        BareItem::Integer(number) => u64::try_from(i64::from(number)).ok(),
        _ => None,
    }
}

/// `?0` or `?1`.
pub(super) fn boolean(headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
    match item(headers, name)? {
        BareItem::Boolean(value) => Some(value),
        _ => None,
    }
}

/// An item without its parameters. Several lines are one value, joined by commas, and so no item.
fn item(headers: &HeaderMap, name: &HeaderName) -> Option<BareItem> {
    let lines: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let item: Item = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
    Some(item.bare_item)
}

/// The limits that uploads have here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How many bytes an upload may have.
    pub(super) max_size: u64,
    /// How many a request may have.
    pub(super) max_append_size: Option<u64>,
}

impl Limits {
    /// `Upload-Limit`, with the time that is left if that is known and limited.
    pub(super) fn field(
        &self,
        dialect: &Dialect,
        time_left: Option<Duration>,
    ) -> Option<HeaderValue> {
        let time_key = dialect.time_left?;
        let members = [
            ("max-size", Some(self.max_size)),
            ("min-size", Some(0)),
            ("max-append-size", self.max_append_size),
            (time_key, time_left.map(|left| left.as_secs())),
        ];
        let members: Vec<String> = members
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}={}", value?.min(MAX_INTEGER))))
            .collect();
        Some(HeaderValue::try_from(members.join(", ")).expect("keys and digits are ASCII"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::ietf::{v6, v8};

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn integers_are_taken_with_their_parameters_ignored() {
        let read = |values: &[&str]| integer(&headers(&UPLOAD_LENGTH, values), &UPLOAD_LENGTH);
        for (value, expected) in [
            ("0", 0),
            ("007", 7),
            (" 12 ", 12),
            ("12;a=1;b", 12),
            ("999999999999999", MAX_INTEGER),
        ] {
            assert_eq!(read(&[value]), Some(expected), "{value}");
        }
        for wrong in [
            "",
            "-1",
            "+1",
            "1.0",
            "?1",
            "\"1\"",
            "1000000000000000",
            "1,",
            "1 2",
            "1;",
            "0x1",
            "(1)",
            "one",
        ] {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["5", "5"]), None, "two lines are a list");
    }

    #[test]
    fn booleans_are_taken_with_their_parameters_ignored() {
        let read = |values: &[&str]| boolean(&headers(&UPLOAD_COMPLETE, values), &UPLOAD_COMPLETE);
        for (value, expected) in [("?0", false), ("?1", true), (" ?1;a=?0 ", true)] {
            assert_eq!(read(&[value]), Some(expected), "{value}");
        }
        for wrong in ["", "0", "1", "true", "?2", "?", "?10", "?1 ?1", "\"?1\""] {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
        assert_eq!(read(&["?1", "?1"]), None, "two lines are a list");
    }

    #[test]
    fn limits_are_a_dictionary() {
        let mut limits = Limits {
            max_size: 50,
            max_append_size: None,
        };
        let shown = |limits: &Limits, dialect, left| {
            let field = limits.field(dialect, left).expect("it has limits");
            field.to_str().expect("ASCII").to_owned()
        };
        let left = Some(Duration::from_millis(7900));
        insta::assert_snapshot!(shown(&limits, &v8::DIALECT, None), @"max-size=50, min-size=0");
        insta::assert_snapshot!(shown(&limits, &v8::DIALECT, left), @"max-size=50, min-size=0, max-age=7");
        limits.max_append_size = Some(u64::MAX);
        insta::assert_snapshot!(shown(&limits, &v6::DIALECT, left), @"max-size=50, min-size=0, max-append-size=999999999999999, expires=7");
    }

    proptest! {
        #[test]
        fn no_value_panics(value in "[ -~]{0,24}", number in "[-?0-9;., ]{0,20}") {
            for value in [value, number] {
                let headers = headers(&UPLOAD_LENGTH, &[&value]);
                let _ = (integer(&headers, &UPLOAD_LENGTH), boolean(&headers, &UPLOAD_LENGTH));
            }
        }

        #[test]
        fn any_integer_of_the_rfc_is_taken(number in 0..=MAX_INTEGER) {
            let headers = headers(&UPLOAD_LENGTH, &[&number.to_string()]);
            prop_assert_eq!(integer(&headers, &UPLOAD_LENGTH), Some(number));
        }
    }
}
