//! The `Content-Range` of a chunk: `bytes a-b/N` with `*` for a length that is not known yet, and `bytes */N`, which asks.

use crate::api::error::{Code, Problem};

/// The largest number that is taken: the catalog keeps numbers with a sign.
const MAX: u64 = i64::MAX as u64;

/// What a `Content-Range` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentRange {
    /// The body is these bytes.
    Bytes {
        /// The first of them.
        start: u64,
        /// The one after the last.
        end: u64,
        /// The upload's length, if it is known.
        length: Option<u64>,
    },
    /// There is no body; the question is how far the upload got.
    Unsatisfied {
        /// The upload's length, if it is known.
        length: Option<u64>,
    },
}

/// Parses the field's value, strictly: RFC 9110, section 14.4, and `bytes */*` besides.
pub fn parse(text: &str) -> Result<ContentRange, Problem> {
    let malformed = || {
        Problem::bad_request(
            "Content-Range has to be \"bytes first-last/length\" or \"bytes */length\", with * for a length that is not known",
        )
    };
    let (unit, rest) = text.split_once(' ').ok_or_else(malformed)?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return Err(malformed());
    }
    let (range, length) = rest.split_once('/').ok_or_else(malformed)?;
    let length = match length {
        "*" => None,
        digits => Some(number(digits).ok_or_else(malformed)??),
    };
    if range == "*" {
        return Ok(ContentRange::Unsatisfied { length });
    }
    let (first, last) = range.split_once('-').ok_or_else(malformed)?;
    let start = number(first).ok_or_else(malformed)??;
    let last = number(last).ok_or_else(malformed)??;
    if last < start {
        return Err(mismatch(format!(
            "Content-Range is reversed: {last} comes before {start}"
        )));
    }
    if let Some(length) = length.filter(|length| last >= *length) {
        return Err(mismatch(format!(
            "Content-Range ends with byte {last}, beyond the length {length}"
        )));
    }
    let end = last + 1;
    Ok(ContentRange::Bytes { start, end, length })
}

/// `None`: no number. An error: a number that is too large.
fn number(digits: &str) -> Option<Result<u64, Problem>> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The byte after the last has to have a number too.
    let value = digits.parse::<u64>().ok().filter(|value| *value < MAX);
    Some(value.ok_or_else(|| {
        mismatch("Content-Range has a number that is larger than any upload can be")
    }))
}

pub(super) fn mismatch(detail: impl Into<String>) -> Problem {
    Problem::new(Code::RangeMismatch, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(start: u64, end: u64, length: Option<u64>) -> ContentRange {
        ContentRange::Bytes { start, end, length }
    }

    #[test]
    fn sound_ranges_are_taken() {
        for (text, expected) in [
            ("bytes 0-0/1", bytes(0, 1, Some(1))),
            ("bytes 5-9/*", bytes(5, 10, None)),
            ("BYTES 5-9/10", bytes(5, 10, Some(10))),
            ("bytes */10", ContentRange::Unsatisfied { length: Some(10) }),
            ("bytes */*", ContentRange::Unsatisfied { length: None }),
        ] {
            assert_eq!(parse(text).expect(text), expected);
        }
    }

    #[test]
    fn each_kind_of_wrongness_has_its_own_answer() {
        for (text, code) in [
            ("bytes 9-5/10", Code::RangeMismatch),
            ("bytes 0-10/10", Code::RangeMismatch),
            ("bytes 0-0/0", Code::RangeMismatch),
            ("bytes 0-18446744073709551615/*", Code::RangeMismatch),
            ("bytes 0-9223372036854775807/*", Code::RangeMismatch),
            ("bytes 99999999999999999999999-1/*", Code::RangeMismatch),
            ("bytes */99999999999999999999999", Code::RangeMismatch),
            ("", Code::BadRequest),
            ("bytes", Code::BadRequest),
            ("bytes=0-1/2", Code::BadRequest),
            ("bytes 0-1", Code::BadRequest),
            ("bytes 0-/2", Code::BadRequest),
            ("bytes -1/2", Code::BadRequest),
            ("bytes  0-1/2", Code::BadRequest),
            ("bytes 0-1/2 ", Code::BadRequest),
            ("bytes +0-1/2", Code::BadRequest),
            ("bytes 0-1/2/3", Code::BadRequest),
            ("bytes 0--1/2", Code::BadRequest),
            ("bytes 0x0-0x1/2", Code::BadRequest),
            ("bytes 0-1,3-4/9", Code::BadRequest),
            ("bytes ٠-١/٢", Code::BadRequest),
            ("items 0-1/2", Code::BadRequest),
        ] {
            assert_eq!(parse(text).expect_err(text).code, code, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_taken_is_sound(text in "(bytes )?[-*/0-9 a-z]{0,40}") {
            if let Ok(ContentRange::Bytes { start, end, length }) = parse(&text) {
                prop_assert!(start < end);
                prop_assert!(length.is_none_or(|length| end <= length));
            }
        }

        #[test]
        fn any_sound_range_is_taken(start in 0..MAX - 1, size in 1_u64..1 << 40, more in prop::option::of(0_u64..1 << 40)) {
            let end = start.saturating_add(size).min(MAX - 1);
            prop_assume!(start < end);
            let length = more.map(|more| end.saturating_add(more).min(MAX - 1));
            let shown = length.map_or_else(|| "*".to_owned(), |length| length.to_string());
            let parsed = parse(&format!("bytes {start}-{}/{shown}", end - 1));
            prop_assert_eq!(parsed.expect("sound"), ContentRange::Bytes { start, end, length });
        }
    }
}
