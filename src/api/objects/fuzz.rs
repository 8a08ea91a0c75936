//! Fuzz targets of this protocol's parsers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::form;
use super::parse::{self, Kind};
use crate::api::error::Problem;
use crate::engine::{Body, BodyError};
use crate::fuzzing::{check_problem, message, text};
use crate::model::Length;

const MAX_SIZE: Length = Length(1 << 40);
/// Nothing is waited for but the parser.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// A query, header fields; an address.
pub(crate) fn request(data: &[u8]) {
    let (query, headers, _) = message(data);
    match parse::request(Some(query), &headers, MAX_SIZE) {
        Ok(asked) => {
            if let Err(problem) = asked.file(MAX_SIZE) {
                check_problem(&problem);
            }
        }
        Err(problem) => check_problem(&problem),
    }
    if let Some(Err(problem)) = text(data).map(parse::address) {
        check_problem(&problem);
    }
}

/// How large the frames are, then a form whose parts are parted by `--b`.
pub(crate) fn form(data: &[u8]) {
    let Some((&frame, rest)) = data.split_first() else {
        return;
    };
    let frames: Vec<Result<Bytes, BodyError>> = rest
        .chunks(usize::from(frame).max(1))
        .map(|frame| Ok(Bytes::copy_from_slice(frame)))
        .collect();
    let body: Body = Box::pin(futures_util::stream::iter(frames));
    let mut headers = http::HeaderMap::new();
    let kind = http::HeaderValue::from_static("multipart/form-data; boundary=b");
    headers.insert(http::header::CONTENT_TYPE, kind);
    let mut asked = parse::request(None, &headers, MAX_SIZE).expect("a form");
    let Kind::Form { boundary } = asked.kind.clone() else {
        panic!("it is a form");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let read = async {
        let mut file = form::find_file(&mut asked, body, boundary, LONG_ENOUGH).await?;
        let mut bytes = 0;
        while let Some(Ok(piece)) = file.next().await {
            bytes += piece.len();
        }
        Ok::<usize, Problem>(bytes)
    };
    let outcome = runtime.block_on(async { tokio::time::timeout(LONG_ENOUGH, read).await });
    match outcome.expect("every frame was there, so nothing is waited for") {
        Ok(bytes) => assert!(bytes <= rest.len()),
        Err(problem) => check_problem(&problem),
    }
}
