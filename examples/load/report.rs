//! What was measured, and how it is told.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Load;
use crate::process::Usage;

/// Latencies kept of each kind; later ones are not looked at.
const SAMPLES: usize = 1_000_000;
/// Errors that are shown.
const SHOWN: u64 = 5;

/// A kind of request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A whole upload, from its creation to its end.
    Upload,
    Create,
    Chunk,
    /// From a chunk's last byte to its answer.
    Answer,
    Status,
    /// From a cut to the answer that says where to go on, refusals and waiting included.
    Resume,
    Complete,
    /// Asking for URLs.
    Urls,
    /// Putting a part by one.
    Part,
    /// Telling that it is there.
    Told,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Upload,
        Self::Create,
        Self::Chunk,
        Self::Answer,
        Self::Status,
        Self::Resume,
        Self::Complete,
        Self::Urls,
        Self::Part,
        Self::Told,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Create => "create",
            Self::Chunk => "chunk",
            Self::Answer => "answer",
            Self::Status => "status",
            Self::Resume => "resume",
            Self::Complete => "complete",
            Self::Urls => "urls",
            Self::Part => "part",
            Self::Told => "told",
        }
    }
}

/// What is counted while it runs.
#[derive(Default)]
pub(crate) struct Stats {
    finished: AtomicU64,
    failed: AtomicU64,
    verified: AtomicU64,
    wrong: AtomicU64,
    out_of_time: AtomicU64,
    sent: AtomicU64,
    sent_directly: AtomicU64,
    sent_twice: AtomicU64,
    repeated: AtomicU64,
    cuts: AtomicU64,
    latencies: [Mutex<Vec<Duration>>; 10],
    chunks: AtomicU64,
    marks: Mutex<Vec<Mark>>,
}

/// How far it got, on the way.
struct Mark {
    chunks: u64,
    seconds: f64,
    server: Usage,
}

impl Stats {
    pub(crate) fn finished(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, number: u64, error: &std::io::Error) {
        if self.failed.fetch_add(1, Ordering::Relaxed) < SHOWN {
            eprintln!("load: upload {number}: {error}");
        }
    }

