//! Signed links: whoever has one may read one object, until it expires.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::catalog::{CatalogError, Tokens};
use crate::model::token::LinkSecret;
use crate::model::{Timestamp, UploadId};

/// Signs and checks links. All servers over one catalog know each other's.
#[derive(Debug, Clone)]
pub struct Links(LinkSecret);

impl Links {
    /// With a secret of one's own.
    #[must_use]
    pub fn with(secret: LinkSecret) -> Self {
        Self(secret)
    }

    /// With the catalog's secret, made if there is none yet.
    pub async fn load(catalog: &dyn Tokens) -> Result<Self, CatalogError> {
        catalog.link_secret(LinkSecret::generate()).await.map(Self)
    }

    /// The query of a link to the content of an upload, good until then: `expires` in seconds of Unix time, and `signature`.
    #[must_use]
    pub fn sign(&self, upload: UploadId, expires_at: Timestamp) -> String {
        let expires = expires_at.0.div_euclid(1000);
        let signature = self.mac(upload, expires).finalize().into_bytes();
        format!(
            "expires={expires}&signature={}",
            URL_SAFE_NO_PAD.encode(signature)
        )
    }

    /// Whether a query has a signature for this upload that is still good. What else it has makes no difference.
    #[must_use]
    pub fn check(&self, upload: UploadId, query: &str, now: Timestamp) -> bool {
        let expires = one(query, "expires").and_then(|text| text.parse::<i64>().ok());
        let signature = one(query, "signature").and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let (Some(expires), Some(signature)) = (expires, signature) else {
            return false;
        };
        let genuine = self.mac(upload, expires).verify_slice(&signature).is_ok();
        genuine && now.0.div_euclid(1000) < expires
    }

    fn mac(&self, upload: UploadId, expires: i64) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0.0).expect("HMAC takes keys of any length");
        mac.update(b"jumar link");
        mac.update(upload.as_bytes());
        mac.update(&expires.to_be_bytes());
        mac
    }
}

/// The value of a name that stands in a query once.
fn one<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let mut values = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(found, _)| *found == name);
    let (_, value) = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Timestamp = Timestamp(10_000);
    const BEFORE: Timestamp = Timestamp(9_999);

    #[test]
    fn a_link_is_good_for_its_upload_until_it_expires() {
        let links = Links(LinkSecret::generate());
        let upload = UploadId::generate();
        let query = links.sign(upload, UNTIL);
        assert!(links.check(upload, &query, BEFORE));
        assert!(links.check(upload, &format!("a=b&{query}"), BEFORE));
        assert!(!links.check(upload, &query, UNTIL));
        assert!(!links.check(UploadId::generate(), &query, BEFORE));
        let strange = Links(LinkSecret::generate());
        assert!(!strange.check(upload, &query, BEFORE));
    }

    #[test]
    fn a_link_that_was_changed_is_good_for_nothing() {
        let links = Links(LinkSecret::generate());
        let upload = UploadId::generate();
        let query = links.sign(upload, UNTIL);
        let later = links.sign(upload, Timestamp(99_000));
        let cut = &query[..query.len() - 2];
        for wrong in [
            "",
            "expires=10",
            "signature=",
            "expires=10&signature=",
            cut,
            &query.replace("expires=10", "expires=99"),
            &format!("{query}&{later}"),
            &format!("expires=99&{query}"),
        ] {
            assert!(!links.check(upload, wrong, BEFORE), "{wrong}");
        }
    }
}
