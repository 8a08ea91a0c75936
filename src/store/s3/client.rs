//! How the bucket is reached: the configuration, and the SDK's client made from it.

use std::fmt;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};

use super::checksum::ChecksumMode;

/// Which bucket, and how it is talked to.
#[derive(Clone)]
pub struct S3Config {
    /// The bucket's name.
    pub bucket: String,
    /// The server's URL; `None` for AWS.
    pub endpoint: Option<String>,
    /// The region; `None` to ask the environment, or `us-east-1` at an endpoint of one's own.
    pub region: Option<String>,
    /// A folder in the bucket for everything of ours; empty for none.
    pub prefix: String,
    /// The bucket in the path, not in the host's name.
    pub force_path_style: bool,
    /// The key's id; `None` to ask the environment.
    pub access_key_id: Option<String>,
    /// The key's secret.
    pub secret_access_key: Option<String>,
    /// Which checksum goes with the bytes.
    pub checksum: ChecksumMode,
    /// Whether all parts but the last have to be of one size.
    pub equal_parts: bool,
    /// How the store encrypts what it keeps.
    pub sse: Sse,
    /// How long one attempt may take before its body's size is counted.
    pub attempt_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How often a call is tried, the first time included.
    pub max_attempts: u32,
    /// The longest that is waited before a call is tried for the second time; it doubles from then on.
    pub first_backoff: Duration,
    /// Whoever moves bodies at this rate is given the time for it.
    pub slowest_bytes_per_sec: u64,
}

/// Encryption on the store's side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sse {
    /// As the bucket does by itself.
    #[default]
    None,
    /// With the store's own keys.
    Aes256,
    /// With a key of its key service.
    Kms {
        /// The key; `None` for the account's own.
        key_id: Option<String>,
    },
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            endpoint: None,
            region: None,
            prefix: String::new(),
            force_path_style: false,
            access_key_id: None,
            secret_access_key: None,
            checksum: ChecksumMode::Auto,
            equal_parts: false,
            sse: Sse::None,
            attempt_timeout: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(5),
            max_attempts: 4,
            first_backoff: Duration::from_secs(1),
            slowest_bytes_per_sec: 256 * 1024,
        }
    }
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("prefix", &self.prefix)
            .field("checksum", &self.checksum)
            .finish_non_exhaustive()
    }
}

impl S3Config {
    /// How long one attempt to move that many bytes may take.
    pub(super) fn attempt_timeout_for(&self, bytes: u64) -> Duration {
        self.attempt_timeout + Duration::from_secs(bytes / self.slowest_bytes_per_sec.max(1))
    }

    /// The timeouts of a call that sends that many bytes, or that the store works on for that much longer.
    pub(super) fn timeouts(&self, attempt: Duration) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect_timeout)
            .read_timeout(attempt)
            .operation_attempt_timeout(attempt)
            .operation_timeout(attempt.saturating_mul(self.max_attempts.max(1)))
            .build()
    }
}

/// Builds the client. Asks nobody where endpoint or region, and the credentials, are given.
pub(super) async fn build(config: &S3Config) -> Client {
    let region = config
        .region
        .clone()
        .or_else(|| config.endpoint.is_some().then(|| String::from("us-east-1")));
    let given = config
        .access_key_id
        .as_ref()
        .zip(config.secret_access_key.as_ref());
    let mut builder = if let Some((id, secret)) = given {
        let credentials = Credentials::new(id, secret, None, None, "configuration");
        aws_sdk_s3::config::Builder::new().credentials_provider(credentials)
    } else {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = region.clone() {
            loader = loader.region(Region::new(region));
        }
        aws_sdk_s3::config::Builder::from(&loader.load().await)
    };
    if let Some(region) = region {
        builder = builder.region(Region::new(region));
    } else if given.is_some() {
        let region = aws_config::defaults(BehaviorVersion::latest()).load().await;
        builder = builder.region(region.region().cloned());
    }
    if let Some(endpoint) = &config.endpoint {
        // How much is retried is limited in all, which is of one server and not of all that this process talks to.
        builder = builder
            .endpoint_url(endpoint)
            .retry_partition(RetryPartition::new(endpoint.clone()));
    }
    let retries = RetryConfig::standard()
        .with_max_attempts(config.max_attempts.max(1))
        .with_initial_backoff(config.first_backoff);
    Client::from_conf(
        builder
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .force_path_style(config.force_path_style)
            // Newer defaults add checksums that many stores refuse, and hash every body for it.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // It cuts stores that are merely slow.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .retry_config(retries)
            .timeout_config(config.timeouts(config.attempt_timeout))
            .build(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_the_secret_does_not_print() {
        let config = S3Config {
            access_key_id: Some("the-id".into()),
            secret_access_key: Some("the-secret".into()),
            ..S3Config::default()
        };
        let text = format!("{config:?}");
        assert!(
            !text.contains("the-secret") && !text.contains("the-id"),
            "{text}"
        );
    }
}
