//! `[rate_limits]`: how fast requests may come.

use serde::{Deserialize, Serialize};

use super::spaces::Limit;

/// `[rate_limits]`: how fast requests may come, where tokens are required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// How many uploads an address may create, in the long run.
    pub creations_per_minute: Limit,
    /// How many of them at once.
    pub creations_burst: u32,
    /// How many other requests of an address may change something.
    pub chunks_per_minute: Limit,
    /// How many of them at once.
    pub chunks_burst: u32,
    /// How many tokens of an address may be refused.
    pub failures_per_minute: Limit,
    /// How many of them at once.
    pub failures_burst: u32,
    /// How many uploads may be created with a token.
    pub token_creations_per_minute: Limit,
    /// How many of them at once.
    pub token_creations_burst: u32,
    /// How many other requests with a token may change something.
    pub token_chunks_per_minute: Limit,
    /// How many of them at once.
    pub token_chunks_burst: u32,
    /// How many addresses, and how many tokens, each limit tells apart.
    pub max_keys: usize,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            creations_per_minute: Limit::of(600),
            creations_burst: 100,
            chunks_per_minute: Limit::of(12_000),
            chunks_burst: 2000,
            failures_per_minute: Limit::of(30),
            failures_burst: 30,
            token_creations_per_minute: Limit::of(3000),
            token_creations_burst: 500,
            token_chunks_per_minute: Limit::of(60_000),
            token_chunks_burst: 10_000,
            max_keys: 100_000,
        }
    }
}

impl RateLimits {
    /// Each limit: the key of its rate, the rate, the key of its burst, and the burst.
    pub(super) fn each(&self) -> [(&'static str, Limit, &'static str, u32); 5] {
        [
            (
                "rate_limits.creations_per_minute",
                self.creations_per_minute,
                "rate_limits.creations_burst",
                self.creations_burst,
            ),
            (
                "rate_limits.chunks_per_minute",
                self.chunks_per_minute,
                "rate_limits.chunks_burst",
                self.chunks_burst,
            ),
            (
                "rate_limits.failures_per_minute",
                self.failures_per_minute,
                "rate_limits.failures_burst",
                self.failures_burst,
            ),
            (
                "rate_limits.token_creations_per_minute",
                self.token_creations_per_minute,
                "rate_limits.token_creations_burst",
                self.token_creations_burst,
            ),
            (
                "rate_limits.token_chunks_per_minute",
                self.token_chunks_per_minute,
                "rate_limits.token_chunks_burst",
                self.token_chunks_burst,
            ),
        ]
    }
}
