//! Requests in the words of the three protocols, brought to the routes without a socket; and what a body does on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Collected};
use jumar::model::Handle;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::case::Api;
use crate::weather::Weather;

/// A request without its body.
pub(crate) struct Head {
    method: Method,
    path: String,
    fields: Vec<(&'static str, String)>,
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A chunk, as its client means it.
#[derive(Clone)]
pub(crate) struct Chunk {
    pub(crate) start: u64,
    pub(crate) bytes: Bytes,
    /// The digest that goes with it is this one's.
    pub(crate) digest_of: Option<Bytes>,
    /// The length of the whole, if it is told.
    pub(crate) length: Option<u64>,
    /// It ends the upload.
    pub(crate) last: bool,
}

impl Head {
    fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            fields: vec![("host", "model.example".to_owned())],
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "shorter where it is called")]
    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }

    fn with_some(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// To an upload.
    fn of(api: Api, method: Method, handle: &Handle, below: &str) -> Self {
        match api {
            Api::Native => Self::new(method, format!("/v1/uploads/{}{below}", handle.id))
                .with("upload-key", handle.key.reveal()),
            Api::Tus => Self::new(method, format!("/files/{}", handle.reveal()))
                .with("tus-resumable", "1.0.0"),
            Api::Ietf => Self::new(method, format!("/resumable/{}", handle.reveal())),
        }
    }

    pub(crate) fn status(api: Api, handle: &Handle) -> Self {
        let method = if api == Api::Native {
            Method::GET
        } else {
            Method::HEAD
        };
        Self::of(api, method, handle, "")
    }

    pub(crate) fn abort(api: Api, handle: &Handle) -> Self {
        Self::of(api, Method::DELETE, handle, "")
    }

    pub(crate) fn halt(handle: &Handle, length: Option<u64>) -> Self {
        let length = length.map_or("*".to_owned(), |length| length.to_string());
        Self::of(Api::Native, Method::PUT, handle, "/chunk")
            .with("content-range", format!("bytes */{length}"))
    }

    pub(crate) fn complete(handle: &Handle) -> Self {
        Self::of(Api::Native, Method::POST, handle, "/complete")
    }

    pub(crate) fn content(handle: &Handle) -> Self {
        Self::of(Api::Native, Method::GET, handle, "/content")
    }

    pub(crate) fn chunk(api: Api, handle: &Handle, chunk: &Chunk) -> Self {
        let Chunk {
            start,
            bytes,
            digest_of,
            length,
            last,
        } = chunk;
        let size = bytes.len() as u64;
        let digest = digest_of
            .as_ref()
            .map(|bytes| STANDARD.encode(Sha256::digest(bytes)));
        let content_digest = digest.as_ref().map(|digest| format!("sha-256=:{digest}:"));
        match api {
            Api::Native => {
                let of = length.map_or("*".to_owned(), |length| length.to_string());
                let range = format!("bytes {start}-{}/{of}", start + size - 1);
                Self::of(api, Method::PUT, handle, "/chunk")
                    .with("content-range", range)
                    .with("content-length", size)
                    .with_some("content-digest", content_digest)
            }
            Api::Tus => Self::of(api, Method::PATCH, handle, "")
                .with("content-type", "application/offset+octet-stream")
                .with("upload-offset", start)
                .with("content-length", size)
                .with_some("upload-length", *length)
                .with_some(
                    "upload-checksum",
                    digest.map(|digest| format!("sha256 {digest}")),
                ),
            Api::Ietf => Self::of(api, Method::PATCH, handle, "")
                .with("content-type", "application/partial-upload")
                .with("upload-offset", start)
                .with("upload-complete", if *last { "?1" } else { "?0" })
                .with("content-length", size)
                .with_some("upload-length", *length)
                .with_some("content-digest", content_digest),
        }
    }

    pub(crate) fn create_native(idempotency: &str) -> Self {
        Self::new(Method::POST, "/v1/uploads".to_owned())
            .with("content-type", "application/json")
            .with("idempotency-key", idempotency)
    }

    /// A creation that brings the first bytes along.
    pub(crate) fn create(
        api: Api,
        length: Option<u64>,
        sha256: Option<String>,
        first: u64,
        last: bool,
    ) -> Self {
        match api {
            Api::Native => unreachable!("its creations have JSON"),
            Api::Tus => {
                let head = Self::new(Method::POST, "/files".to_owned())
                    .with("tus-resumable", "1.0.0")
                    .with_some("upload-length", length)
                    .with_some("upload-defer-length", length.is_none().then_some(1));
                if first == 0 {
                    return head.with("content-length", 0);
                }
                head.with("content-type", "application/offset+octet-stream")
                    .with("content-length", first)
            }
            Api::Ietf => Self::new(Method::POST, "/resumable".to_owned())
                .with("upload-complete", if last { "?1" } else { "?0" })
                .with("content-length", first)
                .with_some("upload-length", length)
                .with_some(
                    "repr-digest",
                    sha256.map(|sha256| format!("sha-256=:{sha256}:")),
                ),
        }
    }

    /// Brings it to the routes, and waits for the whole answer.
    pub(crate) async fn send(self, router: &Router, body: Body) -> Answer {
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.fields {
            request = request.header(name, value);
        }
        let request = request.body(body).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map(Collected::to_bytes);
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.unwrap_or_default(),
        }
    }
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn offset(&self) -> Option<u64> {
        self.field("upload-offset")
            .and_then(|offset| offset.parse().ok())
    }

    pub(crate) fn says_complete(&self) -> bool {
        self.field("upload-complete") == Some("?1")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// In a few words.
    pub(crate) fn shown(&self) -> String {
        let json = self.json();
        let mut shown = self.status.to_string();
        for name in ["code", "state", "received", "missing"] {
            if !json[name].is_null() {
                shown = format!("{shown} {}", json[name]);
            }
        }
        if let Some(offset) = self.offset() {
            shown = format!("{shown} offset {offset}");
        }
        shown
    }
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    Whole,
    /// It breaks off after so many bytes.
    Cut(usize),
    /// Nothing comes any more after so many bytes.
    Stalls(usize),
}

