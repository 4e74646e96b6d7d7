//! What the servers say of themselves while they are under load.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::meter::grown;
use crate::system;

/// Counters of the servers that a report shows, and what it calls them.
const SHOWN: [(&str, &str); 16] = [
    ("windrow_root_searches_total", "searches"),
    ("windrow_root_leaf_calls_total", "leaf calls"),
    ("windrow_root_hedges_total", "hedges"),
    ("windrow_root_hedges_won_total", "hedges won"),
    ("windrow_root_pings_total", "pings"),
    ("windrow_root_cancels_total", "cancels"),
    ("windrow_root_shed_total", "shed"),
    ("windrow_root_leaf_late_total", "late leaf calls"),
    ("windrow_root_retries_total", "retries"),
    ("windrow_leaf_shed_total", "shed by leaves"),
    ("windrow_pool_started_total", "leaf work started"),
    ("windrow_pool_late_total", "leaf work refused as late"),
    ("windrow_pool_expired_queued_total", "leaf work expired in a queue"),
    ("windrow_pool_expired_running_total", "leaf work expired while it ran"),
    ("windrow_pool_cancelled_work_microseconds_total", "leaf µs of cancelled work"),
    ("windrow_pool_cancel_to_stop_seconds_sum", "leaf seconds after a cancel"),
];
/// How long a server may take to tell its metrics.
const TELL_WITHIN: Duration = Duration::from_millis(800);

/// Servers whose counters and CPU time are read.
#[derive(Clone, Debug)]
pub struct Servers {
    http: crate::target::Plain,
    metrics: Vec<SocketAddr>,
    pids: BTreeSet<u32>,
}

/// What servers said at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub(crate) at: Instant,
    counters: BTreeMap<String, f64>,
    /// CPU time in seconds since they started.
    pub(crate) cpu: Option<f64>,
}

impl Sample {
    pub(crate) fn since(&self, then: &Self) -> impl Iterator<Item = (String, f64)> {
        grown(&self.counters, &then.counters).into_iter()
    }

    /// CPU time in seconds since the servers started, where they are local.
    #[must_use]
    pub fn cpu(&self) -> Option<f64> {
        self.cpu
    }
}

impl Servers {
    /// Finds every node of the cluster behind `client`, and where they are
    /// local their processes. A node whose listeners cannot be reached is not
    /// watched: a load does not need it.
    pub async fn of(client: &client::Client) -> Self {
        let mut addresses: BTreeSet<SocketAddr> = BTreeSet::new();
        let mut servers =
            Self { http: crate::target::Plain::new(), metrics: Vec::new(), pids: BTreeSet::new() };
        let nodes = tokio::time::timeout(Duration::from_secs(5), client.cluster()).await;
        let nodes = nodes.ok().and_then(Result::ok).map(|cluster| cluster.nodes).unwrap_or_default();
        for node in nodes {
            // The internal listener of `node`, the public one of `up`.
            for address in [node.internal, node.public].into_iter().flatten() {
                let Ok(address) = address.parse::<SocketAddr>() else { continue };
                if !addresses.insert(address) {
                    continue;
                }
                if local(address.ip()) {
                    servers.pids.extend(system::listens(address.port()));
                }
                if servers.scrape(address).await.is_some() {
                    servers.metrics.push(address);
                    break;
                }
            }
        }
        servers
    }

    /// Adds processes of this machine.
    #[must_use]
    pub fn with_processes(mut self, pids: impl IntoIterator<Item = u32>) -> Self {
        self.pids.extend(pids);
        self
    }

    /// Asks all, side by side.
    pub async fn sample(&self) -> Sample {
        let told = self.metrics.iter().map(|address| self.scrape(*address));
        let mut counters = BTreeMap::new();
        for more in futures::future::join_all(told).await.into_iter().flatten() {
            for (name, value) in more {
                *counters.entry(name).or_default() += value;
            }
        }
        let cpu: Vec<f64> = self.pids.iter().filter_map(|pid| system::cpu_of(*pid)).collect();
        let cpu = (!cpu.is_empty()).then(|| cpu.iter().sum());
        Sample { at: Instant::now(), counters, cpu }
    }

    async fn scrape(&self, address: SocketAddr) -> Option<BTreeMap<String, f64>> {
        let url = format!("http://{address}/metrics");
        let text = tokio::time::timeout(TELL_WITHIN, self.http.get(&url)).await.ok()?.ok()?;
        Some(counters(&String::from_utf8_lossy(&text)))
    }
}

fn local(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// The counters to show, of the Prometheus text format; labels are summed.
fn counters(text: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let bare = name.split('{').next().unwrap_or(name);
        let Some((_, shown)) = SHOWN.iter().find(|(known, _)| *known == bare) else { continue };
        if let Ok(value) = value.parse::<f64>() {
            *found.entry((*shown).to_owned()).or_default() += value;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_their_labels_summed() {
        let text = "# HELP x y\n# TYPE windrow_root_leaf_calls_total counter\n\
            windrow_root_leaf_calls_total{leaf=\"a b\"} 3\nwindrow_root_leaf_calls_total{leaf=\"c\"} 4\n\
            windrow_root_search_seconds_sum 1.5\nother 7\nwindrow_root_searches_total 9\n";
        let expected = [("leaf calls".to_owned(), 7.0), ("searches".to_owned(), 9.0)];
        assert_eq!(counters(text), expected.into());
    }
}
