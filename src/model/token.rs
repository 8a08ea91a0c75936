//! What tokens and signed links are made of, and what they are called.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::caller::TokenId;
use super::handle::{KeyHash, correlation_id, random};

/// The secret of a service: 32 random bytes. Never logged, never stored.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// What its text begins with, so that it is known from other tokens, and found where it should not lie about.
    pub const PREFIX: &str = "jumar_";

    /// A new key from the system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(random())
    }

    /// The form that a service is given and sends.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}{}", Self::PREFIX, URL_SAFE_NO_PAD.encode(self.0))
    }

    /// The form that the catalog keeps.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The text is no API key.
#[derive(Debug, thiserror::Error)]
#[error("not an API key")]
pub struct InvalidApiKey;

impl FromStr for ApiKey {
    type Err = InvalidApiKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text
            .strip_prefix(Self::PREFIX)
            .and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok())
            .ok_or(InvalidApiKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidApiKey)
    }
}

/// What links are signed with. Never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkSecret(pub [u8; 32]);

impl LinkSecret {
    /// A new secret from the system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(random())
    }
}

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSecret(…)")
    }
}

impl TokenId {
    /// A new name that no other token has.
    #[must_use]
    pub fn generate() -> Self {
        correlation_id().parse().expect("hex is visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_keys_and_secrets_do_not_print() {
        let key = ApiKey::generate();
        assert_eq!(format!("{key:?}"), "ApiKey(…)");
        assert_eq!(format!("{:?}", LinkSecret([7; 32])), "LinkSecret(…)");
    }

    #[test]
    fn an_api_key_comes_back_from_its_text_and_no_other() {
        let key = ApiKey::generate();
        let text = key.reveal();
        assert_eq!(text.parse::<ApiKey>().expect("its own").hash(), key.hash());
        assert_ne!(ApiKey::generate().hash(), key.hash());
        let wrong = ["", "jumar_", &text[6..], &text[..48], &format!("{text}A")];
        for wrong in wrong {
            assert!(wrong.parse::<ApiKey>().is_err(), "{wrong:?}");
        }
    }
}
