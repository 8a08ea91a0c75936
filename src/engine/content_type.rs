//! Whether content is what its declared type says: seen from the bytes that it begins with.
//!
//! Looked at twice where it matters: as the first bytes arrive, so that the rest need not; and when the object is there, whatever
//! way its bytes came.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::live::Live;
use super::{Body, EngineError, Inner, Result};
use crate::model::caller::essence;
use crate::model::upload::FailureReason;
use crate::model::{ByteRange, Object, Offset, Upload};

/// How many bytes tell a type.
const TELLING_BYTES: usize = 512;
/// How long they are waited for as they arrive. Short, as nobody can be displaced meanwhile.
const PEEK_WITHIN: Duration = Duration::from_millis(300);

/// Types that begin alike, or are the same under several names.
const ALIKE: [&[&str]; 16] = [
    &["image/jpeg", "image/jpg", "image/pjpeg"],
    &[
        "image/heif",
        "image/heic",
        "image/heif-sequence",
        "image/heic-sequence",
        "image/avif",
    ],
    &["image/bmp", "image/x-ms-bmp"],
    &["image/vnd.microsoft.icon", "image/x-icon"],
    &[
        "video/mp4",
        "video/quicktime",
        "video/x-m4v",
        "video/3gpp",
        "video/3gpp2",
        "audio/mp4",
        "audio/m4a",
        "audio/x-m4a",
        "audio/aac",
    ],
    &[
        "video/webm",
        "video/x-matroska",
        "audio/webm",
        "audio/x-matroska",
    ],
    &["audio/mpeg", "audio/mp3"],
    &["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"],
    &[
        "audio/ogg",
        "video/ogg",
        "application/ogg",
        "audio/opus",
        "audio/vorbis",
    ],
    &["audio/flac", "audio/x-flac"],
    &["audio/aiff", "audio/x-aiff"],
    &[
        "application/gzip",
        "application/x-gzip",
        "application/x-tgz",
    ],
    &[
        "application/vnd.rar",
        "application/x-rar-compressed",
        "application/x-rar",
    ],
    &["video/x-msvideo", "video/avi", "video/msvideo"],
    &["font/woff", "application/font-woff"],
    &["font/woff2", "application/font-woff2"],
];

/// Types that nothing can be which does not begin as they do. Of others there are more kinds than can be told.
const UNMISTAKABLE: [&str; 5] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "application/pdf",
];

/// What contradicts the declared type in the bytes that content begins with; `None` if nothing does.
fn contradiction(declared: &str, head: &[u8]) -> Option<String> {
    let declared = essence(declared);
    if declared == "application/octet-stream" || head.is_empty() {
        return None;
    }
    match infer::get(head).map(|found| found.mime_type()) {
        Some(found) if are_alike(&declared, found) => None,
        Some(found) => Some(format!(
            "{declared} was declared, and the content is {found}"
        )),
        None if UNMISTAKABLE.contains(&&*declared) => Some(format!(
            "{declared} was declared, and the content does not begin like that"
        )),
        None => None,
    }
}

fn are_alike(declared: &str, found: &str) -> bool {
    let both = |kind: &str| declared.starts_with(kind) && found.starts_with(kind);
    let is_zip = |name: &str| {
        name.contains("zip")
            || name.contains("java-archive")
            || name.starts_with("application/vnd.oasis.")
            || name.starts_with("application/vnd.openxmlformats-")
            || name == "application/vnd.android.package-archive"
    };
    // What is text can begin like anything that is told by a few letters; a picture or a film it is not.
    let is_text =
        declared.starts_with("text/") || declared.ends_with("/xml") || declared.ends_with("+xml");
    let is_telling = [
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "application/pdf",
        "text/html",
    ];
    declared == found
        || ALIKE.iter().any(|same| same.contains(&declared) && same.contains(&found))
        || (is_zip(declared) && is_zip(found))
        || both("font/")
        || (found == "image/tiff" && declared.starts_with("image/") && !UNMISTAKABLE.contains(&declared))
        || (found == "text/xml" && is_text)
        || (found == "application/x-ole-storage" && declared.starts_with("application/vnd.ms-"))
        || (is_text && !is_telling.contains(&found) && !found.starts_with("video/"))
        // A page is found in whatever begins with one of its tags; under these types no browser runs it.
        || (found == "text/html" && matches!(declared, "text/markdown" | "text/csv" | "image/svg+xml"))
}

