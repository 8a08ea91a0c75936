//! HTTP/1.1 as far as attackers need it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Wire(TcpStream);

/// An answer, as text.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// The server closes the connection.
    pub(crate) closes: bool,
}

impl Answer {
    /// A member of the JSON in its body that is a text.
    pub(crate) fn text(&self, member: &str) -> Option<String> {
        let json: serde_json::Value = serde_json::from_str(&self.body).ok()?;
        Some(json.get(member)?.as_str()?.to_owned())
    }
}

impl Wire {
    pub(crate) async fn open(server: SocketAddr) -> Result<Self, String> {
        let opened = timeout(PATIENCE, TcpStream::connect(server)).await;
        let stream = opened
            .map_err(|_| "no connection in time".to_owned())?
            .map_err(|error| format!("no connection: {}", error.kind()))?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        Ok(Self(stream))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = timeout(PATIENCE, self.0.write_all(bytes)).await;
        sent.map_err(|_| "not sent in time".to_owned())?
            .map_err(|_| "cut while sending".to_owned())
    }

    /// The answer to what was sent.
    pub(crate) async fn answer(&mut self) -> Result<Answer, String> {
        timeout(PATIENCE, self.read())
            .await
            .map_err(|_| "no answer in time".to_owned())?
    }

    /// A request with its length, and its answer.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        fields: &str,
        body: &[u8],
    ) -> Result<Answer, String> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body].concat()).await?;
        self.answer().await
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn closed(&mut self) {
        let mut bytes = [0; 1024];
        while matches!(self.0.read(&mut bytes).await, Ok(1..)) {}
    }

    async fn read(&mut self) -> Result<Answer, String> {
        let cut = || "closed without an answer".to_owned();
        let mut read = Vec::new();
        let head = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let more = self.0.read_buf(&mut read).await;
            if more.map_err(|_| cut())? == 0 {
                return Err(cut());
            }
        };
        let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let length = field("content-length:").and_then(|length| length.parse().ok());
        let length: usize = length.unwrap_or(0);
        while read.len() < head + length {
            if self.0.read_buf(&mut read).await.map_err(|_| cut())? == 0 {
                return Err(cut());
            }
        }
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Ok(Answer {
            status: status.ok_or_else(|| "no status".to_owned())?,
            closes: field("connection:") == Some("close"),
            body: String::from_utf8_lossy(&read[head..]).into_owned(),
        })
    }
}
