//! The audit log: one event of the target `audit` for each request that may change something, also for one that is refused or cut.
//!
//! Says who asked, from where, for what and how it went. Of the secrets that a request has (keys, handles, tokens, signed URLs)
//! nothing is written: the path is told by its route, and of a handle the upload's id alone. Whatever a client has chosen stands in
//! fields of its own, so that it cannot pass for another line.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::RequestExt as _;
use axum::extract::{MatchedPath, RawPathParams, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::header::USER_AGENT;
use http::{HeaderMap, Method};

use super::body::Arrived;
use super::error::Code;
use super::forwarded::Client;
use super::gate::Asker;
use super::method::{changes_something, overridden};
use crate::model::{Caller, Handle, UploadId};

/// How much of a user agent is written.
const USER_AGENT_BYTES: usize = 200;

/// The upload that a request has made. In the extensions of its answer.
#[derive(Debug, Clone, Copy)]
pub struct Touched(pub UploadId);

/// Where a layer further in tells who asked.
#[derive(Clone, Default)]
struct Seen(Arc<OnceLock<Asker>>);

/// Around everything: writes down what changes something.
pub async fn audit(mut request: Request, next: Next) -> Response {
    if !changes_something(request.method(), request.headers()) {
        return next.run(request).await;
    }
    let mut entry = Entry::of(&mut request).await;
    let response = next.run(request).await;
    entry.answered(&response);
    response
}

/// Inside of what finds out who asks: tells the entry.
pub async fn note_asker(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    if let (Some(seen), Some(asker)) = (extensions.get::<Seen>(), extensions.get::<Asker>()) {
        let _first = seen.0.set(asker.clone());
    }
    next.run(request).await
}

/// An entry of the log. It is written when it is dropped, so that a request that is cut has one, too.
struct Entry {
    method: Method,
    overridden: Option<Method>,
    route: Option<MatchedPath>,
    address: Option<IpAddr>,
    user_agent: Option<String>,
    seen: Seen,
    upload: Option<UploadId>,
    arrived: Arrived,
    status: Option<u16>,
    code: Option<Code>,
}

impl Entry {
    async fn of(request: &mut Request) -> Self {
        let seen = Seen::default();
        request.extensions_mut().insert(seen.clone());
        let upload = upload_of(request).await;
        let extensions = request.extensions();
        Self {
            method: request.method().clone(),
            overridden: overridden(request.headers()),
            route: extensions.get().cloned(),
            address: extensions.get().map(|client: &Client| client.address),
            user_agent: user_agent(request.headers()),
            seen,
            upload,
            arrived: extensions.get().cloned().unwrap_or_default(),
            status: None,
            code: None,
        }
    }

    fn answered(&mut self, response: &Response) {
        let made: Option<&Touched> = response.extensions().get();
        self.upload = made.map(|made| made.0).or(self.upload);
        self.status = Some(response.status().as_u16());
        self.code = response.extensions().get().copied();
    }

    fn caller(&self) -> Option<&Caller> {
        self.seen.0.get()?.0.as_ref().as_ref().ok()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let caller = self.caller();
        tracing::info!(
            target: "audit",
            subject = caller.and_then(|caller| caller.subject.as_ref()).map(display),
            token = caller.and_then(|caller| caller.token.as_ref()).map(display),
            device = caller.and_then(|caller| caller.device.as_ref()).map(display),
            space = caller.map(|caller| display(&caller.space)),
            address = self.address.map(display),
            user_agent = self.user_agent,
            method = %self.method,
            overridden = self.overridden.as_ref().map(display),
            route = self.route.as_ref().map(MatchedPath::as_str),
            upload = self.upload.map(display),
            status = self.status,
            code = self.code.map(Code::word),
            received = self.arrived.get(),
            "{}",
            if self.status.is_some() { "answered" } else { "cut" }
        );
    }
}

/// The upload that a path names, by its id or by its handle.
async fn upload_of(request: &mut Request) -> Option<UploadId> {
    let params: RawPathParams = request.extract_parts().await.ok()?;
    params.iter().find_map(|(name, value)| match name {
        "id" => value.parse().ok(),
        "handle" => value.parse().ok().map(|handle: Handle| handle.id),
        _ => None,
    })
}

/// What a client says it is, without what could move a terminal's cursor, and not too much of it.
fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = String::from_utf8_lossy(headers.get(USER_AGENT)?.as_bytes());
    let mut plain: String = text.chars().filter(|c| !c.is_control()).collect();
    plain.truncate(plain.floor_char_boundary(USER_AGENT_BYTES));
    Some(plain)
}

#[cfg(test)]
mod tests;