/// The bytes that a body begins with, and the body as it was. Fewer than would tell if it is shorter, broke, or is slow.
async fn peek(mut body: Body) -> (Vec<u8>, Body) {
    let deadline = Instant::now() + PEEK_WITHIN;
    let mut frames: Vec<std::result::Result<Bytes, _>> = Vec::new();
    let mut head = Vec::new();
    while head.len() < TELLING_BYTES {
        let Ok(Some(frame)) = tokio::time::timeout_at(deadline, body.next()).await else {
            break;
        };
        if let Ok(bytes) = &frame {
            head.extend_from_slice(&bytes[..bytes.len().min(TELLING_BYTES - head.len())]);
        }
        let broke = frame.is_err();
        frames.push(frame);
        if broke {
            break;
        }
    }
    (head, stream::iter(frames).chain(body).boxed())
}

impl Inner {
    /// Looks at the bytes that a body begins with, where it is the beginning of its upload.
    pub(super) async fn check_beginning(
        &self,
        live: &Live,
        at: Offset,
        body: Body,
    ) -> Result<Body> {
        let (declared, length) = {
            let state = live.state();
            let upload = &state.snapshot.upload;
            let declared = upload.declared.content_type.clone();
            let there = state.snapshot.received.contiguous() > Offset(0);
            let looked_at = upload.typed && at == Offset(0) && !there;
            (declared.filter(|_| looked_at), upload.length)
        };
        if declared.is_none() {
            return Ok(body);
        }
        let (head, body) = peek(body).await;
        let whole = length.is_some_and(|length| length.get() <= head.len() as u64);
        if whole || head.len() >= TELLING_BYTES {
            self.check_head(live, declared.as_deref(), &head).await?;
        }
        Ok(body)
    }

    /// Fails an upload for good whose content is not what its declared type says.
    async fn check_head(&self, live: &Live, declared: Option<&str>, head: &[u8]) -> Result<()> {
        let Some(detail) = declared.and_then(|declared| contradiction(declared, head)) else {
            return Ok(());
        };
        self.fail(live, FailureReason::ContentType).await?;
        Err(EngineError::WrongType { detail })
    }

    /// The same, of an object that is there.
    pub(super) async fn check_type(
        &self,
        live: &Live,
        upload: &Upload,
        object: &Object,
    ) -> Result<()> {
        let head = ByteRange::new(0, object.size.get().min(TELLING_BYTES as u64));
        let (true, Some(range)) = (upload.typed, head) else {
            return Ok(());
        };
        let bytes = self.store.read(&object.key, Some(range)).await?;
        let head: Vec<Bytes> = bytes.try_collect().await?;
        let declared = upload.declared.content_type.as_deref();
        match self.check_head(live, declared, &head.concat()).await {
            Err(EngineError::WrongType { .. }) => Err(EngineError::Failed {
                reason: FailureReason::ContentType,
            }),
            checked => checked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0";
    const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0";

    #[test]
    fn content_is_what_its_type_says_or_nothing_speaks_against_it() {
        for (declared, head) in [
            ("image/png", PNG),
            ("Image/PNG; x=y", PNG),
            ("image/jpg", JPEG),
            ("application/octet-stream", PNG),
            ("application/vnd.oasis.opendocument.text", ZIP),
            ("application/epub+zip", ZIP),
            ("text/plain", b"just text"),
            ("image/svg+xml", b"<?xml version=\"1.0\"?><svg/>"),
            ("application/x-own", b"\x01\x02\x03"),
            ("image/png", b""),
        ] {
            assert_eq!(contradiction(declared, head), None, "{declared}");
        }
        for (declared, head) in [
            ("image/png", JPEG),
            ("image/png", b"just text".as_slice()),
            ("text/plain", PNG),
            ("image/png", b"<html><script>"),
            ("text/plain", b"<!DOCTYPE HTML><html>"),
            ("video/mp4", ZIP),
            ("image/x-canon-cr2", PNG),
        ] {
            assert!(contradiction(declared, head).is_some(), "{declared}");
        }
        insta::assert_snapshot!(contradiction("image/png", JPEG).expect("another"), @"image/png was declared, and the content is image/jpeg");
    }

    #[tokio::test]
    async fn peeking_takes_nothing_from_a_body() {
        let frames: Vec<_> = (0..5_u8).map(|n| Ok(Bytes::from(vec![n; 300]))).collect();
        let body: Body = stream::iter(frames).boxed();
        let (head, body) = peek(body).await;
        assert_eq!(head, [[0; 300].as_slice(), &[1; 212]].concat());
        let all: Vec<Bytes> = body.try_collect().await.expect("whole");
        assert_eq!(
            all.concat(),
            (0..5_u8).flat_map(|n| [n; 300]).collect::<Vec<_>>()
        );
    }
}
