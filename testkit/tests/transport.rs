//! What a leaf answers, called as the trait that it is and over sockets: the
//! same values, the same errors.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use model::gather::Count;
use model::ids::{Generation, IndexName, IndexUid, NodeId, ShardId};
use model::plan::Node;
use model::schema::{Field, FieldType, Schema};
use model::settings::Definition;
use proto::Kind;
use proto::admin::{Admin as _, Change, Operation};
use proto::internal::{Remote, connect};
use proto::leaf::{Fetch, Leaf, Search, ShardAt, ShardWrite, StatisticsFrom, StatisticsRequest};
use proto::search::{Request, Search as _};
use runtime::{Deadline, Shutdown, TaskScope};
use testkit::local::{Local, Transport, soon};
use testkit::processes::{Link, Proxy};

fn search(uid: &IndexUid, shards: &[ShardAt], query: Node) -> Search {
    Search {
        uid: uid.clone(),
        shards: shards.to_vec(),
        query: Arc::new(query),
        filter: None,
        statistics: StatisticsFrom::TheseShards,
        limit: 10,
        count: Count::Bounded(7),
        inline_from: Some(1),
        deadline: soon(),
        profile: true,
    }
}

/// Everything that a leaf answers, as text.
async fn answers(transport: Transport) -> Result<Vec<String>> {
    let local = Local::start(store::Store::memory(), 1, transport).await?;
    let field = Field::of(FieldType::Text);
    let schema = Schema { fields: [("body".into(), field)].into(), ..Schema::default() };
    let definition = Definition { shards: 2, refresh_interval_ms: 3_600_000, ..Definition::of(schema) };
    let uid = local.create("index", definition).await?.uid.clone();
    let documents = (0..20).map(|n| format!("{{\"id\":\"d{n}\",\"body\":\"hay row {}\"}}", n % 3));
    let written = local.write("index", documents.map(|text| Change::Upsert(text.into())).collect()).await?;
    local.refresh("index", &written).await?;
    let leaf = local.called(0)?;
    let index = local.index("index")?;
    let shards: Vec<ShardAt> = index.shards().collect();
    // The uid is drawn, and so differs from run to run.
    let text = |text: String| text.replace(uid.as_str(), "UID");
    let mut all = Vec::new();

    let bound = model::plan::bind(
        &model::query::parse("hay row 1", &model::query::Limits::default())?,
        &index.definition.schema,
    )?;
    let mut found = leaf.search(search(&uid, &shards, bound.clone())).await?;
    assert!(found.load.take().is_some());
    if let Some(profile) = &mut found.profile {
        (profile.queue_us, profile.search_us) = (0, 0);
    }
    all.push(text(format!("{found:?}")));
    let terms: Vec<_> = {
        let mut terms = std::collections::BTreeSet::new();
        bound.scored_terms(&mut |field, text| {
            terms.insert(model::plan::TextTerm { field: field.clone(), text: text.clone() });
        });
        terms.into_iter().collect()
    };
    let request = StatisticsRequest { uid: uid.clone(), shards: shards.clone(), terms, deadline: soon() };
    all.push(format!("{:?}", leaf.statistics(request).await?));
    let wanted = found.hits.iter().map(|hit| {
        (*shards.iter().find(|at| at.shard == hit.shard).expect("a hit has a shard"), hit.address)
    });
    let fetch = Fetch { uid: uid.clone(), documents: wanted.collect(), deadline: soon() };
    all.push(format!("{:?}", leaf.fetch(fetch).await?));
    let shard = model::ids::shard_of("d3", 2);
    let at = *shards.iter().find(|at| at.shard == shard).expect("a shard");
    all.push(format!("{:?}", leaf.get(&uid, at, "d3", soon()).await?));
    all.push(format!("{:?}", leaf.get(&uid, at, "none", soon()).await?));
    let mut held = leaf.held().await?;
    held.sort_by_key(|held| held.shard);
    all.push(text(format!("{held:?}")));
    leaf.follow(&uid, at, soon()).await?;

    // Errors, with what they carry.
    let gone = ShardAt { generation: Generation(99), ..at };
    let error = leaf.search(search(&uid, &[gone], bound.clone())).await.expect_err("it is not open");
    assert_eq!((error.kind, error.newest.as_slice()), (Kind::Gone, &[(at.shard, at.generation)][..]));
    all.push(text(error.to_string()));
    let stranger = IndexUid::from_bits(7);
    let write = |uid: &IndexUid, deadline| ShardWrite {
        uid: uid.clone(),
        shard: ShardId(0),
        operations: vec![Operation::Delete { id: "d1".into() }],
        deadline,
    };
    let error = leaf.write(write(&stranger, soon())).await.expect_err("nobody owns it");
    assert_eq!((error.kind, error.retry_after), (Kind::Gone, Some(Duration::from_millis(200))));
    all.push(error.to_string());
    let error = leaf.nudge(&stranger, ShardId(0)).await.expect_err("nobody owns it");
    all.push(error.to_string());
    let late = Search { deadline: Deadline::after(Duration::ZERO), ..search(&uid, &shards, bound) };
    assert_eq!(leaf.search(late).await.expect_err("it is late").kind, Kind::Expired);
    all.push(format!("{:?}", leaf.write(write(&uid, soon())).await?));
    drop(leaf);
    local.close().await?;
    Ok(all)
}

