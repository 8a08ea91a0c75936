//! From outcomes of the engine to answers. Pure. Companion's own names, which the plugin reads.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::Settings;
use crate::api::audit::Touched;
use crate::api::object::ObjectJson;
use crate::engine::{FoundPart, SignedRequest};
use crate::model::{Handle, Object, PartNumber};

/// What a form's object is called where its file has no name: the plugin wants one that is not empty.
const NAMELESS: &str = "file";

#[derive(Serialize)]
struct FormJson<'a> {
    method: &'static str,
    url: String,
    fields: FieldsJson<'a>,
}

#[derive(Serialize)]
struct FieldsJson<'a> {
    /// The plugin tells the page of it. The form's taker passes it over.
    key: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    filename: &'a str,
}

#[derive(Serialize)]
struct CreatedJson {
    key: String,
    #[serde(rename = "uploadId")]
    upload_id: String,
}

#[derive(Serialize)]
struct SignedJson<'a> {
    method: &'static str,
    url: &'a str,
    /// In seconds, from now.
    expires: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct BatchJson<'a> {
    #[serde(rename = "presignedUrls")]
    presigned_urls: BTreeMap<u32, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PartJson<'a> {
    part_number: u32,
    size: u64,
    #[serde(rename = "ETag")]
    etag: &'a str,
}

#[derive(Serialize)]
struct CompletedJson<'a> {
    location: String,
    key: String,
    upload_id: String,
    object: ObjectJson<'a>,
    /// The object was there before: another upload had brought the same bytes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deduplicated: bool,
}

#[derive(Serialize)]
struct AbortedJson {}

/// Where a file is sent in a form.
pub(super) fn form(filename: &str, origin: &str, settings: &Settings) -> Response {
    let name = filename.trim();
    json(&FormJson {
        method: "POST",
        url: format!("{origin}{}", settings.objects),
        fields: FieldsJson {
            key: if name.is_empty() { NAMELESS } else { name },
            filename,
        },
    })
}

/// A new upload.
pub(super) fn created(handle: &Handle) -> Response {
    let mut response = json(&CreatedJson {
        key: handle.id.to_string(),
        upload_id: handle.reveal(),
    });
    response.extensions_mut().insert(Touched(handle.id));
    response
}

/// A request that puts a part.
pub(super) fn signed(request: &SignedRequest, ttl: Duration) -> Response {
    let headers = request.headers.iter();
    json(&SignedJson {
        method: request.method,
        url: &request.url,
        expires: ttl.as_secs(),
        headers: headers
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect(),
    })
}

/// Requests that put parts.
pub(super) fn signed_batch(signed: &[(PartNumber, SignedRequest)]) -> Response {
    let urls = signed
        .iter()
        .map(|(number, request)| (number.0, request.url.as_str()));
    json(&BatchJson {
        presigned_urls: urls.collect(),
    })
}

/// The parts that are there.
pub(super) fn parts(parts: &[FoundPart]) -> Response {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| PartJson {
            part_number: part.number.0,
            size: part.size.get(),
            etag: &part.etag,
        })
        .collect();
    json(&parts)
}

/// A completed upload, and where its content is read.
pub(super) fn completed(
    handle: &Handle,
    object: &Object,
    origin: &str,
    link: String,
    settings: &Settings,
) -> Response {
    let (base, secret) = (&settings.base, handle.reveal());
    let location = format!("{origin}{base}/multipart/{secret}/content");
    let id = handle.id.to_string();
    json(&CompletedJson {
        key: id.clone(),
        upload_id: id,
        object: ObjectJson::new(object, link),
        location,
        deduplicated: object.first != handle.id,
    })
}

/// It is aborted.
pub(super) fn aborted() -> Response {
    json(&AbortedJson {})
}

