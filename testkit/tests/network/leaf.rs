//! A leaf that answers by script, behind the real internal service.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use model::ids::{IndexUid, Seq, ShardId};
use model::plan::{FieldName, Node};
use model::statistics::Statistics;
use proto::controller::{Controller, Held, Report};
use proto::leaf::{Fetch, Found, Leaf, Load, Search, ShardAt, ShardWrite, StatisticsFrom, StatisticsRequest};
use proto::search::Document;
use proto::{Error, internal};
use runtime::Deadline;
use tokio::task::JoinSet;
use turmoil::net::TcpListener;

use crate::corpus;
use crate::hosts::{PORT, name};
use crate::log::{How, Log};

/// How long a leaf takes for what is not a search.
const SMALL_CALL: Duration = Duration::from_millis(1);
/// As `edge` serves the internal listener.
const STREAMS_MAX: u32 = 256;
/// As `edge` serves the internal listener.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Runs a leaf's host.
pub(crate) async fn serve(leaf: usize, log: Log) -> turmoil::Result {
    if log.is_away(leaf) {
        // Nobody listens: who connects is refused.
        return std::future::pending().await;
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let scripted = Arc::new(Scripted { leaf, log });
    let router = internal::routes(Some(scripted), Arc::new(NoController), &internal::Settings::default());
    let router = router.into_axum_router();
    let mut http = Builder::new(TokioExecutor::new());
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let http = Arc::new(http);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let (http, service) = (http.clone(), TowerToHyperService::new(router.clone()));
        connections.spawn(async move {
            // It ends with the network's trouble, which is what this is about.
            let _ended = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

struct Scripted {
    leaf: usize,
    log: Log,
}

impl Scripted {
    /// Takes its time, within the deadline, as a leaf must.
    async fn work(
        &self,
        call: &'static str,
        query: String,
        deadline: Deadline,
        time: Duration,
    ) -> Result<(), Error> {
        let running = self.log.begin(self.leaf, call, query, deadline.remaining());
        match tokio::time::timeout_at(deadline.instant(), tokio::time::sleep(time)).await {
            Ok(()) => {
                running.end(How::Answered);
                Ok(())
            }
            Err(_) => {
                running.end(How::Expired);
                Err(Error::expired("the call did not end within its timeout"))
            }
        }
    }
}

fn check(shards: &[ShardAt]) {
    assert!(shards.iter().all(|at| at.generation == corpus::GENERATION), "{shards:?}");
}

fn only_term(query: &Node) -> (FieldName, String) {
    let mut terms = Vec::new();
    query.scored_terms(&mut |field, text| terms.push((field.clone(), text.to_string())));
    assert_eq!(terms.len(), 1, "the tests search for one term: {terms:?}");
    terms.remove(0)
}

#[async_trait]
impl Leaf for Scripted {
    async fn search(&self, search: Search) -> Result<Found, Error> {
        check(&search.shards);
        let (field, query) = only_term(&search.query);
        let StatisticsFrom::Given(statistics) = &search.statistics else {
            panic!("no leaf holds every shard");
        };
        assert_eq!(**statistics, corpus::statistics_of_all(&field, &query));
        let time = self.log.search_time(self.leaf);
        self.work("search", query.clone(), search.deadline, time).await?;
        Ok(corpus::found(&name(self.leaf), &query, &search.shards, search.limit, search.profile))
    }

    async fn statistics(&self, request: StatisticsRequest) -> Result<Vec<Statistics>, Error> {
        check(&request.shards);
        let query = request.terms.first().map_or_else(String::new, |term| term.text.to_string());
        self.work("statistics", query, request.deadline, SMALL_CALL).await?;
        Ok(request.shards.iter().map(|at| corpus::statistics(at.shard, &request.terms)).collect())
    }

    async fn fetch(&self, fetch: Fetch) -> Result<Vec<Document>, Error> {
        self.work("fetch", String::new(), fetch.deadline, SMALL_CALL).await?;
        Ok(fetch.documents.iter().map(|(at, address)| corpus::document(at.shard, *address)).collect())
    }

    async fn write(&self, _: ShardWrite) -> Result<Seq, Error> {
        Err(unasked())
    }
    async fn nudge(&self, _: &IndexUid, _: ShardId) -> Result<(), Error> {
        Err(unasked())
    }
    async fn follow(&self, _: &IndexUid, _: ShardAt, _: Deadline) -> Result<(), Error> {
        Err(unasked())
    }
    async fn get(&self, _: &IndexUid, _: ShardAt, _: &str, _: Deadline) -> Result<Option<Document>, Error> {
        Err(unasked())
    }
    async fn held(&self) -> Result<Vec<Held>, Error> {
        Err(unasked())
    }
    async fn ping(&self, _: Deadline) -> Result<Load, Error> {
        Ok(Load::default())
    }
}

fn unasked() -> Error {
    Error::internal("a scripted leaf only searches")
}

struct NoController;

#[async_trait]
impl Controller for NoController {
    async fn report(&self, _: Report) -> Result<(), Error> {
        Err(unasked())
    }
}
