//! What is sent: one buffer of random bytes, entered at another place by every upload.

use std::ops::Range;

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// A prime a little under 32 MiB, so that no chunk or part size divides it and bytes in the wrong place are wrong bytes.
const PERIOD: usize = 33_554_393;

/// The shared buffer. The file of an upload is this, repeated, from the upload's own place on.
#[derive(Clone)]
pub(crate) struct Content {
    buffer: Arc<Vec<u8>>,
}

impl Content {
    pub(crate) fn generate() -> Result<Self, String> {
        let mut buffer = vec![0; PERIOD];
        getrandom::fill(&mut buffer).map_err(|error| format!("no randomness: {error}"))?;
        Ok(Self {
            buffer: Arc::new(buffer),
        })
    }

    /// The longest run of bytes of an upload's file from `offset` on that lies in one piece, at most `limit` long.
    pub(crate) fn run(&self, upload: u64, offset: u64, limit: u64) -> &[u8] {
        let period = PERIOD as u64;
        // A step that is prime to the period: uploads differ until there are as many of them as bytes.
        let start = (upload % period * 7_919 + offset % period) % period;
        let length = limit.min(period - start);
        let at = |position: u64| usize::try_from(position).expect("inside the buffer");
        &self.buffer[at(start)..at(start + length)]
    }

    /// The SHA-256 of the whole files of some uploads, one after the other, in lower-case hex. Costs CPU: call it off the
    /// runtime's thread.
    pub(crate) fn sha256(&self, uploads: Range<u64>, size: u64) -> String {
        let mut hasher = Sha256::new();
        for upload in uploads {
            let mut offset = 0;
            while offset < size {
                let run = self.run(upload, offset, size - offset);
                hasher.update(run);
                offset += run.len() as u64;
            }
        }
        hex::encode(hasher.finalize())
    }
}

/// Random numbers for cuts and shuffles; their quality does not matter.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number under `bound`; 0 if the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.checked_rem(bound).unwrap_or(0)
    }

    /// True with the given probability.
    pub(crate) fn hits(&mut self, probability: f64) -> bool {
        const STEPS: u32 = 1_000_000;
        let drawn = u32::try_from(self.below(u64::from(STEPS))).expect("under a million");
        f64::from(drawn) < probability * f64::from(STEPS)
    }
}
