//! `up` on a folder of its own, a corpus that is there already, five queries.

use anyhow::Result;
use client::{Client, IndexRequest, SearchRequest};
use model::schema::{Field, FieldType, Schema};
use runtime::telemetry;

use crate::cli::Demo;
use crate::output::outln;
use crate::running::Running;
use crate::settings::Settings;
use crate::{corpus, crates, load, search};

/// The demo's index.
const INDEX: &str = "crates";
/// Requests in flight.
const IN_FLIGHT: usize = 4;

/// What each of the five queries shows.
const CRATES: [(&str, &str, Option<&str>); 5] = [
    ("a term", "backpressure", None),
    ("a phrase", "\"consistent hashing\"", None),
    ("a boolean", "(hedge OR hedging) AND latency -test", None),
    ("a filter", "spawn blocking", Some("crate:tokio AND extension:rs AND bytes:<20000")),
    ("a prefix", "path:sched* AND body:steal*", None),
];
const OTHERS: [(&str, &str, Option<&str>); 5] = [
    ("everything", "*", None),
    ("a term", "the", None),
    ("a phrase", "\"of the\"", None),
    ("a boolean", "(first OR last) AND one", None),
    ("a prefix", "con*", None),
];

pub(crate) async fn run(options: Demo) -> Result<()> {
    telemetry::logs(&options.log).map_err(|error| anyhow::anyhow!("failed to {error}"))?;
    let own = options.corpus.is_some();
    let (sources, size) = match &options.corpus {
        Some(path) => {
            corpus::check(std::slice::from_ref(path))?;
            (vec![(path.display().to_string(), corpus::open(path, None)?)], corpus::size(path))
        }
        None => {
            let (documents, size) = crates::documents(&crates::folders()?);
            (vec![("the Cargo registry".to_owned(), documents)], Some(size))
        }
    };
    let settings = Settings::up(&options.data, options.public, &options.log)?;
    let running = Running::open(settings).await?;
    running.ready().await?;
    let url = format!("http://{}", running.address);
    outln!("Windrow is up on {url} (data in {}).", options.data.display());
    let stopping = running.stopping();
    let index = if own { "demo" } else { INDEX };
    let shown = tokio::select! {
        () = stopping.requested() => Ok(()),
        shown = show(&url, index, own, sources, size) => shown,
    };
    if let Err(error) = shown {
        running.stop();
        let _drained = running.until_stopped().await;
        return Err(error);
    }
    if options.exit {
        running.stop();
    } else if !stopping.token().is_cancelled() {
        outln!();
        outln!("Go on:    windrow search {index} 'your query'{}", running.flag());
        outln!("          curl '{url}/v1/indexes/{index}/search?q=your+query&limit=3'");
        outln!("          or open {url}/ in a browser. Ctrl-C stops it.");
    }
    running.until_stopped().await
}

async fn show(
    url: &str,
    index: &str,
    own: bool,
    sources: Vec<(String, corpus::Documents)>,
    size: Option<u64>,
) -> Result<()> {
    let client = Client::new(url)?;
    if !own && !client.list_indexes().await?.iter().any(|known| known.name == index) {
        let request = IndexRequest { shards: Some(4), schema: Some(schema()), ..IndexRequest::default() };
        client.create_index(index, &request).await?;
    }
    outln!("Loading {}…", sources.first().map_or("nothing", |(name, _)| name.as_str()));
    let summary = load::send(&client, index, sources, size, IN_FLIGHT, &load::Observer(&|_, _| {})).await?;
    summary.print(index);
    let queries = if own { OTHERS } else { CRATES };
    for (what, query, filter) in queries {
        let mut request = SearchRequest::new(query).limit(3_usize);
        request.filter = filter.map(str::to_owned);
        // The first waits until all that was loaded can be found.
        request.token = summary.token.as_ref().map(model::token::Token::encode);
        outln!();
        let filtered = filter.map_or(String::new(), |filter| format!("   filter {filter}"));
        outln!("── {what}: {query}{filtered}");
        let answer = client.search(index, &request).await?;
        search::print(&answer, 0, &["version"]);
    }
    Ok(())
}

fn schema() -> Schema {
    let fields = [
        ("crate", FieldType::Keyword),
        ("version", FieldType::Keyword),
        ("path", FieldType::Text),
        ("extension", FieldType::Keyword),
        ("bytes", FieldType::I64),
        ("body", FieldType::Text),
    ];
    Schema {
        fields: fields.map(|(name, kind)| (name.into(), Field::of(kind))).into(),
        default_fields: vec!["body".into(), "path".into()],
        ..Schema::default()
    }
}
