//! The metrics: their names, what they mean, and how they are shown.

use std::sync::OnceLock;

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// From a quick answer to a long body, in seconds.
const REQUEST_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0,
];
/// From one small object to the assembly of a large one, in seconds.
const COMPLETE_BUCKETS: [f64; 12] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
];
/// One call to the store, in seconds.
const STORE_BUCKETS: [f64; 13] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];
/// One commit to a local database, in seconds.
const COMMIT_BUCKETS: [f64; 11] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
];

/// The metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The exporter was not to be had.
    #[error("the metrics cannot be set up: {0}")]
    Exporter(#[from] metrics_exporter_prometheus::BuildError),
}

/// Shows the metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

static INSTALLED: OnceLock<Metrics> = OnceLock::new();

impl Metrics {
    /// Starts counting. A process counts once, however many servers it has: later calls give the first one's metrics.
    pub fn install() -> Result<Self, MetricsError> {
        if let Some(installed) = INSTALLED.get() {
            return Ok(installed.clone());
        }
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(name("jumar_request_duration_seconds"), &REQUEST_BUCKETS)?
            .set_buckets_for_metric(name("jumar_complete_duration_seconds"), &COMPLETE_BUCKETS)?
            .set_buckets_for_metric(name("jumar_store_call_duration_seconds"), &STORE_BUCKETS)?
            .set_buckets_for_metric(
                name("jumar_catalog_commit_duration_seconds"),
                &COMMIT_BUCKETS,
            )?
            .build_recorder();
        let made = Self(recorder.handle());
        // Whoever comes second in a race keeps what the first installed.
        let winner = INSTALLED.get_or_init(|| {
            if ::metrics::set_global_recorder(recorder).is_ok() {
                describe();
            }
            made
        });
        Ok(winner.clone())
    }

    /// The metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }

    /// Empties what histograms have buffered, so that a process that nobody scrapes stays small. To be called now and then.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn name(name: &str) -> Matcher {
    Matcher::Full(name.to_owned())
}

fn describe() {
    describe_counter!(
        "jumar_received_bytes_total",
        Unit::Bytes,
        "Bytes of bodies that arrived, by protocol"
    );
    describe_counter!(
        "jumar_uploads_total",
        "Uploads that were created, completed, failed, aborted or expired, by protocol"
    );
    describe_histogram!(
        "jumar_request_duration_seconds",
        Unit::Seconds,
        "From a request's head to its answer's, by route and status"
    );
    describe_histogram!(
        "jumar_complete_duration_seconds",
        Unit::Seconds,
        "Making the object of an upload"
    );
    describe_histogram!(
        "jumar_store_call_duration_seconds",
        Unit::Seconds,
        "Calls to the store, by call and outcome"
    );
    describe_histogram!(
        "jumar_catalog_commit_duration_seconds",
        Unit::Seconds,
        "Commits of the catalog"
    );
    describe_gauge!(
        "jumar_memory_budget_bytes",
        Unit::Bytes,
        "Memory for bodies, by state: used or free"
    );
    describe_gauge!(
        "jumar_spool_bytes",
        Unit::Bytes,
        "What the spool holds on this node's disk"
    );
    describe_counter!(
        "jumar_displaced_total",
        "Writers that a newer request took over from"
    );
    // Seen from the start, so that the first is seen as a rise.
    ::metrics::counter!("jumar_displaced_total").absolute(0);
    describe_counter!(
        "jumar_rate_limited_total",
        "Requests that came too fast, by the limit that refused them"
    );
    describe_counter!("jumar_pruned_total", "What pruning removed or met, by kind");
    describe_gauge!("jumar_open_uploads", "Uploads that can still change");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets_and_names_are_described() {
        let metrics = Metrics::install().expect("the first to install");
        ::metrics::histogram!("jumar_request_duration_seconds", "route" => "/x", "status" => "200")
            .record(0.02);
        let text = metrics.render();
        assert!(
            text.contains(
                r#"jumar_request_duration_seconds_bucket{route="/x",status="200",le="0.025"}"#
            ),
            "{text}"
        );
        assert!(
            text.contains("# HELP jumar_request_duration_seconds "),
            "{text}"
        );
    }
}
