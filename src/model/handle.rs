//! Identifiers and keys: the only place, with the clock, where randomness comes from.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::Aead as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// Names an upload. A `UUIDv7`: unguessable enough to be no counter, and sorted by time. It is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(Uuid);

impl UploadId {
    /// A new identifier, from the clock and the system's randomness.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that the rule points to"
    )]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From its 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The text is no upload id.
#[derive(Debug, thiserror::Error)]
#[error("not an upload id")]
pub struct InvalidId;

impl FromStr for UploadId {
    type Err = InvalidId;

    /// Takes the hyphenated form in lower case only, so that an upload has one name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 36 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidId);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| InvalidId)
    }
}

/// The secret that opens one upload: 32 random bytes, base64url on the wire. Never logged, never stored.
#[derive(Clone)]
pub struct UploadKey([u8; 32]);

impl UploadKey {
    /// A new key from the system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(random())
    }

    /// The form that a client is given and sends back.
    #[must_use]
    pub fn reveal(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The form that the catalog keeps.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for UploadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadKey(…)")
    }
}

/// The text is no upload key.
#[derive(Debug, thiserror::Error)]
#[error("not an upload key")]
pub struct InvalidKey;

impl FromStr for UploadKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidKey)
    }
}

impl UploadKey {
    /// Encrypts a text so that only this key opens it again. To be called once for a key: the nonce is fixed.
    #[must_use]
    pub fn seal(&self, text: &str) -> Vec<u8> {
        self.cipher()
            .encrypt(&Nonce::default(), text.as_bytes())
            .expect("a text in memory is not too long for the cipher")
    }

    /// Opens what [`seal`](Self::seal) made of a text with this very key; `None` for anything else.
    #[must_use]
    pub fn open(&self, sealed: &[u8]) -> Option<String> {
        let text = self.cipher().decrypt(&Nonce::default(), sealed).ok()?;
        String::from_utf8(text).ok()
    }

    /// The cipher's key is derived from ours in another way than what the catalog keeps.
    fn cipher(&self) -> ChaCha20Poly1305 {
        let mut hash = Sha256::new();
        hash.update(b"jumar sealed text");
        hash.update(self.0);
        ChaCha20Poly1305::new(&hash.finalize().0.into())
    }
}

/// An upload's id and key in one opaque segment of a URL, for protocols whose clients keep a URL and nothing else:
/// base64url of both, 64 characters. As secret as the key.
#[derive(Clone)]
pub struct Handle {
    /// Which upload.
    pub id: UploadId,
    /// What opens it.
    pub key: UploadKey,
}

impl Handle {
    /// The form that stands in URLs.
    #[must_use]
    pub fn reveal(&self) -> String {
        URL_SAFE_NO_PAD.encode([&self.id.as_bytes()[..], &self.key.0].concat())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(…)")
    }
}

/// The text is no handle.
#[derive(Debug, thiserror::Error)]
#[error("not the handle of an upload")]
pub struct InvalidHandle;

impl FromStr for Handle {
    type Err = InvalidHandle;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidHandle)?;
        let (id, key) = bytes.split_first_chunk().ok_or(InvalidHandle)?;
        Ok(Self {
            id: UploadId::from_bytes(*id),
            key: UploadKey(key.try_into().map_err(|_| InvalidHandle)?),
        })
    }
}

/// A short random name for one request or one incident, to find it in the log. No secret.
#[must_use]
pub fn correlation_id() -> String {
    hex::encode(random::<10>())
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a source of randomness");
    bytes
}

/// The SHA-256 of an [`UploadKey`] or an [`ApiKey`](super::ApiKey). Comparing takes the same time whatever differs.
#[derive(Clone, Copy)]
pub struct KeyHash(pub [u8; 32]);

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyHash {}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_keys_do_not_print() {
        let key = UploadKey::generate();
        assert!(!format!("{key:?} {:?}", key.hash()).contains(&key.reveal()));
        assert_eq!(format!("{key:?}"), "UploadKey(…)");
    }

    #[test]
    fn a_key_comes_back_from_its_text_and_no_other() {
        let key = UploadKey::generate();
        assert_eq!(
            key.reveal()
                .parse::<UploadKey>()
                .expect("its own text")
                .hash(),
            key.hash()
        );
        assert_ne!(UploadKey::generate().hash(), key.hash());
        for wrong in ["", "abc", "!!!!", &format!("{}A", key.reveal())] {
            assert!(wrong.parse::<UploadKey>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn ids_have_one_spelling() {
        let id = UploadId::generate();
        assert_eq!(
            id.to_string().parse::<UploadId>().expect("its own text"),
            id
        );
        assert!(id.to_string().replace('-', "").parse::<UploadId>().is_err());
        let shouted = "01A1FBCA-310D-7286-A5CD-63F7CF1DADBD";
        assert!(shouted.parse::<UploadId>().is_err());
        assert!(shouted.to_lowercase().parse::<UploadId>().is_ok());
        assert!(format!("{{{id}}}").parse::<UploadId>().is_err());
        assert!("not-a-uuid".parse::<UploadId>().is_err());
    }
}
