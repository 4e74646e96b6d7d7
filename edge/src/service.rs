//! The calls of the API without a transport: admission, deadline, panics,
//! metrics.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use model::ids::IndexName;
use model::pace::Pace;
use proto::admin::{Admin, Change, Refresh, Rejected, Write, Written};
use proto::search::{Answer, Document, Request, Search};
use proto::{Error, Kind};
use runtime::Deadline;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::metrics::{Call, End, Metrics};
use crate::problem::Problem;
use crate::settings::Settings;

/// A unit of [`Settings::bodies_bytes_max`]: a semaphore counts less far than
/// memory goes.
pub(crate) const BUDGET_BYTES: usize = 1_024;

/// The API behind both faces.
pub struct Edge {
    search: Arc<dyn Search>,
    pub(crate) admin: Arc<dyn Admin>,
    pub(crate) settings: Settings,
    requests: Semaphore,
    /// Room for bodies, in units of [`BUDGET_BYTES`].
    pub(crate) bodies: Semaphore,
    pub(crate) metrics: Metrics,
    begun: Instant,
    cores: usize,
    /// How fast requests are refused.
    pace: Mutex<Pace>,
    /// Places of those that wait to be told.
    refused: Semaphore,
}

impl Edge {
    pub(crate) fn new(search: Arc<dyn Search>, admin: Arc<dyn Admin>, settings: Settings) -> Self {
        let bodies = (settings.bodies_bytes_max / BUDGET_BYTES).min(Semaphore::MAX_PERMITS);
        Self {
            search,
            admin,
            requests: Semaphore::new(settings.requests_max.min(Semaphore::MAX_PERMITS)),
            bodies: Semaphore::new(bodies),
            metrics: Metrics::new(),
            begun: Instant::now(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            pace: Mutex::default(),
            refused: Semaphore::new(settings.refused_max.min(Semaphore::MAX_PERMITS)),
            settings,
        }
    }

    /// Waits where refusals are so many that they would take the CPU of answers;
    /// not for so long that a client which says how long it waits has gone.
    async fn paced(&self, theirs: Option<Deadline>) {
        let Ok(_place) = self.refused.try_acquire() else { return };
        let wait = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.wait(self.begun.elapsed(), self.cores, &self.settings.refusals)
        };
        let wait = theirs.map_or(wait, |theirs| wait.min(theirs.remaining() / 2));
        if !wait.is_zero() {
            self.metrics.refusals_paced.increment(1);
            tokio::time::sleep(wait).await;
        }
    }

