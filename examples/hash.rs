//! The yardstick for what is hashed: SHA-256 of 1 GiB from memory, by the same crate as the server uses. On a processor
//! without SHA instructions it is most of what an upload costs.

use std::time::Instant;

use sha2::{Digest as _, Sha256};

const GIB: u64 = 1 << 30;
const FRAME: usize = 256 << 10;

fn main() {
    let frame = vec![0xa5; FRAME];
    let begun = Instant::now();
    let mut hash = Sha256::new();
    for _ in 0..GIB / FRAME as u64 {
        hash.update(&frame);
    }
    let digest = hash.finalize();
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "SHA-256 of 1 GiB: {seconds:.2} s, {:.0} MB/s ({})",
        1_073.741_824 / seconds,
        hex::encode(digest)
    );
}
