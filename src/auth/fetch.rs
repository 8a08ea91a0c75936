//! Getting the keys of an application from a URL.

use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::jwks::KeysError;

/// The most that a set of keys may have.
pub(super) const MAX_KEYS_BYTES: usize = 1 << 20;

/// Why nothing came from a URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the URL cannot be read")]
    Url,
    #[error("the system's root certificates cannot be read: {0}")]
    Roots(std::io::Error),
    #[error("it took longer than {0:?}")]
    Slow(Duration),
    #[error("no connection, or no answer")]
    Away(#[source] hyper_util::client::legacy::Error),
    #[error("the answer has the status {0}")]
    Status(StatusCode),
    #[error("the answer breaks off, or is longer than {MAX_KEYS_BYTES} bytes")]
    Body,
}

enum Http {
    Plain(Client<HttpConnector, Empty<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>),
}

/// Asks one URL. Redirects are not followed.
pub(super) struct Fetcher {
    http: Http,
    url: Uri,
    timeout: Duration,
}

impl Fetcher {
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, KeysError> {
        let url: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let builder = Client::builder(TokioExecutor::new());
        let http = if url.scheme_str() == Some("https") {
            let connector = HttpsConnectorBuilder::new()
                .with_native_roots()
                .map_err(FetchError::Roots)?
                .https_only()
                .enable_http1()
                .build();
            Http::Tls(builder.build(connector))
        } else {
            Http::Plain(builder.build(HttpConnector::new()))
        };
        Ok(Self { http, url, timeout })
    }

    pub(super) async fn fetch(&self) -> Result<Bytes, FetchError> {
        tokio::time::timeout(self.timeout, self.ask())
            .await
            .unwrap_or(Err(FetchError::Slow(self.timeout)))
    }

    async fn ask(&self) -> Result<Bytes, FetchError> {
        let url = self.url.clone();
        let answer = match &self.http {
            Http::Plain(client) => client.get(url).await,
            Http::Tls(client) => client.get(url).await,
        };
        let answer = answer.map_err(FetchError::Away)?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_KEYS_BYTES);
        let read = body.collect().await.map_err(|_| FetchError::Body)?;
        Ok(read.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_can_be_made_for_both_schemes() {
        for url in ["http://127.0.0.1/keys", "https://id.example/keys"] {
            let made = Fetcher::new(url, Duration::from_secs(1));
            assert!(made.is_ok(), "{url}: {:?}", made.err());
        }
    }
}
