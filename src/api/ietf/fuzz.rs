//! Fuzz targets of this protocol's parsers.

use super::dialect::Dialect;
use super::{disposition, parse};
use crate::fuzzing::{check_problem, message};

/// A filename's field, header fields.
pub(crate) fn request(data: &[u8]) {
    let (field, headers, _) = message(data);
    let _ = disposition::filename(field);
    let dialect = Dialect::of(&headers);
    match parse::creation(dialect, &headers) {
        Ok(creation) => assert_eq!(creation.content.start.get(), 0),
        Err(problem) => check_problem(&problem),
    }
    match parse::append(dialect, &headers) {
        Ok(content) => {
            assert!(content.end.is_none_or(|end| end >= content.start));
            let length = content.length.zip(content.end);
            assert!(length.is_none_or(|(length, end)| end.get() <= length.get()));
        }
        Err(problem) => check_problem(&problem),
    }
    for asked in [
        parse::retrieval(dialect, &headers),
        parse::cancellation(dialect, &headers),
    ] {
        if let Err(problem) = asked {
            check_problem(&problem);
        }
    }
}
