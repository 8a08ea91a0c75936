//! From requests to commands of the engine. Pure.

use std::collections::BTreeMap;

use axum::extract::Query;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Request, Uri};
use serde::Deserialize;
use serde_json::Value;

use crate::api::error::Problem;
use crate::api::fields::{checked_filename, is_media_type};
use crate::api::forwarded::Client;
use crate::api::json::json;
use crate::engine::{Create, NewRole, ToldPart};
use crate::model::digest::Digests;
use crate::model::upload::{Declared, Protocol};
use crate::model::{Handle, PartNumber};

const MAX_METADATA_BYTES: usize = 4096;

/// What the plugin says of a file. It may come to say more, so what is not known here is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CreateJson {
    filename: Option<String>,
    #[serde(rename = "type")]
    content_type: Option<String>,
    metadata: Option<BTreeMap<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompleteJson {
    parts: Vec<PartJson>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PartJson {
    part_number: u32,
    #[serde(rename = "ETag")]
    etag: String,
}

/// The upload that a segment of a path names. The query says its id once more, as its key; another's is a wrong one.
pub(super) fn handle(segment: &str, uri: &Uri) -> Result<Handle, Problem> {
    let handle: Handle = segment.parse().map_err(|_| Problem::no_such_upload())?;
    let id = handle.id.to_string();
    let told = pairs(uri)?;
    if told.iter().any(|(name, key)| name == "key" && *key != id) {
        return Err(Problem::no_such_upload());
    }
    Ok(handle)
}

/// A creation.
pub(super) fn create(headers: &HeaderMap, body: &[u8]) -> Result<Create, Problem> {
    let json: CreateJson = json(headers, body)?;
    let filename = json.filename.filter(|name| !name.is_empty());
    let content_type = json.content_type.filter(|name| !name.is_empty());
    if content_type.as_deref().is_some_and(|it| !is_media_type(it)) {
        return Err(Problem::bad_request(
            "type has to be a media type, as in image/jpeg",
        ));
    }
    Ok(Create {
        protocol: Protocol::S3,
        declared: Declared {
            filename: filename.map(checked_filename).transpose()?,
            content_type,
            metadata: metadata(json.metadata.unwrap_or_default())?,
            metadata_field: None,
            digests: Digests::default(),
            sequential: false,
        },
        length: None,
        idempotency: None,
        role: NewRole::Whole,
        seal: None,
    })
}

/// Pages put anything there. Texts stay what they are, and what says nothing is left out.
fn metadata(told: BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, Problem> {
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    let metadata: BTreeMap<_, _> = told
        .into_iter()
        .filter_map(|(name, value)| Some((name, text(value)?)))
        .collect();
    let bytes: usize = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > MAX_METADATA_BYTES {
        return Err(Problem::bad_request(format!(
            "metadata may have at most {MAX_METADATA_BYTES} bytes in all; allowedMetaFields of the plugin says which of it is sent"
        )));
    }
    Ok(metadata)
}

/// The name of a file that is to be sent in a form.
pub(super) fn form(uri: &Uri) -> Result<String, Problem> {
    let mut pairs = pairs(uri)?.into_iter();
    let filename = pairs.find_map(|(name, value)| (name == "filename").then_some(value));
    checked_filename(filename.unwrap_or_default())
}

/// The part that a path names.
pub(super) fn number(text: &str) -> Result<PartNumber, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number
        .map(PartNumber)
        .ok_or_else(|| Problem::bad_request("a part is named by its number, from 1 to 10000"))
}

/// The parts that a query names: `partNumbers=1,2`.
pub(super) fn numbers(uri: &Uri) -> Result<Vec<PartNumber>, Problem> {
    let mut pairs = pairs(uri)?.into_iter();
    let told = pairs.find_map(|(name, value)| (name == "partNumbers").then_some(value));
    let told =
        told.ok_or_else(|| Problem::bad_request("partNumbers is missing, as in partNumbers=1,2"))?;
    let mut numbers: Vec<_> = told.split(',').map(number).collect::<Result<_, _>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// The parts that a completion names.
pub(super) fn parts(headers: &HeaderMap, body: &[u8]) -> Result<Vec<ToldPart>, Problem> {
    let json: CompleteJson = json(headers, body)?;
    let parts = json.parts.into_iter().map(|part| ToldPart {
        number: PartNumber(part.part_number),
        etag: part.etag,
    });
    Ok(parts.collect())
}

/// What the server is reached under: as it is configured, else what the client asked for, which trusted proxies may tell.
pub(super) fn origin<B>(request: &Request<B>, public_url: &str) -> Result<String, Problem> {
    if !public_url.is_empty() {
        return Ok(public_url.to_owned());
    }
    let client = request.extensions().get::<Client>();
    let scheme = client.map_or("http", |client| client.scheme.as_str());
    let told = client.and_then(|client| client.host.as_ref());
    let named = told.or(request.uri().authority()).map(Authority::as_str);
    let field = request.headers().get(HOST);
    let host = named.or_else(|| field.and_then(|host| host.to_str().ok()));
    let host = host.filter(|host| !host.is_empty());
    host.map(|host| format!("{scheme}://{host}"))
        .ok_or_else(|| Problem::bad_request("a request has to have one Host"))
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let Query(pairs) = Query::try_from_uri(uri)
        .map_err(|_| Problem::bad_request("the query cannot be read: it has to be UTF-8"))?;
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use http::header::CONTENT_TYPE;
    use http::uri::Scheme;

    use super::*;
    use crate::api::error::Code;
    use crate::model::{UploadId, UploadKey};

    fn at(query: &str) -> Uri {
        format!("/s3/params?{query}").parse().expect("a URL")
    }

    fn created(body: &str) -> Result<Create, Problem> {
        create(&HeaderMap::new(), body.as_bytes())
    }

    fn refused<T: std::fmt::Debug>(asked: Result<T, Problem>) -> String {
        asked.expect_err("refused").detail
    }

    #[test]
    fn a_creation_is_what_the_plugin_sends() {
        let body = r#"{"filename":"é.bin","type":"image/jpeg","metadata":{"name":"é.bin","relativePath":null,"width":3,"tags":["a"],"mine":true},"size":7}"#;
        let create = created(body).expect("sound");
        assert_eq!(create.protocol, Protocol::S3);
        assert_eq!(create.length, None);
        let declared = create.declared;
        assert_eq!(declared.filename.as_deref(), Some("é.bin"));
        assert_eq!(declared.content_type.as_deref(), Some("image/jpeg"));
        insta::assert_debug_snapshot!(declared.metadata, @r#"
        {
            "mine": "true",
            "name": "é.bin",
            "tags": "[\"a\"]",
            "width": "3",
        }
        "#);
        for nothing in ["", "{}", r#"{"filename":"","type":"","metadata":null}"#] {
            let declared = created(nothing).expect("sound").declared;
            assert_eq!(declared, Declared::default(), "{nothing}");
        }
    }

    #[test]
    fn what_is_no_creation_says_why() {
        let large = format!(r#"{{"metadata":{{"a":"{}"}}}}"#, "x".repeat(4096));
        insta::assert_snapshot!(refused(created(&large)), @"metadata may have at most 4096 bytes in all; allowedMetaFields of the plugin says which of it is sent");
        insta::assert_snapshot!(refused(created("[]")), @"the JSON has to be an object");
        insta::assert_snapshot!(refused(created(r#"{"type":"jpeg"}"#)), @"type has to be a media type, as in image/jpeg");
        insta::assert_snapshot!(refused(created(r#"{"filename":"a\nb"}"#)), @"filename may have no control characters");
        insta::assert_snapshot!(refused(created(r#"{"filename":1}"#)), @"the JSON cannot be taken: invalid type: integer `1`, expected a string at line 1 column 13");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "text/plain".parse().expect("a value"));
        let problem = create(&headers, b"{}").expect_err("refused");
        assert_eq!(problem.code, Code::UnsupportedMediaType);
    }

    #[test]
    fn sealed_another_key_beside_a_handle_is_a_wrong_one() {
        let handle_of = |handle: &Handle, key: &str| {
            let uri = format!("/s3/multipart/x?key={key}").parse().expect("a URL");
            handle_at(&handle.reveal(), &uri)
        };
        let one = Handle {
            id: UploadId::from_bytes([7; 16]),
            key: UploadKey::generate(),
        };
        let own = handle_of(&one, &one.id.to_string()).expect("its own");
        assert_eq!(own.reveal(), one.reveal());
        for wrong in ["", "x", &UploadId::from_bytes([8; 16]).to_string()] {
            assert_eq!(
                handle_of(&one, wrong).expect_err("refused").code,
                Code::NotFound
            );
        }
        let plain = "/s3/multipart/x".parse().expect("a URL");
        assert!(handle_at(&one.reveal(), &plain).is_ok());
        assert_eq!(
            handle_at("nonsense", &plain).expect_err("refused").code,
            Code::NotFound
        );
    }

    fn handle_at(segment: &str, uri: &Uri) -> Result<Handle, Problem> {
        handle(segment, uri)
    }

    #[test]
    fn parts_are_named_by_number() {
        assert_eq!(number("7").expect("a number"), PartNumber(7));
        for text in ["", "x", "+1", "-1", " 1", "4294967296"] {
            assert!(number(text).is_err(), "{text:?}");
        }
        let several = numbers(&at("partNumbers=3%2C1,3&key=x")).expect("numbers");
        assert_eq!(several, [PartNumber(1), PartNumber(3)]);
        insta::assert_snapshot!(refused(numbers(&at("key=x"))), @"partNumbers is missing, as in partNumbers=1,2");
        insta::assert_snapshot!(refused(numbers(&at("partNumbers=1,,2"))), @"a part is named by its number, from 1 to 10000");
    }

    #[test]
    fn a_completion_names_parts_and_etags() {
        let told = |body: &str| parts(&HeaderMap::new(), body.as_bytes());
        let body =
            r#"{"parts":[{"PartNumber":2,"ETag":"\"b\"","Size":1},{"PartNumber":1,"ETag":"a"}]}"#;
        let etags: Vec<_> = told(body)
            .expect("sound")
            .into_iter()
            .map(|part| (part.number.0, part.etag))
            .collect();
        assert_eq!(etags, [(2, "\"b\"".to_owned()), (1, "a".to_owned())]);
        assert!(told("").expect("sound").is_empty());
        insta::assert_snapshot!(refused(told(r#"{"parts":[{"PartNumber":1}]}"#)), @"the JSON cannot be taken: missing field `ETag` at line 1 column 26");
    }

    #[test]
    fn a_form_has_a_name_and_a_server() {
        let name = form(&at("filename=a+b%26c.txt&type=x&metadata%5Bname%5D=y")).expect("sound");
        assert_eq!(name, "a b&c.txt");
        assert_eq!(form(&at("type=x")).expect("sound"), "");
        insta::assert_snapshot!(refused(form(&at("filename=a%00"))), @"filename may have no control characters");
        let asked = |uri: &str, host: Option<&str>| {
            let mut request = Request::new(());
            *request.uri_mut() = uri.parse().expect("a URL");
            if let Some(host) = host {
                request
                    .headers_mut()
                    .insert(HOST, host.parse().expect("a value"));
            }
            request
        };
        let plain = asked("/s3/params", Some("up.example:8080"));
        assert_eq!(origin(&plain, "").expect("named"), "http://up.example:8080");
        assert_eq!(
            origin(&plain, "https://up.example").expect("configured"),
            "https://up.example"
        );
        let h2 = asked("http://up.example/s3/params", None);
        assert_eq!(origin(&h2, "").expect("named"), "http://up.example");
        assert!(origin(&asked("/s3/params", None), "").is_err());
        let mut proxied = plain;
        proxied.extensions_mut().insert(Client {
            address: [192, 0, 2, 1].into(),
            scheme: Scheme::HTTPS,
            host: Some("public.example".parse().expect("a host")),
        });
        assert_eq!(
            origin(&proxied, "").expect("told"),
            "https://public.example"
        );
    }

    proptest! {
        #[test]
        fn the_parsers_never_panic(text in "[ -~]{0,80}") {
            let _ = created(&text);
            let _ = parts(&HeaderMap::new(), text.as_bytes());
            let _ = number(&text);
            if let Ok(uri) = format!("/s3?{text}").parse::<Uri>() {
                let _ = form(&uri);
                let _ = numbers(&uri);
                let _ = handle(&text, &uri);
            }
        }
    }
}
