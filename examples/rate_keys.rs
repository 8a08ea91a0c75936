//! What a million addresses cost a rate limit: memory, and time for each request.
//!
//! `cargo run --release --example rate_keys`

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Instant;

use jumar::api::rate::buckets::{Buckets, Rate};

const ADDRESSES: u32 = 1_000_000;
const MAX_KEYS: usize = 100_000;

/// The network with this number.
fn network(number: u32) -> IpAddr {
    Ipv6Addr::from_bits((0x2001_0db8 << 96) | (u128::from(number) << 64)).into()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// Asks once for each number; prints how long each took, and how many were refused.
fn ask(what: &str, buckets: &Buckets<IpAddr>, numbers: impl Iterator<Item = u32>) {
    let (begun, mut asked, mut refused) = (Instant::now(), 0, 0);
    for number in numbers {
        asked += 1;
        refused += u32::from(buckets.take(&network(number)).is_err());
    }
    let each = begun.elapsed() / asked;
    println!(
        "{what}: {each:?} each, {refused} refused, {} KiB",
        resident_kib()
    );
}

fn main() {
    let rate = |per_minute, burst| Rate {
        per_minute: NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN),
        burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
    };
    println!("before: {} KiB", resident_kib());
    let quick = Buckets::new(rate(600, 100), MAX_KEYS);
    ask("creations, a million addresses", &quick, 0..ADDRESSES);
    ask("creations, one address", &quick, (0..ADDRESSES).map(|_| 7));
    // No bucket fills up again while this runs: every newcomer looks in vain.
    let slow = Buckets::new(rate(1, 100), MAX_KEYS);
    ask("no place free, a million addresses", &slow, 0..ADDRESSES);
    ask("no place free, ten thousand known ones", &slow, 0..10_000);
}
