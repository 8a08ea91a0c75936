//! What a test says to the S3 server, and what it asks of it: faults, quirks, and a record of the calls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

/// An operation of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CopyObject,
    CreateMultipartUpload,
    DeleteObject,
    GetBucketCors,
    GetObject,
    HeadBucket,
    HeadObject,
    ListMultipartUploads,
    ListParts,
    PutBucketCors,
    PutObject,
    UploadPart,
    UploadPartCopy,
    Other,
}

impl Op {
    /// The operation that a request asks for.
    pub(crate) fn of(request: &http::request::Parts) -> Self {
        let query = request.uri.query().unwrap_or_default();
        let has = |name: &str| {
            query
                .split('&')
                .any(|pair| pair.split('=').next() == Some(name))
        };
        let path = request.uri.path().trim_matches('/');
        let copies = request.headers.contains_key("x-amz-copy-source");
        let on_bucket = !path.contains('/');
        match (request.method.as_str(), on_bucket) {
            ("PUT", false) if has("partNumber") && copies => Self::UploadPartCopy,
            ("PUT", false) if has("partNumber") => Self::UploadPart,
            ("PUT", false) if copies => Self::CopyObject,
            ("PUT", false) => Self::PutObject,
            ("POST", false) if has("uploads") => Self::CreateMultipartUpload,
            ("POST", false) if has("uploadId") => Self::CompleteMultipartUpload,
            ("DELETE", false) if has("uploadId") => Self::AbortMultipartUpload,
            ("DELETE", false) => Self::DeleteObject,
            ("GET", false) if has("uploadId") => Self::ListParts,
            ("GET", false) => Self::GetObject,
            ("GET", true) if has("uploads") => Self::ListMultipartUploads,
            ("GET", true) if has("cors") => Self::GetBucketCors,
            ("PUT", true) if has("cors") => Self::PutBucketCors,
            ("HEAD", true) => Self::HeadBucket,
            ("HEAD", false) => Self::HeadObject,
            _ => Self::Other,
        }
    }
}

/// One request that arrived, whether it was carried out or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) op: Op,
    pub(crate) key: String,
    pub(crate) part: Option<u32>,
    /// The body's size, as announced.
    pub(crate) size: u64,
    /// What its signature says of the body.
    pub(crate) signed_payload: Option<String>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error of S3, with this status and code; nothing is done.
    Status(u16, &'static str),
    /// The same, but the call was carried out.
    StatusAfter(u16, &'static str),
    /// An empty 200; nothing is done.
    Pretended,
    /// A 404 that is not of S3: no XML.
    Generic404,
    /// The connection is cut; nothing is done.
    ResetBefore,
    /// The call is carried out, then the connection is cut: the answer is lost.
    ResetAfter,
    /// Nothing happens until [`Control::release`]; then the call is carried out.
    Hang,
    /// The call is carried out, and its answer held back until [`Control::release`].
    HangAfter,
    /// The call is carried out later.
    Slow(Duration),
    /// Nothing is said until [`Control::release`]; then the call is carried out, also if its client has gone by then.
    Silence,
    /// The call is carried out, and its answer comes byte by byte, until [`Control::release`].
    Drip,
    /// The answer has other tags than what is stored.
    WrongEtag,
    /// The answer lists nothing.
    StaleList,
}

/// Which calls a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Every one.
    Always,
    /// So many from now on.
    Next(u32),
    /// Only this one from now on, counted from 1.
    Nth(u32),
}

/// What the store is not able to do, for stores that are not AWS.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Quirks {
    /// Checksum headers are taken and never looked at, `Content-MD5` too.
    pub(crate) ignores_checksums: bool,
    /// The modern checksum headers are refused with 501.
    pub(crate) refuses_checksums: bool,
    /// All parts but the last have to be of one size.
    pub(crate) equal_parts: bool,
    /// Listings of multipart uploads and parts are empty: they lag behind.
    pub(crate) stale_lists: bool,
    /// A part without the checksum that its upload was begun with is refused, also where AWS would compute it.
    pub(crate) wants_checksums: bool,
    /// `If-None-Match` is never looked at.
    pub(crate) ignores_conditions: bool,
    /// A page of a listing has no more than this.
    pub(crate) page: Option<usize>,
}

#[derive(Debug)]
struct Rule {
    op: Option<Op>,
    when: When,
    fault: Fault,
    seen: u32,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    rules: Vec<Rule>,
    away: bool,
    quirks: Quirks,
}

/// The handle on one server. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    state: Arc<Mutex<State>>,
    released: Arc<watch::Sender<u64>>,
}

impl Control {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            released: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Lets calls of `op` (`None`: of any) fail. Rules are tried in the order in which they were made.
    pub(crate) fn fail(&self, op: impl Into<Option<Op>>, when: When, fault: Fault) {
        self.state.lock().unwrap().rules.push(Rule {
            op: op.into(),
            when,
            fault,
            seen: 0,
        });
    }

    /// Takes all faults back, and lets go what hangs.
    pub(crate) fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.rules.clear();
        state.away = false;
        drop(state);
        self.release();
    }

    /// Lets go what hangs now: every such call that was recorded.
    pub(crate) fn release(&self) {
        self.released.send_modify(|times| *times += 1);
    }

    /// While away, every connection is cut.
    pub(crate) fn set_away(&self, away: bool) {
        self.state.lock().unwrap().away = away;
    }

    pub(crate) fn set_quirks(&self, quirks: Quirks) {
        self.state.lock().unwrap().quirks = quirks;
    }

    pub(crate) fn quirks(&self) -> Quirks {
        self.state.lock().unwrap().quirks.clone()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(crate) fn count(&self, op: Op) -> usize {
        let state = self.state.lock().unwrap();
        state.calls.iter().filter(|call| call.op == op).count()
    }

    pub(crate) fn forget_calls(&self) {
        self.state.lock().unwrap().calls.clear();
    }

    /// Records a call and says what befalls it.
    pub(crate) fn arrived(&self, call: Call) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let op = call.op;
        state.calls.push(call);
        if state.away {
            return Some(Fault::ResetBefore);
        }
        let mut struck = None;
        for rule in &mut state.rules {
            if struck.is_some() || rule.op.is_some_and(|of| of != op) {
                continue;
            }
            rule.seen += 1;
            let strikes = match rule.when {
                When::Always => true,
                When::Next(count) => rule.seen <= count,
                When::Nth(nth) => rule.seen == nth,
            };
            if strikes {
                struck = Some(rule.fault.clone());
            }
        }
        struck
    }

    /// What a call that hangs waits for. To be taken before the call is recorded, so that a test that saw the call can
    /// release it.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.released.subscribe()
    }
}