fn json(body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).expect("maps with text as keys serialise");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::model::digest::Digests;
    use crate::model::upload::Verified;
    use crate::model::{Digest, DigestAlgorithm, Length, StoreKey, Timestamp, UploadId};

    async fn shown(response: Response) -> String {
        let (head, body) = response.into_parts();
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers["cache-control"], "no-store");
        assert_eq!(head.headers["content-type"], "application/json");
        let body = body.collect().await.expect("in memory").to_bytes();
        String::from_utf8_lossy(&body).into_owned()
    }

    fn settings() -> Settings {
        Settings {
            base: "/s3".to_owned(),
            objects: "/v1/objects".to_owned(),
            public_url: String::new(),
            json_timeout: Duration::from_secs(1),
            url_ttl: Duration::from_hours(1),
        }
    }

    fn handle() -> Handle {
        // Sixteen bytes of 7, then the key's of 0.
        "BwcHBwcHBwcHBwcHBwcHBwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
            .parse()
            .expect("a handle")
    }

    fn request() -> SignedRequest {
        SignedRequest {
            method: "PUT",
            url: "https://s3.example/b/k?partNumber=2&X-Amz-Signature=0".to_owned(),
            headers: Vec::new(),
            expires_at: Timestamp(0),
        }
    }

    #[tokio::test]
    async fn forms_go_to_this_server() {
        let origin = "https://up.example";
        let named = form("a b.txt", origin, &settings());
        insta::assert_snapshot!(shown(named).await, @r#"{"method":"POST","url":"https://up.example/v1/objects","fields":{"key":"a b.txt","filename":"a b.txt"}}"#);
        let nameless = form("", origin, &settings());
        insta::assert_snapshot!(shown(nameless).await, @r#"{"method":"POST","url":"https://up.example/v1/objects","fields":{"key":"file"}}"#);
    }

    #[tokio::test]
    async fn answers_have_the_names_that_the_plugin_reads() {
        insta::assert_snapshot!(shown(created(&handle())).await, @r#"{"key":"07070707-0707-0707-0707-070707070707","uploadId":"BwcHBwcHBwcHBwcHBwcHBwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#);
        let ttl = Duration::from_mins(5);
        insta::assert_snapshot!(shown(signed(&request(), ttl)).await, @r#"{"method":"PUT","url":"https://s3.example/b/k?partNumber=2&X-Amz-Signature=0","expires":300}"#);
        let mut with_header = request();
        with_header.headers = vec![("x-one".to_owned(), "1".to_owned())];
        insta::assert_snapshot!(shown(signed(&with_header, ttl)).await, @r#"{"method":"PUT","url":"https://s3.example/b/k?partNumber=2&X-Amz-Signature=0","expires":300,"headers":{"x-one":"1"}}"#);
        let batch = [(PartNumber(2), request()), (PartNumber(10), request())];
        insta::assert_snapshot!(shown(signed_batch(&batch)).await, @r#"{"presignedUrls":{"2":"https://s3.example/b/k?partNumber=2&X-Amz-Signature=0","10":"https://s3.example/b/k?partNumber=2&X-Amz-Signature=0"}}"#);
        let there = FoundPart {
            number: PartNumber(3),
            size: Length(5),
            etag: "abc".to_owned(),
        };
        insta::assert_snapshot!(shown(parts(&[there])).await, @r#"[{"PartNumber":3,"Size":5,"ETag":"abc"}]"#);
        insta::assert_snapshot!(shown(aborted()).await, @"{}");
    }

    #[tokio::test]
    async fn a_completed_upload_says_where_its_content_is() {
        let digest = Digest::from_hex(DigestAlgorithm::Sha256, &"00".repeat(32)).expect("hex");
        let object = Object {
            key: StoreKey::staged(UploadId::from_bytes([7; 16])),
            first: UploadId::from_bytes([8; 16]),
            space: crate::model::SpaceName::default(),
            shared: true,
            size: Length(5),
            content_type: None,
            digests: Digests::from_iter([digest]),
            etag: "of the store".to_owned(),
            verified: Verified::Readback,
            store_checked: true,
        };
        let answer = completed(
            &handle(),
            &object,
            "http://h",
            "http://h/a/signed/link".to_owned(),
            &settings(),
        );
        insta::assert_snapshot!(shown(answer).await, @r#"{"location":"http://h/s3/multipart/BwcHBwcHBwcHBwcHBwcHBwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/content","key":"07070707-0707-0707-0707-070707070707","upload_id":"07070707-0707-0707-0707-070707070707","object":{"key":"staging/07070707-0707-0707-0707-070707070707","size":5,"content_type":null,"digest":{"sha-256":"0000000000000000000000000000000000000000000000000000000000000000"},"etag":"0000000000000000000000000000000000000000000000000000000000000000","url":"http://h/a/signed/link","verified":"readback","store_checked":true},"deduplicated":true}"#);
    }
}