    /// Admits a call, runs it, and counts how it ended; `theirs` is how long its
    /// client waits, where that is known. A panic in it is its own `Internal`
    /// and nobody else's.
    pub(crate) async fn run<T>(
        &self,
        call: Call,
        theirs: Option<Deadline>,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let mut running =
            Running { edge: self, call, end: End::Cancelled, from: Instant::now(), permit: None };
        let result = match self.admit(call) {
            Ok(permit) => {
                running.enter(permit);
                AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_panic| {
                    // The panic hook has said what and where.
                    let defect = "answer: the request met a defect, and the server's log says where";
                    Err(Error::internal(defect).into())
                })
            }
            Err(refusal) => {
                // It may hold a message.
                drop(work);
                Err(refusal.into())
            }
        };
        running.end = match &result {
            Ok(_) => End::Ok,
            Err(problem) => End::Failed(problem.error.kind),
        };
        // Who was refused takes nobody's place while it waits, and had its answer.
        drop(running);
        if result.as_ref().is_err_and(|problem| problem.error.kind == Kind::Overloaded) {
            self.paced(theirs).await;
        }
        result
    }

    /// Takes a call on, or refuses it before it is read.
    fn admit(&self, call: Call) -> Result<SemaphorePermit<'_>, Error> {
        let full = |_| self.overloaded("requests", self.settings.requests_max);
        let permit = self.requests.try_acquire().map_err(full)?;
        let refusal = if call == Call::Search { self.search.refusal() } else { None };
        refusal.map_or(Ok(permit), Err)
    }

    pub(crate) fn overloaded(&self, what: &str, most: usize) -> Error {
        let after = self.settings.retry_after;
        Error::overloaded(format!(
            "this server works on {most} {what} at a time and has them: retry in {} s, or send fewer at once",
            after.as_secs_f64()
        ))
        .retry_after(after)
    }

    pub(crate) async fn search(&self, request: Request) -> Result<Answer, Problem> {
        let deadline = request.deadline;
        within(deadline, self.search.search(request)).await
    }

    pub(crate) async fn write(
        &self,
        index: IndexName,
        lines: Vec<(u64, Change)>,
        mut rejected: Vec<Rejected>,
        refresh: Refresh,
        deadline: Deadline,
    ) -> Result<Written, Problem> {
        if lines.is_empty() && rejected.is_empty() {
            return Err(Problem::invalid(
                "the request holds no documents; send one JSON object a line, or a JSON array of objects",
            ));
        }
        if lines.is_empty() {
            return Ok(Written { rejected, ..Written::default() });
        }
        let auto_create = self.settings.auto_create;
        let write = Write { index, lines, refresh, auto_create, deadline };
        // The root answers a late write itself, with what it knows by then;
        // this is for a root that doesn't.
        let backstop = Deadline::at(deadline.instant() + WRITE_GRACE);
        let mut written = within(backstop, self.admin.write(write)).await?;
        if !rejected.is_empty() {
            written.rejected.append(&mut rejected);
            written.rejected.sort_by_key(|rejected| rejected.line);
        }
        Ok(written)
    }

    pub(crate) async fn delete_document(
        &self,
        index: IndexName,
        id: String,
        refresh: Refresh,
        deadline: Deadline,
    ) -> Result<Written, Problem> {
        let lines = vec![(1, Change::Delete(id))];
        let write = Write { index, lines, refresh, auto_create: false, deadline };
        let backstop = Deadline::at(deadline.instant() + WRITE_GRACE);
        let written = within(backstop, self.admin.write(write)).await?;
        match written.rejected.first() {
            Some(rejected) => Err(Error::new(rejected.kind, rejected.reason.clone()).into()),
            None => Ok(written),
        }
    }

    pub(crate) async fn document(
        &self,
        index: &IndexName,
        id: &str,
        token: Option<&str>,
        deadline: Deadline,
    ) -> Result<Document, Problem> {
        let token = token.map(crate::ask::token).transpose()?;
        let found = within(deadline, self.admin.get(index, id, token, deadline)).await?;
        let id: String = id.chars().take(100).collect();
        found.ok_or_else(|| Error::not_found(format!("index \"{index}\" has no document {id:?}")).into())
    }

    pub(crate) fn call_deadline(&self) -> Deadline {
        Deadline::after(self.settings.call_timeout)
    }
}

/// How long past its deadline a write may still tell what became of it.
const WRITE_GRACE: std::time::Duration = std::time::Duration::from_millis(500);

/// Waits for `work` until `deadline`, then drops it.
pub(crate) async fn within<T>(
    deadline: Deadline,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Problem> {
    match tokio::time::timeout_at(deadline.instant(), work).await {
        Ok(result) => Ok(result?),
        Err(_late) => Err(Error::expired(
            "no answer came within the request's time: retry, with a longer timeout if this goes on",
        )
        .into()),
    }
}

/// A name from a client.
pub(crate) fn index_name(text: &str) -> Result<IndexName, Problem> {
    IndexName::new(text).map_err(|bad| Problem::invalid(bad.to_string()))
}

/// A call in flight. Dropped before it ended, its client went away.
struct Running<'a> {
    edge: &'a Edge,
    call: Call,
    end: End,
    from: Instant,
    permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Running<'a> {
    fn enter(&mut self, permit: SemaphorePermit<'a>) {
        self.edge.metrics.in_flight.increment(1.0);
        self.permit = Some(permit);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.edge.metrics.in_flight.decrement(1.0);
        }
        self.edge.metrics.ended(self.call, self.end, self.from.elapsed());
    }
}
