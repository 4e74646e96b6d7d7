//! Logs and metrics of the process.

use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Histograms gather raw samples until upkeep drains them; at 10,000 queries a
/// second this holds a few hundred kilobytes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Bounds of every histogram in seconds, from a queue's microseconds to a
/// timeout's half minute, three a decade.
const BUCKETS_SECONDS: [f64; 22] = [
    0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02,
    0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0,
];

/// Telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter does not parse.
    #[error("read the log filter {filter:?}: {reason}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something installed logs or metrics before.
    #[error("install telemetry: {0}")]
    Installed(String),
}

/// Sends logs to stderr, as `filter` says (`info,windrow=debug`).
///
/// # Errors
/// When the filter does not parse, or logs are installed already.
pub fn logs(filter: &str) -> Result<(), Error> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|error| Error::Filter { filter: filter.to_owned(), reason: error.to_string() })?;
    tracing_subscriber::fmt()
        .compact()
        .with_env_filter(parsed)
        // Colours are for people who watch, not for files.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|error| Error::Installed(error.to_string()))
}

/// The metrics of the process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder. Call it before anything caches a metric handle.
    ///
    /// # Errors
    /// When a recorder is installed already.
    pub fn install() -> Result<Self, Error> {
        PrometheusBuilder::new()
            .set_buckets(&BUCKETS_SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .map(Self)
            .map_err(|error| Error::Installed(error.to_string()))
    }

    /// The metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps histograms small until `token` is cancelled.
    pub async fn upkeep(self, token: CancellationToken) {
        while token.run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL)).await.is_some() {
            self.0.run_upkeep();
        }
    }
}
