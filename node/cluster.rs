//! Shows the cluster: nodes, shards, owners, replicas, cuts, lag.

use anyhow::Result;
use client::{Client, Cluster, Shard};

use crate::cli::{self, Output};
use crate::output::{out, outln};

pub(crate) async fn run(options: cli::Cluster) -> Result<()> {
    let client = Client::new(&options.server.url)?;
    let cluster = client.cluster().await?;
    match options.output {
        Output::Json => outln!("{}", serde_json::to_string_pretty(&cluster)?),
        Output::Text => out!("{}", text(&cluster)),
    }
    Ok(())
}

/// The whole state as text for people.
fn text(cluster: &Cluster) -> String {
    let mut nodes = Table::new(&["NODE", "ROLES", "ZONE", "PUBLIC", "INTERNAL", "STATE"]);
    for node in &cluster.nodes {
        let mut state = vec![if node.draining { "leaving" } else { "live" }];
        if cluster.controller.as_ref() == Some(&node.node) {
            state.push("controller");
        }
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        nodes.row([
            node.node.clone(),
            node.roles.join(","),
            or_none(&node.zone),
            or_none(&node.public),
            or_none(&node.internal),
            state.join(", "),
        ]);
    }
    let mut text = nodes.print();
    if cluster.controller.is_none() {
        text.push_str("\nNo controller is elected: cuts stand still.\n");
    }
    for index in &cluster.indexes {
        let of = &index.index;
        text.push_str(&format!(
            "\n{}: {} documents, cut {}, {} shards in {} {}\n",
            of.name,
            of.documents,
            of.cut,
            of.shards,
            of.copies,
            if of.copies == 1 { "copy" } else { "copies" }
        ));
        let mut shards = Table::new(&["SHARD", "OWNER", "GENERATION", "SEQ", "DOCUMENTS", "REPLICAS"]);
        for shard in &index.shards {
            shards.row([
                shard.shard.to_string(),
                shard.owner.clone().unwrap_or_else(|| "none".to_owned()),
                shard.generation.to_string(),
                shard.seq.to_string(),
                shard.documents.to_string(),
                replicas(shard),
            ]);
        }
        text.push_str(&shards.print());
    }
    if cluster.indexes.is_empty() {
        text.push_str("\nThere are no indexes yet.\n");
    }
    text
}

/// Each replica with how far it is from the newest cut.
fn replicas(shard: &Shard) -> String {
    let each = |replica: &client::Replica| {
        let state = match replica.generation {
            _ if !replica.live => " (gone)".to_owned(),
            None => " (opening)".to_owned(),
            Some(newest) if newest < shard.generation => format!(" (-{})", shard.generation - newest),
            Some(_) => String::new(),
        };
        format!("{}{state}", replica.node)
    };
    let all: Vec<String> = shard.replicas.iter().map(each).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(" ") }
}

/// Columns as wide as what is in them.
struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    fn new(head: &[&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)] }
    }

    fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    fn print(&self) -> String {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_and_absence_are_shown() {
        let cluster: Cluster = serde_json::from_str(
            r#"{"nodes": [{"node": "a", "roles": ["root", "own"], "public": "x:1", "zone": "z"}], "controller": "a",
                "indexes": [{"index": {"name": "i", "uid": "u", "documents": 3, "cut": 7, "shards": 1, "copies": 4,
                  "refresh_interval": "1s", "min_coverage": 1.0, "max_stale": "0s", "schema": {"fields": {}}},
                "shards": [{"shard": 0, "owner": null, "generation": 5, "seq": 9, "documents": 3, "replicas": [
                  {"node": "a", "live": true, "generation": 6}, {"node": "b", "live": true, "generation": 3},
                  {"node": "c", "live": false, "generation": null}, {"node": "d", "live": true, "generation": null}]}]}]}"#,
        )
        .unwrap();
        let text = text(&cluster);
        assert!(text.contains("a b (-2) c (gone) d (opening)"), "{text}");
        assert!(text.contains("live, controller") && text.contains("none"), "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    }
}
