//! The bodies of requests.
//!
//! Owns what happens to a body that nobody reads to its end, tells a body that ended from one that broke off cleanly
//! (HTTP/2 can), and turns bodies into what the engine takes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, BodyStream, LengthLimitError, Limited};

use super::error::{Code, Problem};
use crate::engine::{Body, BodyError};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How much of a body that nobody wants is read and thrown away.
#[derive(Debug, Clone, Copy)]
pub struct DrainLimits {
    /// At most so many bytes …
    pub bytes: u64,
    /// … for at most so long.
    pub time: Duration,
}

/// How many bytes of a request's body have arrived. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Arrived(Arc<AtomicU64>);

impl Arrived {
    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The peer ended the body properly, but before it had sent what it announced.
#[derive(Debug, thiserror::Error)]
#[error("the body ended after {seen} of {announced} bytes")]
struct Short {
    seen: u64,
    announced: u64,
}

/// A request's body as it comes from the connection.
///
/// Dropped before its end, it is read on for a bounded time and size, so that an answer that was given early is not lost
/// when the connection is closed over unread bytes. A client that waits for `100 Continue` is left waiting: reading would
/// invite the very bytes that were refused.
pub struct Received<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    inner: Option<B>,
    announced: Option<u64>,
    seen: u64,
    arrived: Arrived,
    awaits_continue: bool,
    ended: bool,
    limits: DrainLimits,
}

impl<B> Received<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    /// The body of a request with these header fields.
    pub fn new(inner: B, headers: &HeaderMap, limits: DrainLimits) -> Self {
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok())
            .and_then(|length| length.parse().ok());
        Self {
            ended: inner.is_end_stream(),
            inner: Some(inner),
            announced,
            seen: 0,
            arrived: Arrived::default(),
            awaits_continue: awaits_continue(headers),
            limits,
        }
    }

    /// Counts what arrives.
    #[must_use]
    pub fn arrived(&self) -> Arrived {
        self.arrived.clone()
    }
}

impl<B> HttpBody for Received<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(inner) = this.inner.as_mut().filter(|_| !this.ended) else {
            return Poll::Ready(None);
        };
        this.awaits_continue = false;
        match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.seen += data.len() as u64;
                    this.arrived
                        .0
                        .fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.ended = true;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.ended = true;
                let seen = this.seen;
                let short = this.announced.filter(|announced| seen < *announced);
                Poll::Ready(short.map(|announced| Err(Short { seen, announced }.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let short = self
            .announced
            .is_some_and(|announced| self.seen < announced);
        self.ended || (!short && self.inner.as_ref().is_none_or(HttpBody::is_end_stream))
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl<B> Drop for Received<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        if self.ended || self.awaits_continue || inner.is_end_stream() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(drain(inner, self.limits));
        }
    }
}

async fn drain<B>(mut body: B, limits: DrainLimits)
where
    B: HttpBody<Data = Bytes> + Send + Unpin,
{
    let reading = async {
        let mut left = limits.bytes;
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(size) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Whether it ended or the limit was reached, there is nothing more to do for it.
    let _ = tokio::time::timeout(limits.time, reading).await;
}

/// Whether the client sends the body only when it is asked to.
#[must_use]
pub fn awaits_continue(headers: &HeaderMap) -> bool {
    headers
        .get(EXPECT)
        .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// A body as the engine takes it.
#[must_use]
pub fn for_engine(body: axum::body::Body) -> Body {
    Box::pin(
        body.into_data_stream()
            .map(|item| item.map_err(|error| BodyError::Cut(error.into_inner()))),
    )
}

/// The same, for a body whose trailers matter: they are told when they come, before the body yields its end.
#[must_use]
pub fn with_trailers(
    body: axum::body::Body,
    mut tell: impl FnMut(&HeaderMap) + Send + 'static,
) -> Body {
    let frames = BodyStream::new(body).filter_map(move |frame| {
        let data = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => Some(Ok(data)),
            Ok(Err(other)) => {
                if let Some(trailers) = other.trailers_ref() {
                    tell(trailers);
                }
                None
            }
            Err(error) => Some(Err(BodyError::Cut(error.into_inner()))),
        };
        std::future::ready(data)
    });
    Box::pin(frames)
}

/// Reads a small body whole. One that is announced to be larger is not touched.
pub async fn read_small(
    body: axum::body::Body,
    limit: usize,
    within: Duration,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the JSON body may have at most {limit} bytes");
        Err(Problem::new(Code::UploadLimit, detail))
    };
    if body.size_hint().lower() > limit as u64 {
        return too_large();
    }
    let reading = Limited::new(body, limit).collect();
    match tokio::time::timeout(within, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => too_large(),
        Ok(Err(_)) => Err(Problem::bad_request("the body ended early")),
        Err(_) => Err(Problem::bad_request("the body did not arrive in time")),
    }
}

