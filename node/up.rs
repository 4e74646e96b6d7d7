//! Runs a node until it is stopped: `up` and `node`.

use anyhow::Result;
use runtime::telemetry;

use crate::cli;
use crate::output::outln;
use crate::running::Running;
use crate::settings::{self, Settings};

/// Runs all roles on one folder until Ctrl-C.
pub(crate) async fn run(options: cli::Up) -> Result<()> {
    settings::check_variables()?;
    telemetry::logs(&options.log).map_err(|error| anyhow::anyhow!("failed to {error}"))?;
    let running = Running::open(Settings::up(&options.data, options.public, &options.log)?).await?;
    running.ready().await?;
    let url = format!("http://{}", running.address);
    outln!("Windrow is up on {url} (data in {}).", options.data.display());
    outln!();
    outln!("  load     windrow load FILE.ndjson --index papers{}", running.flag());
    outln!("  search   windrow search papers 'neural AND title:graph*'{}", running.flag());
    outln!("  console  {url}/");
    outln!();
    outln!("Ctrl-C stops it; what was acknowledged is kept.");
    running.until_stopped().await
}

/// Runs one node of a cluster until SIGTERM.
pub(crate) async fn node(options: cli::Node) -> Result<()> {
    settings::check_variables()?;
    let options = settings::with_file(options.options, options.config.as_deref())?;
    let settings = Settings::node(options)?;
    telemetry::logs(&settings.log).map_err(|error| anyhow::anyhow!("failed to {error}"))?;
    tracing::info!(?settings, "starting");
    let running = Running::open(settings).await?;
    outln!("Node {} listens on http://{}.", running.node, running.address);
    running.until_stopped().await
}