    pub(crate) fn verified(&self) {
        self.verified.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn wrong(&self) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn out_of_time(&self) {
        self.out_of_time.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent_directly(&self, bytes: u64) {
        self.sent_directly.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sent_twice(&self, bytes: u64) {
        self.sent_twice.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// A chunk was taken. Every so many, what the server has used is noted.
    pub(crate) fn chunk_taken(&self, load: &Load) {
        let chunks = self.chunks.fetch_add(1, Ordering::Relaxed) + 1;
        let (Some(every), Some(pid)) = (load.mark_every, load.options.pid) else {
            return;
        };
        if chunks.is_multiple_of(every)
            && let Ok(server) = Usage::of(pid)
        {
            let seconds = load.started.elapsed().as_secs_f64();
            let mut marks = self.marks.lock().expect("nobody panics with it");
            marks.push(Mark {
                chunks,
                seconds,
                server,
            });
        }
    }

    pub(crate) fn took(&self, kind: Kind, duration: Duration) {
        let mut samples = self.latencies[kind as usize]
            .lock()
            .expect("nobody panics with it");
        if samples.len() < SAMPLES {
            samples.push(duration);
        }
    }
}

impl Mark {
    fn json(&self) -> Value {
        json!({
            "chunks": self.chunks,
            "seconds": self.seconds,
            "cpu_seconds": self.server.cpu_seconds,
            "rss_kib": self.server.rss_kib,
        })
    }
}

/// The latencies of one kind, in milliseconds.
struct Latency {
    kind: &'static str,
    count: usize,
    p50: f64,
    p99: f64,
    most: f64,
}

/// Everything that is told at the end.
pub(crate) struct Report {
    seconds: f64,
    uploads: u64,
    failed: u64,
    verified: u64,
    wrong: u64,
    out_of_time: u64,
    bytes: u64,
    sent_directly: u64,
    sent_twice: u64,
    repeated: u64,
    cuts: u64,
    latencies: Vec<Latency>,
    marks: Vec<Mark>,
    own: Usage,
    server: Option<Usage>,
}

impl Report {
    pub(crate) fn new(stats: &Stats, elapsed: Duration, own: Usage, server: Option<Usage>) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let latencies = Kind::ALL
            .into_iter()
            .filter_map(|kind| {
                let mut samples = std::mem::take(&mut *stats.latencies[kind as usize].lock().ok()?);
                samples.sort_unstable();
                Some(Latency {
                    kind: kind.name(),
                    count: samples.len(),
                    p50: millis(*samples.get(samples.len() / 2)?),
                    p99: millis(*samples.get(samples.len() * 99 / 100)?),
                    most: millis(*samples.last()?),
                })
            })
            .collect();
        Self {
            seconds: elapsed.as_secs_f64(),
            uploads: get(&stats.finished),
            failed: get(&stats.failed),
            verified: get(&stats.verified),
            wrong: get(&stats.wrong),
            out_of_time: get(&stats.out_of_time),
            bytes: get(&stats.sent),
            sent_directly: get(&stats.sent_directly),
            sent_twice: get(&stats.sent_twice),
            repeated: get(&stats.repeated),
            cuts: get(&stats.cuts),
            latencies,
            marks: std::mem::take(&mut *stats.marks.lock().expect("nobody panics with it")),
            own,
            server,
        }
    }

    /// Whether everything that was begun ended well.
    pub(crate) fn clean(&self) -> bool {
        self.failed == 0 && self.wrong == 0
    }

    pub(crate) fn json(&self) -> Value {
        let latencies: serde_json::Map<String, Value> = self
            .latencies
            .iter()
            .map(|l| {
                let figures =
                    json!({"count": l.count, "p50_ms": l.p50, "p99_ms": l.p99, "max_ms": l.most});
                (l.kind.to_owned(), figures)
            })
            .collect();
        json!({
            "seconds": self.seconds,
            "uploads": self.uploads,
            "failed": self.failed,
            "verified": self.verified,
            "wrong_digest": self.wrong,
            "workers_out_of_time": self.out_of_time,
            "bytes": self.bytes,
            "mb_per_s": self.rate(),
            "uploads_per_s": quotient(self.uploads, self.seconds),
            "bytes_past_the_server": self.sent_directly,
            "bytes_sent_twice": self.sent_twice,
            "requests_repeated": self.repeated,
            "cuts": self.cuts,
            "latency": latencies,
            "marks": self.marks.iter().map(Mark::json).collect::<Vec<_>>(),
            "own": self.usage(&self.own),
            "server": self.server.as_ref().map(|usage| self.usage(usage)),
        })
    }

    pub(crate) fn human(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} uploads, {:.1} MB in {:.2} s: {:.1} MB/s, {:.1} uploads/s",
            self.uploads,
            float(self.bytes) / 1e6,
            self.seconds,
            self.rate(),
            quotient(self.uploads, self.seconds),
        );
        let _ = writeln!(
            text,
            "failed {}, wrong digest {}, verified {}, workers out of time {}",
            self.failed, self.wrong, self.verified, self.out_of_time
        );
        let _ = writeln!(
            text,
            "cuts {}, requests repeated {}, bytes sent twice {}, bytes past the server {}",
            self.cuts, self.repeated, self.sent_twice, self.sent_directly
        );
        for l in &self.latencies {
            let _ = writeln!(
                text,
                "{:<9} {:>8} requests  p50 {:>9.2} ms  p99 {:>9.2} ms  max {:>9.2} ms",
                l.kind, l.count, l.p50, l.p99, l.most
            );
        }
        let usages = [
            ("generator", Some(&self.own)),
            ("server", self.server.as_ref()),
        ];
        for (who, usage) in usages {
            let Some(usage) = usage else { continue };
            let _ = writeln!(
                text,
                "{who:<9} {:.2} CPU s, {:.2} CPU s/GiB, peak {:.1} MiB, now {:.1} MiB, {:.1} MB written to disk",
                usage.cpu_seconds,
                self.per_gib(usage),
                float(usage.peak_rss_kib) / 1024.0,
                float(usage.rss_kib) / 1024.0,
                float(usage.write_bytes) / 1e6,
            );
        }
        text
    }

    fn rate(&self) -> f64 {
        quotient(self.bytes, self.seconds) / 1e6
    }

    fn per_gib(&self, usage: &Usage) -> f64 {
        if self.bytes == 0 {
            return 0.0;
        }
        usage.cpu_seconds / (float(self.bytes) / f64::from(1 << 30))
    }

    fn usage(&self, usage: &Usage) -> Value {
        json!({
            "cpu_seconds": usage.cpu_seconds,
            "cpu_seconds_per_gib": self.per_gib(usage),
            "peak_rss_kib": usage.peak_rss_kib,
            "rss_kib": usage.rss_kib,
            "write_bytes": usage.write_bytes,
        })
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn quotient(count: u64, seconds: f64) -> f64 {
    float(count) / seconds.max(f64::MIN_POSITIVE)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people; 53 bits are enough"
)]
fn float(count: u64) -> f64 {
    count as f64
}
