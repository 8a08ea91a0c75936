//! The yardstick for what is hashed: SHA-256 of 1 GiB from memory, by the server's own hasher. On a processor without SHA
//! instructions it is most of what an upload costs.

use std::time::Instant;

use jumar::engine::hasher::Hasher;
use jumar::model::{DigestAlgorithm, digest::Digests};

const GIB: u64 = 1 << 30;
const FRAME: usize = 256 << 10;

fn main() {
    let frame = vec![0xa5; FRAME];
    let begun = Instant::now();
    let mut hash = Hasher::of_whole(&Digests::default());
    for _ in 0..GIB / FRAME as u64 {
        hash.update(&frame);
    }
    let digests = hash.finish();
    let seconds = begun.elapsed().as_secs_f64();
    let digest = digests
        .get(DigestAlgorithm::Sha256)
        .expect("always among them");
    println!(
        "SHA-256 of 1 GiB: {seconds:.2} s, {:.0} MB/s ({})",
        1_073.741_824 / seconds,
        digest.to_hex()
    );
}
