//! Searches whose clients are gone: queued ones never start, running ones
//! stop. One test, for it reads the process's metrics.

use futures::FutureExt;
use model::gather::Count;
use model::ids::IndexName;
use model::query::{Group, Query};
use model::schema::{Field, FieldType, Operator, Schema};
use model::settings::Definition;
use proto::admin::Change;
use proto::search::{Request, Search};
use runtime::telemetry::Metrics;
use testkit::local::{Local, Transport, soon};

const SEARCHES: usize = 64;
const TERMS: usize = 300;
const DOCUMENTS: usize = 20_000;
const ROUNDS: usize = 200;

fn metric(metrics: &Metrics, name: &str) -> f64 {
    let text = metrics.render();
    let line = text.lines().find(|line| line.starts_with(name) && line.contains("leaf"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

#[tokio::test]
async fn searches_without_clients_never_start_or_stop() -> anyhow::Result<()> {
    let metrics = Metrics::install()?;
    let local = Local::start(store::Store::memory(), 1, Transport::Direct).await?;
    let schema = Schema {
        fields: [("body".into(), Field::of(FieldType::Text))].into(),
        default_operator: Operator::Or,
        ..Schema::default()
    };
    local.create("cancel", Definition { shards: 1, ..Definition::of(schema) }).await?;
    for part in 0..20 {
        let documents = (0..DOCUMENTS / 20).map(|number| {
            let id = part * DOCUMENTS + number;
            let words: Vec<String> =
                (0..60).map(|word| format!("w{}", (id * 7 + word * 11) % TERMS)).collect();
            Change::Upsert(format!("{{\"id\":\"{id}\",\"body\":\"{}\"}}", words.join(" ")).into())
        });
        let written = local.write("cancel", documents.collect()).await?;
        local.refresh("cancel", &written).await?;
    }
    let words = (0..TERMS).map(|word| Query::Word { field: None, text: format!("w{word}") });
    let query = Query::Group(Group { should: words.collect(), ..Group::default() });
    let index = IndexName::new("cancel")?;
    let request = || Request {
        fields: Some(Vec::new()),
        count: Count::Exact,
        ..Request::new(index.clone(), query.clone(), soon())
    };
    let before = metric(&metrics, "windrow_pool_started_total");

    // All are queued at once; the one thread takes them one by one.
    let mut searches: Vec<_> = (0..SEARCHES).map(|_| local.root.search(request())).collect();
    for search in &mut searches {
        assert!(search.now_or_never().is_none(), "a search of 300 terms takes a while");
    }
    while metric(&metrics, "windrow_pool_started_total") == before {
        tokio::task::yield_now().await;
    }
    // Their clients go away.
    drop(searches);
    let (mut started, mut never) = (0.0, 0.0);
    while started + never < SEARCHES as f64 {
        tokio::task::yield_now().await;
        started = metric(&metrics, "windrow_pool_started_total") - before;
        never = metric(&metrics, "windrow_pool_cancelled_queued_total");
    }
    // One after the other: how long each goes on.
    let stops = || metric(&metrics, "windrow_pool_cancelled_running_total");
    let took = || metric(&metrics, "windrow_pool_cancel_to_stop_seconds_sum");
    let completed = || metric(&metrics, "windrow_pool_completed_total");
    // The CPU time of all threads but this one.
    let others = || load::system::own_cpu() - load::system::thread_cpu();
    let (mut each, mut cpu) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    'rounds: for _ in 0..ROUNDS {
        let before = (metric(&metrics, "windrow_pool_started_total"), stops(), took(), completed());
        let mut search = Box::pin(local.root.search(request()));
        while metric(&metrics, "windrow_pool_started_total") == before.0 {
            if search.as_mut().now_or_never().is_some() {
                // This thread had to wait for so long.
                continue 'rounds;
            }
            tokio::task::yield_now().await;
        }
        let used = others();
        drop(search);
        // Unless it ended at that very moment.
        while stops() == before.1 && completed() == before.3 {
            tokio::task::yield_now().await;
        }
        if stops() > before.1 {
            each.push(took() - before.2);
            cpu.push(others() - used);
        }
    }
    each.sort_by(f64::total_cmp);
    cpu.sort_by(f64::total_cmp);
    assert!(each.len() > ROUNDS / 2, "only {} searches were stopped", each.len());
    let ms = |times: &[f64], part: usize| times[times.len() * part / 100] * 1e3;
    for (times, what) in [(&each, ""), (&cpu, " of CPU, this test's looking included,")] {
        let (median, p99) = (ms(times, 50), ms(times, 99));
        println!("a search stops after {median:.2} ms{what} at the median, {p99:.2} ms at p99");
    }
    local.leaves[0].close().await;
    let stopped = metric(&metrics, "windrow_pool_cancelled_running_total");
    let longest = metric(&metrics, "windrow_pool_cancel_to_stop_seconds_sum");
    println!(
        "{started} started, {never} never did, {stopped} stopped, after {:.2} ms together",
        longest * 1e3
    );
    assert!(never > SEARCHES as f64 / 2.0, "only {never} queued searches were dropped");
    Ok(())
}
