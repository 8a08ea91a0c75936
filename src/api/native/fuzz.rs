//! Fuzz targets of this protocol's parsers.

use super::content_range::{self, ContentRange};
use super::parse::{self, Chunk};
use crate::fuzzing::{check_problem, message, text};

/// A `Content-Range`.
pub(crate) fn content_range(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let told = |length: Option<u64>| length.map_or("*".to_owned(), |length| length.to_string());
    match content_range::parse(text) {
        Err(problem) => check_problem(&problem),
        Ok(ContentRange::Unsatisfied { length }) => {
            let again = content_range::parse(&format!("bytes */{}", told(length)));
            assert_eq!(again.ok(), Some(ContentRange::Unsatisfied { length }));
        }
        Ok(range @ ContentRange::Bytes { start, end, length }) => {
            assert!(start < end && length.is_none_or(|length| end <= length));
            assert!(
                end <= i64::MAX.cast_unsigned(),
                "the catalog's numbers have a sign"
            );
            let again = format!("bytes {start}-{}/{}", end - 1, told(length));
            assert_eq!(content_range::parse(&again).ok(), Some(range));
        }
    }
}

/// An id, header fields, a body.
pub(crate) fn request(data: &[u8]) {
    let (id, headers, body) = message(data);
    if let Err(problem) = parse::create(&headers, body) {
        check_problem(&problem);
    }
    match parse::chunk(id, &headers) {
        Ok(Chunk::Write(write)) => {
            assert_eq!(write.id.to_string(), id);
            assert!(write.end.is_none_or(|end| end > write.start));
        }
        Ok(Chunk::Ask { .. }) => {}
        Err(problem) => check_problem(&problem),
    }
    match parse::credentials(id, &headers) {
        Ok(credentials) => {
            assert_eq!(credentials.id.to_string(), id);
            if let Err(problem) = parse::complete(credentials, &headers, body) {
                check_problem(&problem);
            }
        }
        Err(problem) => check_problem(&problem),
    }
}
