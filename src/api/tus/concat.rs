//! `Upload-Concat`: whether a new upload is a stretch of a file, or put together from such.

use crate::api::error::Problem;
use crate::engine::NewRole;
use crate::model::Handle;

/// What HEAD says of a partial upload.
pub(super) const PARTIAL: &str = "partial";

/// Reads the field of a creation. URLs are resolved by their last segment, wherever they point.
pub(super) fn parse(field: &str) -> Result<NewRole, Problem> {
    if field == PARTIAL {
        return Ok(NewRole::Partial);
    }
    let urls = field.strip_prefix("final;").ok_or_else(malformed)?;
    let handles = urls
        .split(' ')
        .filter(|url| !url.is_empty())
        .enumerate()
        .map(|(index, url)| {
            handle_in(url).ok_or_else(|| {
                let number = index + 1;
                Problem::bad_request(format!(
                    "part {number} of Upload-Concat is the URL of no upload"
                ))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if handles.is_empty() {
        return Err(malformed());
    }
    Ok(NewRole::Final(handles))
}

fn malformed() -> Problem {
    Problem::bad_request(
        "Upload-Concat has to be \"partial\", or \"final;\" and the URLs of partial uploads with spaces between them",
    )
}

fn handle_in(url: &str) -> Option<Handle> {
    // The last of a list with commas would stand for all of it.
    if url.contains(',') {
        return None;
    }
    let path = url.split(['?', '#']).next()?;
    path.rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{UploadId, UploadKey};

    fn handle() -> Handle {
        Handle {
            id: UploadId::generate(),
            key: UploadKey::generate(),
        }
    }

    #[test]
    fn urls_of_any_kind_are_resolved_in_order() {
        let (a, b) = (handle(), handle());
        let (one, two) = (a.reveal(), b.reveal());
        let field = format!(
            "final;https://host.example:8080/files/{one}?x=/y#/z /files/{two} {one} ../files/{one}#?"
        );
        let NewRole::Final(handles) = parse(&field).expect("sound") else {
            panic!("it is a final one");
        };
        let ids: Vec<_> = handles.iter().map(|handle| handle.id).collect();
        assert_eq!(ids, [a.id, b.id, a.id, a.id]);
        assert!(matches!(parse("partial"), Ok(NewRole::Partial)));
    }

    #[test]
    fn anything_else_is_refused_without_showing_what_came() {
        let sound = handle().reveal();
        for wrong in [
            "",
            "Partial",
            "partial;",
            "final",
            "final;",
            "final; ",
            "final:/files/a",
            &format!("final /files/{sound}"),
            &format!("final;/files/{sound}/"),
            &format!("final;/files/{}", &sound[1..]),
            &format!("final;/files/{sound}A"),
            &format!("final;/files/{sound},/files/{sound}"),
            &format!("final;/files/{sound} /files/"),
        ] {
            let problem = parse(wrong).expect_err(wrong);
            assert!(!problem.detail.contains(&sound[..10]), "{}", problem.detail);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(field in "[ -~]{0,60}|final;[ /?#:a-zA-Z]{0,80}") {
            let _ = parse(&field);
        }
    }
}
