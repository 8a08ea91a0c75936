//! The log and the metrics.
//!
//! Owns how both are set up and what each metric means. Whoever does the work counts it, by these names.

mod log;
mod metrics;

pub use log::{LogError, check_filter, init_log};
pub use metrics::{Metrics, MetricsError};
