//! Hashing in order, and hashing on after a crash.
//!
//! A [`Hasher`] runs the algorithms that an upload needs (always SHA-256). Its inner state can be stored and taken up
//! again, so that no byte is read a second time because a process ended.

mod sha256;

use digest::Digest as _;
use digest::common::hazmat::SerializableState;
use md5::Md5;
use sha1::Sha1;
use sha2::Sha512;

use self::sha256::Sha256;
use super::Expected;
use crate::model::digest::Digests;
use crate::model::upload::HashPoint;
use crate::model::{Digest, DigestAlgorithm, Offset};

/// The first byte of a stored state. Another one means: written by another version, hash again.
const FORMAT: u8 = 2;

/// The running hashes of bytes taken in order.
#[derive(Clone)]
pub struct Hasher(Vec<Running>);

#[derive(Clone)]
enum Running {
    Sha256(Sha256),
    Sha512(Sha512),
    Sha1(Sha1),
    Md5(Md5),
    Crc(DigestAlgorithm, crc_fast::Digest),
}

/// The state was not written by this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored hash state is of another version")]
pub struct UnreadableState;

impl Hasher {
    /// SHA-256 and the algorithms of `declared`: what is asked of a whole upload.
    #[must_use]
    pub fn of_whole(declared: &Digests) -> Self {
        let others = declared
            .iter()
            .map(Digest::algorithm)
            .filter(|algorithm| *algorithm != DigestAlgorithm::Sha256);
        Self(
            std::iter::once(DigestAlgorithm::Sha256)
                .chain(others)
                .map(Running::new)
                .collect(),
        )
    }

    /// Just the algorithms of `expected`: what is asked of one body.
    #[must_use]
    pub fn of_body(expected: &Expected) -> Self {
        let algorithms = match expected {
            Expected::Known(digests) => digests.iter().map(Digest::algorithm).collect(),
            Expected::Trailing(trailing) => trailing.algorithms.clone(),
        };
        Self(algorithms.into_iter().map(Running::new).collect())
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for running in &mut self.0 {
            match running {
                Running::Sha256(hash) => hash.update(bytes),
                Running::Sha512(hash) => hash.update(bytes),
                Running::Sha1(hash) => hash.update(bytes),
                Running::Md5(hash) => hash.update(bytes),
                Running::Crc(_, crc) => crc.update(bytes),
            }
        }
    }

    /// The digests of all that was taken.
    #[must_use]
    pub fn finish(self) -> Digests {
        self.0.into_iter().map(Running::finish).collect()
    }

    /// The inner state, to be taken up again by [`resume`](Self::resume).
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        let mut state = vec![FORMAT];
        for running in &self.0 {
            state.push(running.algorithm() as u8);
            match running {
                Running::Sha256(hash) => state.extend_from_slice(&hash.state()),
                Running::Sha512(hash) => state.extend_from_slice(&hash.serialize()),
                Running::Sha1(hash) => state.extend_from_slice(&hash.serialize()),
                Running::Md5(hash) => state.extend_from_slice(&hash.serialize()),
                Running::Crc(_, crc) => state.extend_from_slice(&crc.get_state().to_le_bytes()),
            }
        }
        state
    }

    /// The hasher of a whole upload at a hash point; `None` if its state is of another version.
    #[must_use]
    pub fn at(declared: &Digests, point: &HashPoint) -> Option<Self> {
        if point.offset == Offset(0) {
            Some(Self::of_whole(declared))
        } else {
            Self::resume(declared, &point.state).ok()
        }
    }

    /// Goes on from a stored state; the algorithms have to be the ones that `declared` asks for.
    pub fn resume(declared: &Digests, state: &[u8]) -> Result<Self, UnreadableState> {
        let (format, mut rest) = state.split_first().ok_or(UnreadableState)?;
        if *format != FORMAT {
            return Err(UnreadableState);
        }
        let mut hasher = Self::of_whole(declared);
        for running in &mut hasher.0 {
            let (algorithm, after) = rest.split_first().ok_or(UnreadableState)?;
            if *algorithm != running.algorithm() as u8 {
                return Err(UnreadableState);
            }
            rest = match running {
                Running::Sha256(hash) => {
                    let (restored, after) = Sha256::restore(after).ok_or(UnreadableState)?;
                    *hash = restored;
                    after
                }
                Running::Sha512(hash) => restore(hash, after)?,
                Running::Sha1(hash) => restore(hash, after)?,
                Running::Md5(hash) => restore(hash, after)?,
                Running::Crc(algorithm, crc) => {
                    let (state, after) = after.split_first_chunk().ok_or(UnreadableState)?;
                    *crc = crc_fast::Digest::new_with_init_state(
                        crc_algorithm(*algorithm),
                        u64::from_le_bytes(*state),
                    );
                    after
                }
            };
        }
        if rest.is_empty() {
            Ok(hasher)
        } else {
            Err(UnreadableState)
        }
    }
}

