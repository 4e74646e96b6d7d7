//! Searches and prints.

use std::io::IsTerminal;

use anyhow::Result;
use client::{Answer, Client, SearchRequest};
use serde_json::Value;

use crate::cli::{Output, Search};
use crate::output::outln;

/// Characters of a text that a result shows.
const SHOWN: usize = 160;

pub(crate) async fn run(options: Search) -> Result<()> {
    let client = Client::new(&options.server.url)?;
    let mut request = SearchRequest::new(options.query);
    request.filter = options.filter;
    request.limit = Some(options.limit);
    request.offset = Some(options.offset);
    request.count = options.count;
    request.fields = options.fields;
    request.min_coverage = options.min_coverage;
    request.profile = options.profile;
    match options.output {
        Output::Json => {
            let raw = client.search_raw(&options.index, &request).await?;
            outln!("{}", String::from_utf8_lossy(&raw));
        }
        Output::Text => {
            let answer = client.search(&options.index, &request).await?;
            print(&answer, options.offset, &[]);
            if let Some(profile) = &answer.profile {
                outln!("{}", serde_json::to_string_pretty(profile)?);
            }
        }
    }
    Ok(())
}

/// Prints hits with what a person recognises them by.
pub(crate) fn print(answer: &Answer, offset: usize, fields: &[&str]) {
    let (bold, dim, plain) =
        if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    for (rank, hit) in answer.hits.iter().enumerate() {
        let document: Value =
            hit.document.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or(Value::Null);
        outln!("{:>3}. {bold}{}{plain}  {dim}{:.3}{plain}", rank + 1 + offset, hit.id, hit.score);
        let title = document.get("title").and_then(Value::as_str);
        if let Some(title) = title {
            outln!("     {}", shown(title));
        }
        let texts = ["body", "text", "abstract", "content"];
        let body = texts.iter().find_map(|name| document.get(*name)).and_then(Value::as_str);
        if let Some(body) = body {
            outln!("     {dim}{}{plain}", shown(body));
        }
        for name in fields {
            if let Some(value) = document.get(*name) {
                outln!("     {dim}{name}: {value}{plain}");
            }
        }
    }
    let total = answer.total.map_or("hits not counted".to_owned(), |total| {
        let more = if total.relation == model::gather::Relation::Gte { "over " } else { "" };
        let noun = if total.value == 1 && more.is_empty() { "hit" } else { "hits" };
        format!("{more}{} {noun}", total.value)
    });
    outln!("{total} in {:.2} ms (cut {})", answer.took_us as f64 / 1e3, answer.cut);
    let coverage = &answer.coverage;
    if !coverage.missing.is_empty() {
        let each: Vec<String> = coverage
            .missing
            .iter()
            .map(|missing| format!("{} ({})", missing.shard, missing.reason))
            .collect();
        let share = coverage.documents * 100.0;
        outln!("of {share:.1} % of the documents: shards {} are missing", each.join(", "));
    }
}

fn shown(text: &str) -> String {
    let mut short: String =
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect();
    if short.len() < text.len() && short.chars().count() == SHOWN {
        short.push('…');
    }
    short
}
