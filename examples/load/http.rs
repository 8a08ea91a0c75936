//! Just enough HTTP/1.1: heads as strings, bodies as slices, answers with a Content-Length or in chunks.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer that takes longer is given up.
const PATIENCE: Duration = Duration::from_mins(2);
/// An answer that is larger is no answer of this API.
const LARGEST_ANSWER: usize = 4 << 20;

/// Where the server is.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    host: String,
}

impl Target {
    /// Takes `http://HOST:PORT` if it is this machine.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let host = url
            .strip_prefix("http://")
            .ok_or("the URL has to begin with http://")?
            .trim_end_matches('/');
        let with_port = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let addresses: Vec<SocketAddr> = with_port
            .to_socket_addrs()
            .map_err(|error| format!("{host}: {error}"))?
            .collect();
        if !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(format!("{host} is not this machine: loopback only"));
        }
        let address = *addresses.first().ok_or("the URL names no address")?;
        Ok(Self {
            address,
            host: host.to_owned(),
        })
    }
}

/// An answer, as far as it matters here.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Seconds of `Retry-After`.
    pub(crate) retry_after: Option<u64>,
    pub(crate) location: Option<String>,
    /// `Upload-Offset`
    pub(crate) offset: Option<u64>,
    /// `ETag`, without its quotes.
    pub(crate) etag: Option<String>,
    pub(crate) body: Vec<u8>,
    close: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> io::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).map_err(io::Error::other)
    }
}

/// One connection, opened when it is needed.
pub(crate) struct Connection {
    target: Target,
    stream: Option<TcpStream>,
    read: Vec<u8>,
    /// Whether the answer that is awaited has no body, whatever its head says.
    bodiless: bool,
}

impl Connection {
    pub(crate) fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            stream: None,
            read: Vec::new(),
            bodiless: false,
        }
    }

    /// Forgets the connection: the next request opens another.
    pub(crate) fn cut(&mut self) {
        self.stream = None;
        self.read.clear();
    }

    /// Leaves the connection open and unused, as a network does that is lost without a word: the next request opens another.
    /// What is returned keeps it open.
    pub(crate) fn leave(&mut self) -> Option<TcpStream> {
        self.read.clear();
        self.stream.take()
    }

    /// Sends a head with `length` bytes of body announced. `headers` are whole lines, each with its line end.
    pub(crate) async fn head(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        length: u64,
    ) -> io::Result<()> {
        self.bodiless = method == "HEAD";
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {length}\r\n\r\n",
            self.target.host
        );
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.target.address).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        self.body(head.as_bytes()).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        timeout(PATIENCE, stream.write_all(bytes)).await?
    }

    /// Reads the answer.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        let answer = timeout(PATIENCE, self.read_answer()).await?;
        match &answer {
            Ok(answer) if !answer.close => {}
            _ => self.cut(),
        }
        answer
    }

    /// A request with a small body, and its answer.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        self.head(method, path, headers, body.len() as u64).await?;
        if !body.is_empty() {
            self.body(body).await?;
        }
        self.answer().await
    }

    async fn read_answer(&mut self) -> io::Result<Answer> {
        loop {
            let end = self.fill_until(b"\r\n\r\n").await?;
            let (mut answer, body) = parse(&self.read[..end])?;
            self.read.drain(..end);
            if (100..200).contains(&answer.status) {
                continue;
            }
            answer.body = match body {
                _ if self.bodiless || matches!(answer.status, 204 | 304) => Vec::new(),
                Body::Bytes(length) => self.take(length).await?,
                Body::Chunks => self.chunks().await?,
            };
            return Ok(answer);
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > LARGEST_ANSWER {
            return Err(io::Error::other("an answer of more than 4 MiB"));
        }
        while self.read.len() < length {
            self.fill().await?;
        }
        Ok(self.read.drain(..length).collect())
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = self.fill_until(b"\r\n").await?;
            let line: Vec<u8> = self.read.drain(..end).collect();
            let line = std::str::from_utf8(&line).map_err(io::Error::other)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
            body.extend(self.take(length).await?);
            if body.len() > LARGEST_ANSWER {
                return Err(io::Error::other("an answer of more than 4 MiB"));
            }
            // The end of the chunk; after the last one, the end of the trailers, of which these servers have none.
            self.take(2).await?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads until the buffer holds `end`; returns the length with it.
    async fn fill_until(&mut self, end: &[u8]) -> io::Result<usize> {
        loop {
            let at = self.read.windows(end.len()).position(|bytes| bytes == end);
            if let Some(at) = at {
                return Ok(at + end.len());
            }
            if self.read.len() > LARGEST_ANSWER {
                return Err(io::Error::other("a head without end"));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        if stream.read_buf(&mut self.read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// How an answer's body comes.
enum Body {
    Bytes(usize),
    Chunks,
}

/// The head's answer, and how its body comes.
fn parse(head: &[u8]) -> io::Result<(Answer, Body)> {
    let text = std::str::from_utf8(head).map_err(io::Error::other)?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::other("no status line"))?;
    let mut answer = Answer {
        status,
        ..Answer::default()
    };
    let mut body = Body::Bytes(0);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            body = Body::Bytes(value.parse().map_err(io::Error::other)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            body = Body::Chunks;
        } else if name.eq_ignore_ascii_case("connection") {
            answer.close = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("retry-after") {
            answer.retry_after = value.parse().ok();
        } else if name.eq_ignore_ascii_case("location") {
            answer.location = Some(path(value).to_owned());
        } else if name.eq_ignore_ascii_case("upload-offset") {
            answer.offset = value.parse().ok();
        } else if name.eq_ignore_ascii_case("etag") {
            answer.etag = Some(value.trim_matches('"').to_owned());
        }
    }
    Ok((answer, body))
}

/// The path of a URL that may be one already.
fn path(url: &str) -> &str {
    let Some((_, rest)) = url.split_once("://") else {
        return url;
    };
    rest.find('/').map_or("/", |at| &rest[at..])
}
