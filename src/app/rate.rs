//! From `[rate_limits]` to what the layers are told.

use std::num::NonZeroU32;

use crate::api::rate::Settings;
use crate::api::rate::buckets::Rate;
use crate::config::{Config, Limit};

/// The limits, if there are to be any.
pub(super) fn rate_settings(config: &Config, enabled: bool) -> Settings {
    if !enabled {
        return Settings::default();
    }
    let limits = &config.rate_limits;
    Settings {
        creations: rate(limits.creations_per_minute, limits.creations_burst),
        chunks: rate(limits.chunks_per_minute, limits.chunks_burst),
        failures: rate(limits.failures_per_minute, limits.failures_burst),
        token_creations: rate(
            limits.token_creations_per_minute,
            limits.token_creations_burst,
        ),
        token_chunks: rate(limits.token_chunks_per_minute, limits.token_chunks_burst),
        max_keys: limits.max_keys,
    }
}

/// Loading the configuration has refused what is no rate.
fn rate(per_minute: Limit, burst: u32) -> Option<Rate> {
    let per_minute = u32::try_from(per_minute.0?).unwrap_or(u32::MAX);
    Some(Rate {
        per_minute: NonZeroU32::new(per_minute)?,
        burst: NonZeroU32::new(burst)?,
    })
}
