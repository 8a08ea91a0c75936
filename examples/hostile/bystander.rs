//! A well-behaved client beside the attack: it uploads small files, one after the other, each on a connection of its own.

use std::fmt;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::wire::Wire;

static FILE: [u8; 64 * 1024] = [42; 64 * 1024];
/// Between two uploads.
const PAUSE: Duration = Duration::from_millis(20);

/// How long its uploads took.
#[derive(Debug, Default)]
pub(crate) struct Waited {
    took: Vec<Duration>,
    failed: Vec<String>,
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut took = self.took.clone();
        took.sort();
        let at = |percent: usize| {
            let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
            took.get(index).map_or(0.0, Duration::as_secs_f64) * 1000.0
        };
        write!(
            f,
            "{} uploads of 64 KiB, p50 {:.1} ms, p99 {:.1} ms, {} failed",
            took.len(),
            at(50),
            at(99),
            self.failed.len()
        )?;
        match self.failed.first() {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}

/// It uploads on a thread of its own, so that it waits for the server alone.
pub(crate) struct Bystander {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<std::io::Result<Waited>>,
}

impl Bystander {
    pub(crate) fn begin(server: SocketAddr) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(watch(server, stopped)))
        });
        Self { stop, thread }
    }

    /// What it has seen. An upload that is under way does not count.
    pub(crate) fn end(self) -> Result<Waited, String> {
        drop(self.stop);
        match self.thread.join() {
            Ok(waited) => waited.map_err(|error| error.to_string()),
            Err(_) => Err("the bystander panicked".into()),
        }
    }
}

async fn watch(server: SocketAddr, mut stopped: oneshot::Receiver<()>) -> Waited {
    let mut waited = Waited::default();
    loop {
        let begun = Instant::now();
        let uploaded = tokio::select! {
            uploaded = upload(server) => uploaded,
            _ = &mut stopped => break,
        };
        match uploaded {
            Ok(()) => waited.took.push(begun.elapsed()),
            Err(error) => waited.failed.push(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
    waited
}

async fn upload(server: SocketAddr) -> Result<(), String> {
    let mut wire = Wire::open(server).await?;
    let (id, key) = crate::attack::create(&mut wire, FILE.len()).await?;
    let last = FILE.len() - 1;
    let size = FILE.len();
    let fields = format!("Upload-Key: {key}\r\nContent-Range: bytes 0-{last}/{size}\r\n");
    let path = format!("/v1/uploads/{id}/chunk");
    let put = wire.call("PUT", &path, &fields, &FILE).await?;
    if put.status != 204 {
        return Err(format!("the chunk was answered by {}", put.status));
    }
    let fields = format!("Upload-Key: {key}\r\n");
    let path = format!("/v1/uploads/{id}/complete");
    match wire.call("POST", &path, &fields, b"").await?.status {
        201 => Ok(()),
        status => Err(format!("the completion was answered by {status}")),
    }
}
