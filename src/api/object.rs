//! A finished object in JSON, as native and the IETF's protocol both answer with it.

use serde::Serialize;

use super::content::etag;
use crate::model::digest::Digests;
use crate::model::{Object, UploadId};

/// An object.
#[derive(Debug, Serialize)]
pub struct ObjectJson<'a> {
    key: &'a str,
    size: u64,
    content_type: Option<&'a str>,
    digest: &'a Digests,
    etag: String,
    url: String,
    verified: &'static str,
    store_checked: bool,
}

impl<'a> ObjectJson<'a> {
    /// An object whose content is found at `url`.
    #[must_use]
    pub fn new(object: &'a Object, url: String) -> Self {
        Self {
            key: object.key.as_str(),
            size: object.size.get(),
            content_type: object.content_type.as_deref(),
            digest: &object.digests,
            etag: etag(object),
            url,
            verified: object.verified.name(),
            store_checked: object.store_checked,
        }
    }
}

/// The answer to a completion.
#[derive(Debug, Serialize)]
pub struct CompletedJson<'a> {
    upload_id: String,
    object: ObjectJson<'a>,
    /// The object was there before: another upload had brought the same bytes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deduplicated: bool,
}

impl<'a> CompletedJson<'a> {
    /// An upload that is completed, and its object, whose content is found at `url`.
    #[must_use]
    pub fn new(id: UploadId, object: &'a Object, url: String) -> Self {
        Self {
            upload_id: id.to_string(),
            object: ObjectJson::new(object, url),
            deduplicated: object.first != id,
        }
    }
}
