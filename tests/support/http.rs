//! HTTP/1.1 by hand, so that a test decides which byte is sent when, and sees which came back.
//!
//! What is called `try_…` gives its error to a test whose server may be gone; its namesake panics.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long anything may take before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Header fields that differ from time to time, or that every answer has and one test looks at.
const NOT_SHOWN: [&str; 5] = [
    "date",
    "x-request-id",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "vary",
];

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The `1xx` that came before it.
    pub(crate) informational: Vec<u16>,
}

impl Answer {
    /// A field's value; a test that asks for one that came twice is wrong.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} came twice");
        value
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?} of {self:?}", self.text()))
    }

    /// The word of a problem, which is one in every respect.
    pub(crate) fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let json = self.json();
        assert_eq!(json["status"], self.status, "{json}");
        let code = json["code"].as_str().expect("a word").to_owned();
        assert_eq!(json["type"], format!("urn:jumar:problem:{code}"));
        for member in ["title", "detail"] {
            let text = json[member].as_str().expect("a text");
            assert!(!text.is_empty(), "{json}");
        }
        code
    }

    /// The status and the word of a problem.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{self:?}"
        );
        self
    }

    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}: {}", self.text());
        self
    }

    /// `Upload-Offset`.
    #[track_caller]
    pub(crate) fn offset(&self) -> u64 {
        self.header("Upload-Offset")
            .and_then(|offset| offset.parse().ok())
            .unwrap_or_else(|| panic!("no Upload-Offset in {self:?}: {}", self.text()))
    }

    /// Status, header fields in order of their names, and the body, with what is random replaced.
    pub(crate) fn shown(&self) -> String {
        let mut headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .filter(|(name, _)| !NOT_SHOWN.contains(&name.as_str()))
            .collect();
        headers.sort();
        let mut text = format!("{}\n", self.status);
        for (name, value) in headers {
            let _ = writeln!(text, "{name}: {value}");
        }
        let _ = write!(text, "\n{}", self.text());
        redacted(&text)
    }
}

/// Ids, keys, incidents and what signs a link are replaced.
fn redacted(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(at) = text.find("?expires=") {
        let to = at + text[at..].find('"').expect("the end of the link");
        text.replace_range(at..to, "?<signed>");
    }
    for member in ["upload_key", "incident"] {
        let before = format!("\"{member}\":\"");
        if let Some(at) = text.find(&before) {
            let from = at + before.len();
            let to = from + text[from..].find('"').expect("the end of the text");
            text.replace_range(from..to, "…");
        }
    }
    let is_id = |bytes: &[u8]| {
        bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    while let Some(at) = text.as_bytes().windows(36).position(is_id) {
        text.replace_range(at..at + 36, "<id>");
    }
    text
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection<S = TcpStream> {
    stream: S,
    host: String,
    read: Vec<u8>,
    bodyless: bool,
}

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> Self {
        Self::try_open(server).await.expect("a connection")
    }

    pub(crate) async fn try_open(server: SocketAddr) -> io::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(server)).await??;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream, &server.to_string()))
    }

    /// Whether the server says nothing for so long, not even that it closes the connection.
    pub(crate) async fn is_open_for(&mut self, time: Duration) -> bool {
        let mut byte = [0];
        timeout(time, self.stream.peek(&mut byte)).await.is_err()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over whatever is connected to the server that this host names.
    pub(crate) fn over(stream: S, host: &str) -> Self {
        Self {
            stream,
            host: host.to_owned(),
            read: Vec::new(),
            bodyless: false,
        }
    }

    /// Sends a head as it is given, but for the host and the end.
    pub(crate) async fn head(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) {
        self.try_head(method, path, fields).await.expect("sent");
    }

    pub(crate) async fn try_head(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in fields {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        self.bodyless = method == "HEAD";
        self.send(head.as_bytes()).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await?
    }

    /// Sends a chunk of the chunked transfer coding; an empty one ends the body.
    pub(crate) async fn send_coded(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut coded = format!("{:x}\r\n", bytes.len()).into_bytes();
        coded.extend_from_slice(bytes);
        coded.extend_from_slice(b"\r\n");
        self.send(&coded).await
    }

    /// Says that nothing more will be sent, and goes on listening.
    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("still open");
    }

    /// Waits to be invited to send the body.
    pub(crate) async fn expect_continue(&mut self) {
        const INVITATION: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        while self.read.len() < INVITATION.len() {
            let filled = timeout(PATIENCE, self.fill()).await;
            filled.expect("in time").expect("still open");
        }
        let said: Vec<u8> = self.read.drain(..INVITATION.len()).collect();
        assert_eq!(said, INVITATION, "{}", String::from_utf8_lossy(&said));
    }

    /// Reads an interim answer, and nothing beyond it.
    pub(crate) async fn interim(&mut self) -> Answer {
        let head = timeout(PATIENCE, self.read_head()).await;
        let head = head.expect("in time").expect("still open");
        let interim = parse(&head).expect("a head");
        assert!((100..200).contains(&interim.status), "{interim:?}");
        interim
    }

    /// Reads an answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer")
    }

    pub(crate) async fn try_answer(&mut self) -> io::Result<Answer> {
        timeout(PATIENCE, self.read_answer()).await?
    }

    /// A whole request and its answer.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let answer = self.try_call(method, path, fields, body).await;
        answer.expect("an answer")
    }

    async fn try_call(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let length = body.len().to_string();
        let mut fields = fields.to_vec();
        if !body.is_empty() || !matches!(method, "GET" | "HEAD") {
            fields.push(("Content-Length", &length));
        }
        self.try_head(method, path, &fields).await?;
        self.send(body).await?;
        self.try_answer().await
    }

    /// Waits for the server to close the connection, and whether it did so with nothing more to say.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let rest = timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await;
        rest.expect("in time").is_ok() && self.read.is_empty()
    }

    async fn read_answer(&mut self) -> io::Result<Answer> {
        let mut informational = Vec::new();
        loop {
            let head = self.read_head().await?;
            let mut answer = parse(&head)?;
            if (100..200).contains(&answer.status) {
                informational.push(answer.status);
                continue;
            }
            let length = match answer.header("Content-Length") {
                _ if self.bodyless || matches!(answer.status, 204 | 304) => 0,
                Some(length) => length.parse().map_err(io::Error::other)?,
                None => return Err(io::Error::other("an answer without Content-Length")),
            };
            while self.read.len() < length {
                self.fill().await?;
            }
            answer.body = self.read.drain(..length).collect();
            answer.informational = informational;
            return Ok(answer);
        }
    }

    async fn read_head(&mut self) -> io::Result<Vec<u8>> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        Ok(self.read.drain(..end).collect())
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// One request on a connection of its own.
pub(crate) async fn try_call(
    server: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut connection = Connection::try_open(server).await?;
    connection.try_call(method, path, fields, body).await
}

fn parse(head: &[u8]) -> io::Result<Answer> {
    let text = std::str::from_utf8(head).map_err(io::Error::other)?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::other("no status line"))?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Ok(Answer {
        status,
        headers,
        body: Vec::new(),
        informational: Vec::new(),
    })
}