#[tokio::test]
async fn sockets_change_nothing() -> Result<()> {
    let (direct, tcp) = (answers(Transport::Direct).await?, answers(Transport::Tcp).await?);
    assert_eq!(direct, tcp);
    Ok(())
}

#[tokio::test]
async fn a_write_that_may_have_arrived_is_unknown_and_one_that_was_never_sent_is_not() -> Result<()> {
    let write = || ShardWrite {
        uid: IndexUid::from_bits(7),
        shard: ShardId(0),
        operations: Vec::new(),
        deadline: Deadline::after(Duration::from_millis(300)),
    };
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let dead = Remote::new(NodeId("dead".into()), connect(&closed.to_string())?);
    assert_eq!(dead.write(write()).await.expect_err("nobody listens").kind, Kind::Gone);
    let error = dead.held().await.expect_err("nobody listens");
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("dead cannot be reached"), "{error}");

    let scope = TaskScope::new(&Shutdown::new());
    let local = Local::start(store::Store::memory(), 1, Transport::Tcp).await?;
    let proxy = Proxy::start(local.address(0)?, &scope).await?;
    let cut = Remote::new(NodeId("cut".into()), connect(&proxy.address().to_string())?);
    assert_eq!(cut.write(write()).await.expect_err("it owns nothing").kind, Kind::Gone);
    proxy.set(Link::Cut);
    let error = cut.write(write()).await.expect_err("nothing comes back");
    assert_eq!(error.kind, Kind::Expired, "it may have arrived: {error}");
    proxy.set(Link::Broken);
    let error = cut.write(write()).await.expect_err("nothing comes back");
    assert!(matches!(error.kind, Kind::Expired | Kind::Gone), "{error}");
    local.close().await
}

#[tokio::test]
async fn much_is_written_in_parts_and_an_answer_that_is_too_large_says_so() -> Result<()> {
    const EACH: usize = 2 << 20;
    let local = Local::start(store::Store::memory(), 1, Transport::Tcp).await?;
    let schema = Schema { fields: [("body".into(), Field::of(FieldType::Text))].into(), ..Schema::default() };
    local.create("large", Definition { shards: 1, ..Definition::of(schema) }).await?;
    // Nine times what a record of the log holds, and one that fills it alone.
    let blob = "x".repeat(EACH);
    let document = |id: &str, blob: &str| {
        Change::Upsert(format!("{{\"id\":\"{id}\",\"body\":\"hay\",\"blob\":\"{blob}\"}}").into())
    };
    let mut changes: Vec<Change> = (0..70).map(|n| document(&format!("d{n}"), &blob)).collect();
    changes.push(document("full", &"x".repeat(16 << 20)));
    // What comes later replaces what was before, over parts too.
    changes.push(document("d0", "new"));
    changes.push(Change::Delete("full".into()));
    let written = local.write("large", changes).await?;
    assert_eq!(written.accepted, 73);
    local.refresh("large", &written).await?;
    let ask = async |limit| {
        let query = model::query::parse("body:hay", &model::query::Limits::default())?;
        let usual = Request::new(IndexName::new("large")?, query, soon());
        anyhow::Ok(local.root.search(Request { limit, count: Count::Exact, ..usual }).await)
    };
    let few = ask(2).await??;
    assert_eq!((few.hits.len(), few.total.map(|total| total.value)), (2, Some(70)));
    let error = ask(70).await?.expect_err("so many exceed a message");
    assert_eq!(error.kind, Kind::TooLarge, "{error}");
    assert!(error.message.contains("ask for fewer documents"), "{error}");
    let found = local.root.get(&IndexName::new("large")?, "d0", None, soon()).await?;
    assert_eq!(
        found.map(|document| document.source.len()),
        Some(r#"{"id":"d0","body":"hay","blob":"new"}"#.len())
    );
    local.close().await
}
