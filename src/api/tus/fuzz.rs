//! Fuzz targets of this protocol's parsers.

use super::{checksum, concat, metadata, parse};
use crate::engine::NewRole;
use crate::fuzzing::{check_problem, message, text};
use crate::model::Handle;

/// A method, header fields.
pub(crate) fn request(data: &[u8]) {
    let (method, headers, _) = message(data);
    if let Ok(method) = method.parse() {
        let _ = parse::method(&method, &headers);
    }
    if let Err(problem) = parse::version(&headers) {
        check_problem(&problem);
    }
    if let Err(problem) = parse::creation(&headers) {
        check_problem(&problem);
    }
    let handle: Handle = "A".repeat(64).parse().expect("a handle");
    match parse::chunk(&headers) {
        Ok(chunk) => {
            let write = chunk.into_write(&handle);
            assert!(write.end.is_none_or(|end| end >= write.start));
        }
        Err(problem) => check_problem(&problem),
    }
}

/// An `Upload-Metadata`.
pub(crate) fn metadata(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match metadata::parse(text) {
        Ok(declared) => {
            let name = declared.filename.unwrap_or_default();
            assert!(!name.contains('\0') && name.len() <= 4096, "{name:?}");
            assert!(declared.metadata_field.is_none_or(|field| field == text));
        }
        Err(problem) => check_problem(&problem),
    }
}

/// An `Upload-Concat`.
pub(crate) fn concat(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match concat::parse(text) {
        Ok(NewRole::Final(parts)) => {
            assert!(!parts.is_empty());
            let urls: Vec<String> = parts
                .iter()
                .map(|part| format!("/files/{}", part.reveal()))
                .collect();
            let again = concat::parse(&format!("final;{}", urls.join(" ")));
            let Ok(NewRole::Final(again)) = again else {
                panic!("what we name, we read");
            };
            let ids = |parts: &[Handle]| parts.iter().map(Handle::reveal).collect::<Vec<_>>();
            assert_eq!(ids(&again), ids(&parts));
        }
        Ok(_) => assert_eq!(text, concat::PARTIAL),
        Err(problem) => check_problem(&problem),
    }
}

/// Header fields or trailers with an `Upload-Checksum`.
pub(crate) fn checksum(data: &[u8]) {
    let (_, headers, _) = message(data);
    if let Err(problem) = checksum::expected(&headers) {
        check_problem(&problem);
    }
    match checksum::the_one_in(&headers) {
        Ok(digests) => assert_eq!(digests.iter().count(), 1),
        Err(why) => assert!(!why.is_empty()),
    }
}
