//! Fuzz targets of this protocol's parsers.

use http::Uri;

use super::parse;
use crate::fuzzing::{check_problem, message};

/// A URI, header fields, a body.
pub(crate) fn request(data: &[u8]) {
    let (uri, headers, body) = message(data);
    let problems = [
        parse::create(&headers, body).err(),
        parse::parts(&headers, body).err(),
        parse::number(uri).err(),
    ];
    problems.iter().flatten().for_each(check_problem);
    let Ok(uri) = uri.parse::<Uri>() else { return };
    let segment = uri.path().rsplit('/').next().unwrap_or_default();
    let problems = [
        parse::handle(segment, &uri).err(),
        parse::form(&uri).err(),
        parse::numbers(&uri).err(),
    ];
    problems.iter().flatten().for_each(check_problem);
}