/// Puts the state at the start of `bytes` into `hash`, and returns what follows it.
fn restore<'a, H: SerializableState>(
    hash: &mut H,
    bytes: &'a [u8],
) -> Result<&'a [u8], UnreadableState> {
    let mut state = digest::common::hazmat::SerializedState::<H>::default();
    let (mine, rest) = bytes.split_at_checked(state.len()).ok_or(UnreadableState)?;
    state.copy_from_slice(mine);
    *hash = H::deserialize(&state).map_err(|_| UnreadableState)?;
    Ok(rest)
}

fn crc_algorithm(algorithm: DigestAlgorithm) -> crc_fast::CrcAlgorithm {
    match algorithm {
        DigestAlgorithm::Crc64Nvme => crc_fast::CrcAlgorithm::Crc64Nvme,
        _ => crc_fast::CrcAlgorithm::Crc32Iscsi,
    }
}

impl Running {
    fn new(algorithm: DigestAlgorithm) -> Self {
        match algorithm {
            DigestAlgorithm::Sha256 => Self::Sha256(Sha256::new()),
            DigestAlgorithm::Sha512 => Self::Sha512(Sha512::new()),
            DigestAlgorithm::Sha1 => Self::Sha1(Sha1::new()),
            DigestAlgorithm::Md5 => Self::Md5(Md5::new()),
            DigestAlgorithm::Crc32c | DigestAlgorithm::Crc64Nvme => {
                Self::Crc(algorithm, crc_fast::Digest::new(crc_algorithm(algorithm)))
            }
        }
    }

    fn algorithm(&self) -> DigestAlgorithm {
        match self {
            Self::Sha256(_) => DigestAlgorithm::Sha256,
            Self::Sha512(_) => DigestAlgorithm::Sha512,
            Self::Sha1(_) => DigestAlgorithm::Sha1,
            Self::Md5(_) => DigestAlgorithm::Md5,
            Self::Crc(algorithm, _) => *algorithm,
        }
    }

    fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let value = match self {
            Self::Sha256(hash) => hash.finish().to_vec(),
            Self::Sha512(hash) => hash.finalize().to_vec(),
            Self::Sha1(hash) => hash.finalize().to_vec(),
            Self::Md5(hash) => hash.finalize().to_vec(),
            Self::Crc(_, crc) => crc.finalize().to_be_bytes()[8 - algorithm.len()..].to_vec(),
        };
        Digest::new(algorithm, value).expect("a hash has its algorithm's length")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Digests {
        DigestAlgorithm::ALL
            .into_iter()
            .map(|algorithm| Digest::new(algorithm, vec![0; algorithm.len()]).expect("its length"))
            .collect()
    }

    #[test]
    fn known_answers() {
        let mut hasher = Hasher::of_whole(&all());
        hasher.update(b"123456789");
        let digests = hasher.finish();
        let hex = |algorithm| digests.get(algorithm).expect("asked for").to_hex();
        assert_eq!(
            hex(DigestAlgorithm::Sha256),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
        assert_eq!(
            hex(DigestAlgorithm::Sha1),
            "f7c3bc1d808e04732adf679965ccc34ca7ae3441"
        );
        assert_eq!(
            hex(DigestAlgorithm::Md5),
            "25f9e794323b453885f5181f1b624d0b"
        );
        assert_eq!(hex(DigestAlgorithm::Crc32c), "e3069283");
        assert_eq!(hex(DigestAlgorithm::Crc64Nvme), "ae8b14860a799888");
    }

    proptest! {
        /// Cut anywhere, stored and taken up again, the digests are those of the whole.
        #[test]
        fn a_stored_state_goes_on(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0.0_f64..1.0) {
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any cut will do")]
            let cut = (bytes.len() as f64 * at) as usize;
            let declared = all();
            let mut first = Hasher::of_whole(&declared);
            first.update(&bytes[..cut]);
            let mut second = Hasher::resume(&declared, &first.state()).expect("its own state");
            second.update(&bytes[cut..]);
            let mut whole = Hasher::of_whole(&declared);
            whole.update(&bytes);
            prop_assert_eq!(second.finish(), whole.finish());
        }

        /// AWS-LC's against the `sha2` crate's, with a state stored and taken up again at every cut.
        #[test]
        fn sha_256_is_sha_256(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)) {
            let mut hash = Hasher::of_whole(&Digests::default());
            for piece in &pieces {
                hash.update(piece);
                hash = Hasher::resume(&Digests::default(), &hash.state()).expect("its own state");
            }
            let digests = hash.finish();
            let expected = sha2::Sha256::digest(pieces.concat());
            prop_assert_eq!(digests.get(DigestAlgorithm::Sha256).expect("always").value(), &expected[..]);
        }

        #[test]
        fn a_foreign_state_is_refused(state in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Hasher::resume(&Digests::default(), &state);
            prop_assert!(Hasher::resume(&all(), &state).is_err());
        }
    }

    #[test]
    fn a_state_for_other_algorithms_is_refused() {
        let state = Hasher::of_whole(&all()).state();
        assert!(Hasher::resume(&Digests::default(), &state).is_err());
        assert!(Hasher::resume(&all(), &state[..state.len() - 1]).is_err());
    }
}