/// Where the sender of a body has got to.
#[derive(Clone, Default)]
pub(crate) struct Sender {
    /// Its client is gone: the connection breaks.
    pub(crate) gone: CancellationToken,
    taken: Arc<AtomicUsize>,
}

impl Sender {
    /// How many bytes the server took from the connection.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// The body. `note` hears of each frame that the server takes, before it has it.
    pub(crate) fn body(
        &self,
        bytes: &Bytes,
        frame: usize,
        ends: Ends,
        weather: Weather,
        note: impl Fn(usize, usize) + Send + Sync + 'static,
    ) -> Body {
        let reach = match ends {
            Ends::Whole => bytes.len(),
            Ends::Cut(reach) | Ends::Stalls(reach) => reach.min(bytes.len()),
        };
        let way = Arc::new((self.clone(), bytes.slice(..reach), weather, note));
        let frames = stream::unfold(Some(0_usize), move |at| {
            let way = Arc::clone(&way);
            async move {
                let at = at?;
                let (sender, bytes, weather, note) = &*way;
                let end = (at + frame.max(1)).min(bytes.len());
                let pause = async {
                    weather.pause().await;
                    if at == end && matches!(ends, Ends::Stalls(_)) {
                        std::future::pending::<()>().await;
                    }
                };
                let broken = Some((Err("the connection broke".to_owned()), None));
                tokio::select! {
                    biased;
                    () = sender.gone.cancelled() => return broken,
                    () = pause => {}
                }
                if at == end {
                    return broken.filter(|_| matches!(ends, Ends::Cut(_)));
                }
                note(at, end);
                sender.taken.fetch_add(end - at, Ordering::SeqCst);
                Some((Ok::<Bytes, String>(bytes.slice(at..end)), Some(end)))
            }
        });
        Body::from_stream(frames)
    }
}
