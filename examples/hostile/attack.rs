//! The attacks. Each attacker goes on until it is stopped, on a new connection when its own was closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Subcommand;

use crate::Counts;
use crate::wire::Wire;

const GIB: u64 = 1 << 30;
/// How many uploads [`Attack::Creations`] makes.
const CREATIONS: u64 = 100_000;

/// What the attackers do.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Attack {
    /// Bodies of which a byte comes each second.
    Trickle,
    /// Bodies at 16 KiB a second, as from bad networks.
    Slow,
    /// Heads that never end, a byte each second.
    Heads,
    /// Bodies that never end, as fast as they go.
    Bodies,
    /// Requests that some see as one and others as two.
    Smuggle,
    /// 100,000 uploads that nobody goes on with.
    Creations,
    /// Writers that all want the same bytes of one upload.
    Writers,
    /// Chunks of one byte.
    Bytes,
    /// Paths that should lead elsewhere.
    Paths,
}

/// What the attackers of one attack share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    upload: Option<(String, String)>,
    begun: AtomicU64,
}

const SMUGGLED: [&str; 6] = [
    "Content-Length: 4\r\nContent-Length: 40\r\n\r\nabcd",
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n",
    "X-Folded: a\r\n Content-Length: 4\r\n\r\nabcd",
    "Content-Length : 4\r\n\r\nabcd",
];

const PATHS: [&str; 7] = [
    "/v1/uploads/%2e%2e/%2e%2e/etc/passwd",
    "/v1/uploads/..%2f..%2fetc%2fpasswd/content",
    "//etc/passwd",
    "/files/%00",
    "/v1/objects/sha256/..%2f..%2fpasswd",
    "http://evil.example/etc/passwd",
    "/v1/uploads/%",
];

/// A new upload's id and key.
pub(crate) async fn create(wire: &mut Wire, length: usize) -> Result<(String, String), String> {
    let json = format!("{{\"length\":{length}}}");
    let fields = "Content-Type: application/json\r\n";
    let created = wire.call("POST", "/v1/uploads", fields, json.as_bytes());
    let created = created.await?;
    let texts = created.text("upload_id").zip(created.text("upload_key"));
    texts.ok_or_else(|| format!("the creation was answered by {}", created.status))
}

impl Attack {
    /// How many attackers it is meant for.
    pub(crate) fn connections(self) -> usize {
        match self {
            Self::Trickle | Self::Slow | Self::Heads => 5_000,
            Self::Writers => 100,
            Self::Bodies | Self::Smuggle | Self::Creations | Self::Bytes | Self::Paths => 32,
        }
    }

    pub(crate) async fn prepare(self, server: SocketAddr) -> Result<Arc<Shared>, String> {
        let mut shared = Shared::default();
        if matches!(self, Self::Writers | Self::Bytes) {
            let mut wire = Wire::open(server).await?;
            shared.upload = Some(create(&mut wire, 64 << 20).await?);
        }
        Ok(Arc::new(shared))
    }

    /// One attacker, for ever, or until there is nothing left to do.
    pub(crate) async fn go_on(
        self,
        server: SocketAddr,
        number: usize,
        shared: &Shared,
        counts: &Counts,
    ) {
        loop {
            match self.attack(server, number, shared, counts).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    counts.add(error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// On one connection; `false` if all is done.
    async fn attack(
        self,
        server: SocketAddr,
        number: usize,
        shared: &Shared,
        counts: &Counts,
    ) -> Result<bool, String> {
        let mut wire = Wire::open(server).await?;
        match self {
            Self::Trickle => trickle(&mut wire, 1, counts).await?,
            Self::Slow => trickle(&mut wire, 16 << 10, counts).await?,
            Self::Heads => {
                wire.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Endless: ")
                    .await?;
                loop {
                    wire.send(b"a").await?;
                    let pause = Duration::from_secs(1);
                    if tokio::time::timeout(pause, wire.closed()).await.is_ok() {
                        counts.add("closed in the head");
                        break;
                    }
                }
            }
            Self::Bodies => {
                wire.send(
                    b"POST /v1/objects HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                )
                .await?;
                let mut chunk = b"10000\r\n".to_vec();
                chunk.resize(chunk.len() + 0x10000, 7);
                chunk.extend_from_slice(b"\r\n");
                // Until it is refused.
                while wire.send(&chunk).await.is_ok() {}
                counts.add(wire.answer().await?.status.to_string());
            }
            Self::Smuggle => {
                let shape = SMUGGLED[number % SMUGGLED.len()];
                let request = format!(
                    "POST /v1/uploads HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{shape}GET /healthz HTTP/1.1\r\nHost: hidden\r\n\r\n"
                );
                wire.send(request.as_bytes()).await?;
                counts.add(wire.answer().await?.status.to_string());
                if wire.answer().await.is_ok() {
                    counts.add("answered twice");
                }
            }
            Self::Creations => {
                while shared.begun.fetch_add(1, Ordering::Relaxed) < CREATIONS {
                    create(&mut wire, 1 << 20).await?;
                    counts.add("201");
                }
                return Ok(false);
            }
            Self::Writers | Self::Bytes => write(self, &mut wire, number, shared, counts).await?,
            Self::Paths => {
                for path in PATHS {
                    let answer = wire.call("GET", path, "", b"").await?;
                    counts.add(answer.status.to_string());
                    if answer.closes {
                        break;
                    }
                }
            }
        }
        Ok(true)
    }
}

/// A body of so many bytes each second.
async fn trickle(wire: &mut Wire, rate: usize, counts: &Counts) -> Result<(), String> {
    let length = usize::try_from(GIB).unwrap_or(usize::MAX);
    let (id, key) = create(wire, length).await?;
    let last = length - 1;
    let head = format!(
        "PUT /v1/uploads/{id}/chunk HTTP/1.1\r\nHost: a\r\nUpload-Key: {key}\r\nContent-Range: bytes 0-{last}/{length}\r\nContent-Length: {length}\r\n\r\n"
    );
    wire.send(head.as_bytes()).await?;
    counts.add("began a body");
    // As a network would bring it: a packet at a time.
    let pieces = rate.div_ceil(1_400);
    let piece = vec![7; rate / pieces];
    loop {
        wire.send(&piece).await?;
        tokio::time::sleep(Duration::from_secs(1) / u32::try_from(pieces).unwrap_or(1)).await;
    }
}

/// Chunks of one upload, on one connection while it stays open.
async fn write(
    attack: Attack,
    wire: &mut Wire,
    number: usize,
    shared: &Shared,
    counts: &Counts,
) -> Result<(), String> {
    let (id, key) = shared.upload.as_ref().ok_or("there is no upload")?;
    let path = format!("/v1/uploads/{id}/chunk");
    let length = 64 << 20;
    let bytes = vec![7; 4 << 20];
    loop {
        let (start, len) = match attack {
            Attack::Bytes => (shared.begun.fetch_add(2, Ordering::Relaxed), 1),
            _ => ((number as u64 % 4) << 20, 4 << 20),
        };
        let last = start + len - 1;
        let fields =
            format!("Upload-Key: {key}\r\nContent-Range: bytes {start}-{last}/{length}\r\n");
        let bytes = &bytes[..usize::try_from(len).unwrap_or(0)];
        let answer = wire.call("PUT", &path, &fields, bytes).await?;
        counts.add(answer.status.to_string());
        if answer.closes {
            return Ok(());
        }
    }
}
