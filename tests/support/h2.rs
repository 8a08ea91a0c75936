//! HTTP/2 with prior knowledge.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::http::{Answer, PATIENCE};

type AnyBody = BoxBody<Bytes, std::io::Error>;

/// One connection; its requests run beside each other.
pub(crate) struct H2 {
    sender: SendRequest<AnyBody>,
    authority: String,
    connection: JoinHandle<()>,
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A request's body as a test feeds it; dropping the feeder ends it.
pub(crate) type Feed = mpsc::UnboundedSender<Bytes>;

impl H2 {
    pub(crate) async fn open(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.expect("taken");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        Self {
            sender,
            authority: server.to_string(),
            // How it ends is seen by its requests.
            connection: tokio::spawn(async move { drop(connection.await) }),
        }
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let body = Full::new(Bytes::copy_from_slice(body));
        let body = body.map_err(|never| match never {}).boxed();
        self.send(method, path, fields, body)
            .await
            .expect("an answer")
    }

    /// Begins a request whose body is fed.
    pub(crate) fn begin(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> (Feed, JoinHandle<hyper::Result<Answer>>) {
        let (feed, frames) = mpsc::unbounded_channel();
        let frames = futures_util::stream::unfold(
            frames,
            |mut frames: mpsc::UnboundedReceiver<Bytes>| async move {
                frames.recv().await.map(|bytes| (bytes, frames))
            },
        );
        let body = BodyExt::boxed(StreamBody::new(frames.map(|bytes| Ok(Frame::data(bytes)))));
        let request = self.request(method, path, fields, body);
        let mut sender = self.sender.clone();
        let answer = tokio::spawn(async move { answer(&mut sender, request).await });
        (feed, answer)
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: AnyBody,
    ) -> hyper::Result<Answer> {
        let request = self.request(method, path, fields, body);
        answer(&mut self.sender.clone(), request).await
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: AnyBody,
    ) -> Request<AnyBody> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.authority));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(body).expect("a request")
    }
}

async fn answer(
    sender: &mut SendRequest<AnyBody>,
    request: Request<AnyBody>,
) -> hyper::Result<Answer> {
    let response = timeout(PATIENCE, sender.send_request(request))
        .await
        .expect("in time")?;
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("in time")?;
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| {
            let value = value.to_str().expect("ASCII").to_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    Ok(Answer {
        status: head.status.as_u16(),
        headers,
        body: body.to_bytes().to_vec(),
        informational: Vec::new(),
    })
}
