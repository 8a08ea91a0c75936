//! A load generator for jumar, and for other servers of tus, that costs less than they do.
//!
//! Speaks HTTP/1.1 by hand over plain TCP: heads are short strings, bodies are slices of one shared buffer of random
//! bytes that are never copied, answers are read only as far as they are needed. Talks to loopback only, and stops by
//! itself.
//!
//! ```text
//! cargo run --release --example load -- --uploads 40 --size 25MiB --chunk 1MiB --concurrency 8 --pid $(pidof jumar)
//! ```

mod content;
mod direct;
mod http;
mod options;
mod process;
mod report;
mod upload;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::task::JoinSet;

use content::Content;
use options::Options;
use process::Usage;
use report::{Kind, Report, Stats};
use upload::Worker;

/// What all workers share.
struct Load {
    options: Options,
    target: http::Target,
    content: Content,
    stats: Stats,
    next: AtomicU64,
    /// The paths of the uploads that are to be put together, by their numbers.
    parts: Mutex<BTreeMap<u64, String>>,
    started: Instant,
    deadline: Instant,
    /// After how many chunks each mark is made.
    mark_every: Option<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = if options.threads <= 1 {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    } else {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads)
            .enable_all()
            .build()
    };
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(error) => Err(format!("no runtime: {error}")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the whole load; true if everything that was begun also ended well.
async fn run(options: Options) -> Result<bool, String> {
    if let Some(conflict) = options.conflict() {
        return Err(conflict.to_owned());
    }
    let target = http::Target::parse(&options.url)?;
    let pid = options.pid;
    let json = options.json;
    let concurrency = options.concurrency.max(1);
    let content = Content::generate()?;
    let load = Arc::new(Load {
        content,
        stats: Stats::default(),
        parts: Mutex::default(),
        next: AtomicU64::new(0),
        started: Instant::now(),
        deadline: Instant::now() + Duration::from_secs(options.seconds),
        mark_every: options.mark_every(),
        target,
        options,
    });

    let own_before = Usage::own()?;
    let server_before = pid.map(Usage::of).transpose()?;
    let started = Instant::now();

    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let load = Arc::clone(&load);
        workers.spawn(async move {
            let work = async {
                let mut worker = Worker::new(&load);
                loop {
                    let number = load.next.fetch_add(1, Ordering::Relaxed);
                    if number >= load.options.uploads || Instant::now() >= load.deadline {
                        break;
                    }
                    let began = Instant::now();
                    match worker.upload(number).await {
                        Ok(()) => {
                            load.stats.took(Kind::Upload, began.elapsed());
                            load.stats.finished();
                        }
                        Err(error) => load.stats.failed(number, &error),
                    }
                }
            };
            if tokio::time::timeout_at(load.deadline.into(), work)
                .await
                .is_err()
            {
                load.stats.out_of_time();
            }
        });
    }
    while let Some(joined) = workers.join_next().await {
        joined.map_err(|error| format!("a worker panicked: {error}"))?;
    }
    if load.options.concat
        && let Err(error) = Worker::new(&load).put_together().await
    {
        load.stats.failed(load.options.uploads, &error);
    }

    let elapsed = started.elapsed();
    let own = Usage::own()?.since(&own_before);
    let server = match (pid, server_before) {
        (Some(pid), Some(before)) => Some(Usage::of(pid)?.since(&before)),
        _ => None,
    };
    let report = Report::new(&load.stats, elapsed, own, server);
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.human());
    }
    Ok(report.clean())
}
