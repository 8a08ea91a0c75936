//! Digests: their algorithms, their names on the wire, their values.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;

/// A hash or checksum algorithm, named as in the IANA registry of hash algorithms for HTTP digest fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestAlgorithm {
    /// `sha-256`
    Sha256,
    /// `sha-512`
    Sha512,
    /// `sha` (SHA-1, as tus names it `sha1`)
    Sha1,
    /// `md5`
    Md5,
    /// `crc32c`
    Crc32c,
    /// `crc64nvme`
    Crc64Nvme,
}

impl DigestAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 6] = [
        Self::Sha256,
        Self::Sha512,
        Self::Sha1,
        Self::Md5,
        Self::Crc32c,
        Self::Crc64Nvme,
    ];

    /// Its name in HTTP digest fields and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha512 => "sha-512",
            Self::Sha1 => "sha",
            Self::Md5 => "md5",
            Self::Crc32c => "crc32c",
            Self::Crc64Nvme => "crc64nvme",
        }
    }

    /// How many bytes its value has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no value is empty")]
    pub fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
            Self::Sha1 => 20,
            Self::Md5 => 16,
            Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
        }
    }
}

impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a digest cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// The algorithm is not one of ours.
    #[error(
        "the digest algorithm {0:?} is not known; known are sha-256, sha-512, sha, md5, crc32c, crc64nvme"
    )]
    UnknownAlgorithm(String),
    /// The value is no hex, or not as long as the algorithm's.
    #[error("a {algorithm} digest is {expected} bytes in hex, {} characters", expected * 2)]
    Malformed {
        /// The algorithm that was named.
        algorithm: DigestAlgorithm,
        /// How many bytes its value has.
        expected: usize,
    },
}

impl FromStr for DigestAlgorithm {
    type Err = InvalidDigest;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| InvalidDigest::UnknownAlgorithm(name.chars().take(64).collect()))
    }
}

/// The value of a digest.
#[derive(Clone)]
pub struct Digest {
    algorithm: DigestAlgorithm,
    value: Vec<u8>,
}

impl Digest {
    /// From the value's bytes; their number has to be the algorithm's.
    pub fn new(
        algorithm: DigestAlgorithm,
        value: impl Into<Vec<u8>>,
    ) -> Result<Self, InvalidDigest> {
        let value = value.into();
        if value.len() == algorithm.len() {
            Ok(Self { algorithm, value })
        } else {
            Err(InvalidDigest::Malformed {
                algorithm,
                expected: algorithm.len(),
            })
        }
    }

    /// From lower- or upper-case hex.
    pub fn from_hex(algorithm: DigestAlgorithm, text: &str) -> Result<Self, InvalidDigest> {
        let value = hex::decode(text).map_err(|_| InvalidDigest::Malformed {
            algorithm,
            expected: algorithm.len(),
        })?;
        Self::new(algorithm, value)
    }

    /// The algorithm that it is of.
    #[must_use]
    pub fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// Its bytes.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Its bytes in lower-case hex.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(&self.value)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.value.ct_eq(&other.value).into()
    }
}

impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.to_hex())
    }
}

/// Digests of the same bytes, at most one an algorithm. In JSON a map from name to lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digests(BTreeMap<DigestAlgorithm, Digest>);

impl Digests {
    /// Adds one; another of the same algorithm is replaced.
    pub fn insert(&mut self, digest: Digest) {
        self.0.insert(digest.algorithm, digest);
    }

    /// The digest of an algorithm.
    #[must_use]
    pub fn get(&self, algorithm: DigestAlgorithm) -> Option<&Digest> {
        self.0.get(&algorithm)
    }

    /// All of them, by algorithm.
    pub fn iter(&self) -> impl Iterator<Item = &Digest> {
        self.0.values()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first of ours that `other` has with another value.
    #[must_use]
    pub fn first_conflict<'a>(&'a self, other: &Self) -> Option<&'a Digest> {
        self.iter().find(|digest| {
            other
                .get(digest.algorithm)
                .is_some_and(|theirs| theirs != *digest)
        })
    }

    /// From a map of names to hex.
    pub fn from_hex_map<'a>(
        map: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, InvalidDigest> {
        let mut digests = Self::default();
        for (name, value) in map {
            digests.insert(Digest::from_hex(name.parse()?, value)?);
        }
        Ok(digests)
    }
}

impl FromIterator<Digest> for Digests {
    fn from_iter<I: IntoIterator<Item = Digest>>(digests: I) -> Self {
        Self(
            digests
                .into_iter()
                .map(|digest| (digest.algorithm, digest))
                .collect(),
        )
    }
}

impl serde::Serialize for Digests {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.iter()
                .map(|digest| (digest.algorithm.name(), digest.to_hex())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_checked() {
        assert!(matches!(
            "sha-3".parse::<DigestAlgorithm>(),
            Err(InvalidDigest::UnknownAlgorithm(_))
        ));
        assert_eq!(
            "SHA-256".parse::<DigestAlgorithm>(),
            Ok(DigestAlgorithm::Sha256)
        );
        assert!(Digest::from_hex(DigestAlgorithm::Md5, "00").is_err());
        assert!(Digest::from_hex(DigestAlgorithm::Crc32c, "zz00zz00").is_err());
        let digest = Digest::from_hex(DigestAlgorithm::Crc32c, "DEADbeef").expect("valid");
        assert_eq!(digest.to_hex(), "deadbeef");
    }

    #[test]
    fn a_conflict_is_another_value_of_the_same_algorithm() {
        let one: Digests = [Digest::from_hex(DigestAlgorithm::Crc32c, "00000001").expect("valid")]
            .into_iter()
            .collect();
        let two: Digests = [Digest::from_hex(DigestAlgorithm::Crc32c, "00000002").expect("valid")]
            .into_iter()
            .collect();
        assert_eq!(one.first_conflict(&one), None);
        assert!(one.first_conflict(&two).is_some());
        assert_eq!(one.first_conflict(&Digests::default()), None);
    }
}
