//! A signed token in its compact form, taken apart: what it says, before and after it is known who says it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Refused;
use super::claims::Claims;

/// A token that was read and not verified.
pub(super) struct Jws<'t> {
    pub(super) header: Header,
    pub(super) claims: Claims,
    /// What is signed.
    message: &'t str,
    signature: &'t str,
}

/// What a token says of its signature.
#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(rename = "alg")]
    algorithm: String,
    #[serde(rename = "kid", default)]
    pub(super) key_id: Option<String>,
    /// Extensions that a reader has to understand; we know none.
    #[serde(rename = "crit", default)]
    critical: Option<serde::de::IgnoredAny>,
}

impl Header {
    /// How it says that it is signed. `none` is no algorithm.
    pub(super) fn algorithm(&self) -> Result<Algorithm, Refused> {
        self.algorithm.parse().map_err(|_| Refused::WrongAlgorithm)
    }
}

impl<'t> Jws<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Self, Refused> {
        let (message, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Refused::Malformed)?;
        let header: Header = decode(header)?;
        if header.critical.is_some() {
            return Err(Refused::Malformed);
        }
        Ok(Self {
            header,
            claims: Claims(decode(payload)?),
            message,
            signature,
        })
    }

    /// Whether it was signed with this key and, whatever its header says, in this way.
    pub(super) fn verify(&self, key: &DecodingKey, algorithm: Algorithm) -> Result<(), Refused> {
        match crypto::verify(self.signature, self.message.as_bytes(), key, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Refused::BadSignature),
        }
    }
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, Refused> {
    let json = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Refused::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Refused::Malformed)
}
