//! HTTP/1.1 by hand, so that a test decides which byte is the last one to be sent.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long anything may take before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// An answer of the server.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?} of {self:?}", self.text()))
    }

    /// The word of a problem.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// `Upload-Offset`.
    pub(crate) fn offset(&self) -> u64 {
        self.header("Upload-Offset")
            .and_then(|offset| offset.parse().ok())
            .unwrap_or_else(|| panic!("no Upload-Offset in {self:?}"))
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    host: String,
    read: Vec<u8>,
    bodyless: bool,
}

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(server)).await??;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            host: server.to_string(),
            read: Vec::new(),
            bodyless: false,
        })
    }

    /// Sends a head that announces `length` bytes of body.
    pub(crate) async fn head(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        length: u64,
    ) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let length = length.to_string();
        head.extend(["Content-Length: ", &length, "\r\n\r\n"]);
        self.bodyless = method == "HEAD";
        self.send(head.as_bytes()).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await?
    }

    /// Reads an answer.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        timeout(PATIENCE, self.read_answer()).await?
    }

    /// A whole request and its answer.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        self.head(method, path, headers, body.len() as u64).await?;
        self.send(body).await?;
        self.answer().await
    }

    async fn read_answer(&mut self) -> io::Result<Answer> {
        loop {
            let end = loop {
                if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break at + 4;
                }
                self.fill().await?;
            };
            let head: Vec<u8> = self.read.drain(..end).collect();
            let mut answer = parse(&head)?;
            if (100..200).contains(&answer.status) {
                continue;
            }
            let length = match answer.header("Content-Length") {
                _ if self.bodyless => 0,
                Some(length) => length.parse().map_err(io::Error::other)?,
                None if answer.header("Transfer-Encoding").is_some() => {
                    return Err(io::Error::other("an answer without Content-Length"));
                }
                None => 0,
            };
            while self.read.len() < length {
                self.fill().await?;
            }
            answer.body = self.read.drain(..length).collect();
            return Ok(answer);
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// One request on a connection of its own.
pub(crate) async fn call(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    Connection::open(server)
        .await?
        .call(method, path, headers, body)
        .await
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
    })
}

#[test]
fn a_head_is_read() {
    let answer = parse(b"HTTP/1.1 204 No Content\r\nupload-offset: 7\r\n\r\n").expect("a head");
    assert_eq!((answer.status, answer.offset()), (204, 7));
}
