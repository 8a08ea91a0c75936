//! SHA-256 by AWS-LC, which is here anyway for TLS.
//!
//! It is the one place with `unsafe`, and why is in ADR 3: on a processor without SHA instructions it takes half the time
//! that the `sha2` crate takes, and hashing is most of what an upload costs there. `aws-lc-rs` would be safe, but its contexts
//! cannot be stored, and a hash that cannot be taken up again after a crash is of no use here.

use aws_lc_sys::{SHA256_CTX, SHA256_Final, SHA256_Init, SHA256_Update};

const BLOCK: usize = 64;

/// A running SHA-256 whose state can be stored.
#[derive(Clone)]
pub(super) struct Sha256(SHA256_CTX);

impl Sha256 {
    /// How many bytes a stored state has: the words, the count of bits, the bytes that fill no block yet.
    const STATE: usize = 32 + 8 + BLOCK;

    #[expect(unsafe_code, reason = "a call of C")]
    pub(super) fn new() -> Self {
        let mut context = SHA256_CTX {
            h: [0; 8],
            Nl: 0,
            Nh: 0,
            data: [0; BLOCK],
            num: 0,
            md_len: 0,
        };
        // SAFETY: the context is a valid one to write to, for the time of the call.
        unsafe { SHA256_Init(&raw mut context) };
        Self(context)
    }

    #[expect(unsafe_code, reason = "a call of C")]
    pub(super) fn update(&mut self, bytes: &[u8]) {
        // SAFETY: the context was initialised in `new` and has kept its invariants (`num` below a block) since, also where
        // `restore` made it; the pointer and the length are those of one slice.
        unsafe { SHA256_Update(&raw mut self.0, bytes.as_ptr().cast(), bytes.len()) };
    }

    #[expect(unsafe_code, reason = "a call of C")]
    pub(super) fn finish(mut self) -> [u8; 32] {
        let mut digest = [0; 32];
        // SAFETY: the context is as in `update`, and the digest has the 32 bytes that its `md_len` says.
        unsafe { SHA256_Final(digest.as_mut_ptr(), &raw mut self.0) };
        digest
    }

    pub(super) fn state(&self) -> Vec<u8> {
        let words = self.0.h.iter().chain([&self.0.Nl, &self.0.Nh]);
        let mut state: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        let partial = usize::try_from(self.0.num).expect("less than a block");
        state.extend_from_slice(&self.0.data[..partial]);
        state.resize(Self::STATE, 0);
        state
    }

    /// The hash that has the state at the start of `bytes`, and what follows it.
    pub(super) fn restore(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (state, rest) = bytes.split_first_chunk::<{ Self::STATE }>()?;
        let (words, partial) = state.split_first_chunk::<40>()?;
        let mut words = words
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word));
        let mut hash = Self::new();
        hash.0.h.fill_with(|| words.next().expect("ten words"));
        hash.0.Nl = words.next()?;
        hash.0.Nh = words.next()?;
        hash.0.data.copy_from_slice(partial);
        // The count is of bits, so its lowest nine are those of the block that is not full.
        hash.0.num = hash.0.Nl / 8 % 64;
        Some((hash, rest))
    }
}
