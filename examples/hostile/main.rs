//! Clients that mean harm, at full size, against a server on this machine: what they are answered, what they cost it, and how long a
//! well-behaved client waits beside them.
//!
//! Stops by itself. Thousands of connections need `ulimit -n` raised, here and for the server.
//!
//! ```text
//! cargo run --release --example hostile -- --pid $(pidof jumar) trickle
//! ```

mod attack;
mod bystander;
#[path = "../load/process.rs"]
#[allow(dead_code, reason = "what only the load generator uses")]
mod process;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::task::JoinSet;

use attack::Attack;
use bystander::Bystander;
use process::Usage;

/// What to do to which server.
#[derive(Debug, Clone, Parser)]
#[command(about = "Attacks a jumar server on this machine, and measures how it bears it")]
struct Options {
    /// The server; loopback only.
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// The server's process, to report its memory and CPU.
    #[arg(long)]
    pid: u32,
    /// How many attackers at once; 0: as many as the attack is meant for.
    #[arg(long, default_value_t = 0)]
    connections: usize,
    /// For how long.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The attack.
    #[command(subcommand)]
    attack: Attack,
}

/// How often something was answered, or happened instead.
#[derive(Debug, Default)]
struct Counts(Mutex<BTreeMap<String, u64>>);

impl Counts {
    fn add(&self, what: impl Into<String>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what.into()).or_default() += 1;
    }
}

fn main() -> Result<(), String> {
    let options = Options::parse();
    if !options.address.ip().is_loopback() {
        return Err("only servers on this machine are attacked".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|error| error.to_string())?
        .block_on(run(options))
}

async fn run(options: Options) -> Result<(), String> {
    let Options {
        address,
        pid,
        seconds,
        attack,
        ..
    } = options;
    let connections = match options.connections {
        0 => attack.connections(),
        connections => connections,
    };
    let alone = Bystander::begin(address);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let alone = alone.end()?;
    let before = Usage::of(pid)?;
    let counts = Arc::new(Counts::default());
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let mut attackers = JoinSet::new();
    let shared = attack.prepare(address).await?;
    for number in 0..connections {
        let (counts, shared) = (Arc::clone(&counts), Arc::clone(&shared));
        attackers.spawn(async move {
            let work = attack.go_on(address, number, &shared, &counts);
            let _ = tokio::time::timeout_at(end.into(), work).await;
        });
    }
    let beside = Bystander::begin(address);
    let mut most_kib = 0;
    while Instant::now() < end && !attackers.is_empty() {
        most_kib = most_kib.max(Usage::of(pid)?.rss_kib);
        let pause = Duration::from_millis(200);
        let _ = tokio::time::timeout(pause, attackers.join_next()).await;
    }
    let took = begun.elapsed();
    attackers.shutdown().await;
    let beside = beside.end()?;
    let used = Usage::of(pid)?.since(&before);
    println!(
        "{attack:?}: {connections} attackers for {:.1} s",
        took.as_secs_f64()
    );
    println!("alone   {alone}");
    println!("beside  {beside}");
    println!(
        "server  {:.1} MiB resident before, {:.1} MiB at most, {:.1} MiB after; {:.2} CPU s",
        mib(before.rss_kib),
        mib(most_kib),
        mib(used.rss_kib),
        used.cpu_seconds
    );
    let counts = counts.0.lock().unwrap_or_else(PoisonError::into_inner);
    for (what, count) in &*counts {
        println!("{count:>9}  {what}");
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
