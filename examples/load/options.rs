//! The command line.

use clap::{Parser, ValueEnum};

/// What to send, and how.
#[derive(Debug, Clone, Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[command(about = "Loads a jumar server, or another server of tus, on this machine")]
pub(crate) struct Options {
    /// The server; loopback only.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// How it is spoken to. tus takes its chunks in order, so it goes with neither --parallel nor --shuffle.
    #[arg(long, value_enum, default_value_t = Protocol::Native)]
    pub(crate) protocol: Protocol,
    /// The uploads are stretches of one file: at the end they are put together (tus).
    #[arg(long)]
    pub(crate) concat: bool,
    /// The protocol's base path, where it is not the default.
    #[arg(long)]
    pub(crate) base: Option<String>,
    /// How many uploads in all.
    #[arg(long, default_value_t = 1)]
    pub(crate) uploads: u64,
    /// The size of each, in bytes or with KiB, MiB, GiB.
    #[arg(long, default_value = "64MiB", value_parser = bytes)]
    pub(crate) size: u64,
    /// The size of a chunk; 0 sends the whole file in one request.
    #[arg(long, default_value = "0", value_parser = bytes)]
    pub(crate) chunk: u64,
    /// How many uploads at once.
    #[arg(long, default_value_t = 1)]
    pub(crate) concurrency: usize,
    /// How many chunks of one upload at once, each on a connection of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) parallel: usize,
    /// Send the chunks of an upload in random order.
    #[arg(long)]
    pub(crate) shuffle: bool,
    /// Put parts by URLs of the store, past the server (native). They are the store's parts, whatever --chunk says.
    #[arg(long)]
    pub(crate) direct: bool,
    /// With --direct: every so many-th part goes through the server all the same; 0: none.
    #[arg(long, default_value_t = 0)]
    pub(crate) proxied: u64,
    /// Bytes a second on each connection; 0 is as fast as it goes.
    #[arg(long, default_value = "0", value_parser = bytes)]
    pub(crate) rate: u64,
    /// The probability that a chunk's connection is cut at a random byte; it then goes on from the status.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) cut: f64,
    /// A cut connection is left open and silent, as when a network is lost, and the client comes back on another one.
    #[arg(long)]
    pub(crate) hang: bool,
    /// Declare the SHA-256 at creation, so that the server verifies it (native; costs CPU here, before the upload begins).
    #[arg(long)]
    pub(crate) declare: bool,
    /// Note the time and the server's CPU so many times, evenly over the chunks.
    #[arg(long, default_value_t = 0)]
    pub(crate) marks: u64,
    /// Compare the SHA-256 that the server answers with our own (costs CPU here).
    #[arg(long)]
    pub(crate) verify: bool,
    /// Leave the uploads open.
    #[arg(long)]
    pub(crate) no_complete: bool,
    /// Stop after so many seconds, whatever is left.
    #[arg(long, default_value_t = 600)]
    pub(crate) seconds: u64,
    /// The server's process, to report its CPU, memory and disk writes.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A protocol of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Sessions and Content-Range.
    Native,
    /// tus 1.0.0.
    Tus,
}

impl Options {
    /// The protocol's base path.
    pub(crate) fn base(&self) -> &str {
        let default = match self.protocol {
            Protocol::Native => "/v1/uploads",
            Protocol::Tus => "/files",
        };
        self.base.as_deref().unwrap_or(default)
    }

    /// How many chunks there are from mark to mark.
    pub(crate) fn mark_every(&self) -> Option<u64> {
        let chunks = match self.chunk {
            0 => 1,
            step => self.size.div_ceil(step),
        };
        (self.uploads * chunks)
            .checked_div(self.marks)
            .filter(|every| *every > 0)
    }

    /// What does not go together, if anything.
    pub(crate) fn conflict(&self) -> Option<&'static str> {
        let in_order = self.parallel <= 1 && !self.shuffle;
        match self.protocol {
            Protocol::Tus if !in_order => Some("tus goes with neither --parallel nor --shuffle"),
            Protocol::Tus if self.direct => Some("--direct goes with --protocol native"),
            Protocol::Tus if self.declare => Some("--declare goes with --protocol native"),
            _ if self.proxied > 0 && !self.direct => Some("--proxied goes with --direct"),
            Protocol::Native if self.concat => Some("--concat goes with --protocol tus"),
            _ => None,
        }
    }
}

/// Parses `25`, `25B`, `16KiB`, `8 MiB`, `2GiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let count: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` does not begin with a number"))?;
    let factor: u64 = match suffix.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("`{other}` is none of B, KiB, MiB, GiB")),
    };
    count
        .checked_mul(factor)
        .ok_or_else(|| format!("`{text}` is too much"))
}
