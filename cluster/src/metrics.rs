//! Names of what a controller and a view count.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

/// 1 on the node that governs, 0 elsewhere.
pub const ELECTED: &str = "windrow_controller_elected";
/// Cuts published by this node.
pub const CUTS: &str = "windrow_controller_cuts_total";
/// Placements changed by this node.
pub const PLACED: &str = "windrow_controller_placements_total";
/// Replicas that are behind the newest generation of their shard, as the
/// controller sees it.
pub const BEHIND: &str = "windrow_controller_replicas_behind";
/// Nodes in this node's view.
pub const NODES: &str = "windrow_view_nodes";
/// Indexes that this node knows and cannot read.
pub const PENDING: &str = "windrow_view_indexes_pending";

/// A controller's handles.
pub(crate) struct Controlling {
    pub(crate) elected: Gauge,
    pub(crate) cuts: Counter,
    pub(crate) placed: Counter,
    pub(crate) behind: Gauge,
}

impl Controlling {
    pub(crate) fn new() -> Self {
        describe_gauge!(ELECTED, Unit::Count, "Whether this node governs");
        describe_counter!(CUTS, Unit::Count, "Cuts published by this node");
        describe_counter!(PLACED, Unit::Count, "Placements changed by this node");
        describe_gauge!(BEHIND, Unit::Count, "Replicas behind the newest generation of their shard");
        Self {
            elected: gauge!(ELECTED),
            cuts: counter!(CUTS),
            placed: counter!(PLACED),
            behind: gauge!(BEHIND),
        }
    }
}

/// A view's handles.
pub(crate) struct Viewing {
    pub(crate) nodes: Gauge,
    pub(crate) pending: Gauge,
}

impl Viewing {
    pub(crate) fn new() -> Self {
        describe_gauge!(NODES, Unit::Count, "Nodes in this node's view");
        describe_gauge!(PENDING, Unit::Count, "Indexes known and not readable");
        Self { nodes: gauge!(NODES), pending: gauge!(PENDING) }
    }
}
