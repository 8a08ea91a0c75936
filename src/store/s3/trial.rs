//! Trying a signed request, as a client would that has nothing but the request.

use std::time::Duration;

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use bytes::Bytes;

use super::S3Store;
use super::check::TEXT;
use super::error::store_error;
use super::requests::{wire_number, wire_size};
use crate::clock::Clock;
use crate::model::{Length, PartNumber, StoreKey};
use crate::store::check::{Finding, Outcome};
use crate::store::direct::{PartPlace, SignedRequest};
use crate::store::{About, Direct as _, MadeOf, Parts as _, Result, StoreError};

/// How long the trial's request is good for.
const TTL: Duration = Duration::from_mins(1);

/// Replaces a request by another one, after all that the SDK does to it: only its connection is used.
#[derive(Debug)]
struct Instead(SignedRequest);

impl Intercept for Instead {
    fn name(&self) -> &'static str {
        "Instead"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let request = context.request_mut();
        let sent: Vec<String> = request
            .headers()
            .iter()
            .map(|(name, _)| name.to_owned())
            .filter(|name| name != "content-length")
            .collect();
        for name in sent {
            request.headers_mut().remove(name);
        }
        for (name, value) in &self.0.headers {
            if name != "content-length" {
                request.headers_mut().insert(name.clone(), value.clone());
            }
        }
        request.set_uri(self.0.url.as_str())?;
        Ok(())
    }
}

impl S3Store {
    /// Whether a client can put a part with nothing but a signed request, and not a byte more than was signed.
    pub(super) async fn try_signed_part(&self, key: &StoreKey, about: &About) -> Finding {
        let outcome = match self.put_signed_part(key, about).await {
            Ok(Tried { exact: false, .. }) => Outcome::Without(
                "the store takes more bytes than were signed; such a part does not count, but it takes room until its upload ends"
                    .into(),
            ),
            Ok(Tried { mixes: true, .. }) => Outcome::Works(String::new()),
            Ok(Tried { mixes: false, .. }) => Outcome::Works(
                "not beside parts with a checksum, so uploads that have such parts go without".into(),
            ),
            Err(error) => Outcome::Without(format!("{error}; parts go through the server")),
        };
        Finding {
            what: "sign a request for a part",
            outcome,
        }
    }

    async fn put_signed_part(&self, key: &StoreKey, about: &About) -> Result<Tried> {
        let mixes = self.mixes().await?;
        let of = if mixes {
            MadeOf::Parts
        } else {
            MadeOf::Unchecked
        };
        let upload = self.begin(key, about, of).await?;
        let place = PartPlace {
            key,
            upload: &upload,
            number: PartNumber(1),
        };
        let size = Length(TEXT.len() as u64);
        let attempt = async {
            let now = Clock::system().now();
            let signed = self.sign_part(place, Some(size), None, now, TTL).await?;
            let more = Bytes::from([TEXT, b"!"].concat());
            let exact = match self.send_instead(&signed, place, more).await {
                Ok(()) => false,
                Err(StoreError::Refused(_) | StoreError::Changed(_)) => true,
                Err(error) => return Err(error),
            };
            self.send_instead(&signed, place, Bytes::from_static(TEXT))
                .await?;
            let found = self.parts_of(key, &upload, None, 2).await?;
            match found.as_slice() {
                [part] if part.number == place.number && part.size == size => {
                    Ok(Tried { exact, mixes })
                }
                _ => Err(StoreError::Changed(
                    "it lists another part than came".into(),
                )),
            }
        };
        let tried = attempt.await;
        let _ = self.abort(key, &upload).await;
        tried
    }

    async fn send_instead(
        &self,
        signed: &SignedRequest,
        place: PartPlace<'_>,
        bytes: Bytes,
    ) -> Result<()> {
        self.client
            .upload_part()
            .bucket(&self.config.bucket)
            .key(self.full(place.key))
            .upload_id(&place.upload.0)
            .part_number(wire_number(place.number))
            .content_length(wire_size(bytes.len() as u64))
            .body(bytes.into())
            .customize()
            .interceptor(Instead(signed.clone()))
            .send()
            .await
            .map_err(store_error)?;
        Ok(())
    }
}

/// How the trial went.
struct Tried {
    /// Whether no more bytes are taken than were signed.
    exact: bool,
    /// Whether it may join an upload whose other parts have checksums.
    mixes: bool,
}
