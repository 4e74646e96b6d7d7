//! Dependencies between our crates point down and never sideways.

use std::collections::{BTreeMap, BTreeSet};

/// What each crate may know of ours.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("model", &[]),
    ("runtime", &[]),
    ("proto", &["model", "runtime"]),
    ("store", &["model"]),
    ("cluster", &["model", "runtime", "proto", "store"]),
    ("client", &["model", "proto"]),
    ("leaf", &["model", "runtime", "proto", "store", "cluster"]),
    ("root", &["model", "runtime", "proto", "store", "cluster"]),
    ("edge", &["model", "runtime", "proto"]),
    ("testkit", &["model", "runtime", "proto", "store", "cluster", "client", "leaf", "root", "load"]),
    ("cache", &["model", "runtime", "proto", "cluster"]),
    ("load", &["runtime", "proto", "client"]),
    (
        "windrow",
        &[
            "model", "runtime", "proto", "store", "cluster", "client", "leaf", "root", "edge", "load",
            "testkit",
        ],
    ),
];

/// Crates of others that only some of ours may know.
const WALLS: [(&str, &[&str]); 4] = [
    ("tantivy", &["leaf"]),
    ("object_store", &["store"]),
    // cluster speaks etcd's own API, beside our contracts.
    ("prost", &["proto", "cluster"]),
    ("axum", &["edge", "windrow"]),
];

#[test]
fn dependencies_point_down_and_never_sideways() {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec().unwrap();
    let ours: BTreeSet<String> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    for package in &metadata.packages {
        let short = package.name.strip_prefix("windrow-").unwrap_or(&package.name).to_owned();
        let may = allowed
            .get(short.as_str())
            .unwrap_or_else(|| panic!("{short} has no place in the house: give it one here"));
        for dependency in &package.dependencies {
            // Tests and builds may know more.
            if dependency.kind != cargo_metadata::DependencyKind::Normal {
                continue;
            }
            if ours.contains(&dependency.name) {
                let name = dependency.name.strip_prefix("windrow-").unwrap_or(&dependency.name);
                assert!(may.contains(&name), "{short} must not know {name}");
            }
            for (wall, inside) in WALLS {
                let outside = !inside.contains(&short.as_str()) && short != "testkit";
                assert!(dependency.name != wall || !outside, "{short} must not know {wall}");
            }
        }
    }
}