/// Refuses a body that has anything in it; its length need not have been announced.
pub async fn expect_none(body: axum::body::Body, within: Duration) -> Result<(), Problem> {
    read_small(body, 0, within)
        .await
        .map(|_| ())
        .map_err(|problem| {
            if problem.code == Code::UploadLimit {
                Problem::new(
                    Code::RangeMismatch,
                    "Content-Range names no bytes, but there is a body",
                )
            } else {
                problem
            }
        })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    /// A body of four frames of 10 bytes that counts how many were taken.
    fn body(
        headers: &HeaderMap,
        limit: u64,
    ) -> (
        Received<impl HttpBody<Data = Bytes, Error = BoxError> + Send + Unpin + use<>>,
        Arc<AtomicUsize>,
    ) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let frames = stream::iter(0..4).map(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"0123456789")))
        });
        let limits = DrainLimits {
            bytes: limit,
            time: Duration::from_secs(1),
        };
        (
            Received::new(StreamBody::new(frames), headers, limits),
            taken,
        )
    }

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    async fn settle() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    #[tokio::test]
    async fn a_dropped_body_is_read_on_within_its_limits() {
        let (dropped, taken) = body(&HeaderMap::new(), 1000);
        drop(dropped);
        settle().await;
        assert_eq!(taken.load(Ordering::SeqCst), 4);
        let (dropped, taken) = body(&HeaderMap::new(), 15);
        drop(dropped);
        settle().await;
        assert_eq!(taken.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_client_that_awaits_continue_is_not_invited_by_a_refusal() {
        let headers = fields(&[("expect", "100-Continue")]);
        let (dropped, taken) = body(&headers, 1000);
        drop(dropped);
        settle().await;
        assert_eq!(taken.load(Ordering::SeqCst), 0);
        let (mut begun, taken) = body(&headers, 1000);
        begun.frame().await.expect("a frame").expect("whole");
        drop(begun);
        settle().await;
        assert_eq!(
            taken.load(Ordering::SeqCst),
            4,
            "begun, so the rest is on its way"
        );
    }

    #[tokio::test]
    async fn a_clean_end_before_the_announced_length_is_an_error() {
        let (whole, _) = body(&fields(&[("content-length", "40")]), 0);
        let arrived = whole.arrived();
        assert_eq!(whole.collect().await.expect("whole").to_bytes().len(), 40);
        assert_eq!(arrived.get(), 40);
        let (short, _) = body(&fields(&[("content-length", "41")]), 0);
        let error = short.collect().await.expect_err("short");
        assert_eq!(error.to_string(), "the body ended after 40 of 41 bytes");
    }

    #[tokio::test]
    async fn trailers_are_told_before_the_end() {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let data = Frame::data(Bytes::from_static(b"1"));
        let trailers = Frame::trailers(fields(&[("one", "1"), ("two", "2")]));
        let frames = stream::iter([data, trailers]).map(Ok::<_, BoxError>);
        let body = axum::body::Body::new(StreamBody::new(frames));
        let mut body = with_trailers(body, move |trailers| {
            count.fetch_add(trailers.len(), Ordering::SeqCst);
        });
        assert_eq!(body.next().await.expect("data").expect("whole"), "1");
        assert_eq!(told.load(Ordering::SeqCst), 0);
        assert!(body.next().await.is_none());
        assert_eq!(told.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_small_body_is_read_up_to_its_limit() {
        let within = Duration::from_secs(1);
        let read = |size: usize| read_small(axum::body::Body::from(vec![b' '; size]), 64, within);
        assert_eq!(read(64).await.expect("fits").len(), 64);
        assert_eq!(
            read(65).await.expect_err("too large").code,
            Code::UploadLimit
        );
    }
}
