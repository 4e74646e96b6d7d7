//! One call to a leaf.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use model::ids::NodeId;
use proto::Error;
use proto::leaf::ShardAt;
use tokio::time::Instant;

use crate::memory::{Phase, Sent};

/// Which call for its shards one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    First,
    Hedge,
    Retry,
}

impl Why {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Hedge => "hedge",
            Self::Retry => "retry",
        }
    }
}

/// A call as it went.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) node: NodeId,
    pub(crate) shards: Vec<ShardAt>,
    pub(crate) why: Why,
    /// `None` where it was answered.
    pub(crate) outcome: Option<String>,
    pub(crate) sent: Instant,
    pub(crate) took: Duration,
}

/// The calls of a search as they went, for those who explain it.
#[derive(Default)]
pub(crate) struct Calls(pub(super) Mutex<Vec<(Phase, Record)>>);

impl Calls {
    pub(crate) fn take(&self) -> Vec<(Phase, Record)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A call's future; empty once it has ended or was cancelled.
pub(super) type Shared<T> = Arc<Mutex<Option<BoxFuture<'static, Result<T, Error>>>>>;

/// Resolves when the call in its slot does.
pub(super) struct Running<T> {
    pub(super) id: usize,
    pub(super) running: Shared<T>,
}

impl<T> Future for Running<T> {
    type Output = (usize, Result<T, Error>);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(call) = slot.as_mut() else { return Poll::Pending };
        let Poll::Ready(outcome) = call.as_mut().poll(context) else { return Poll::Pending };
        *slot = None;
        Poll::Ready((self.id, outcome))
    }
}

/// One call of a question.
pub(super) struct Asked<T> {
    pub(super) leg: usize,
    pub(super) attempt: usize,
    pub(super) slot: usize,
    /// Whether others were asked since it is late.
    pub(super) hedged: bool,
    pub(super) record: Record,
    /// After so many seconds it is late, by its shards' past.
    pub(super) usual: f64,
    /// When its leaf is pinged, while it is not answered.
    pub(super) ping_at: Instant,
    pub(super) late: bool,
    pub(super) overdue: bool,
    /// Whether its hedge was withheld.
    pub(super) withheld: bool,
    pub(super) running: Shared<T>,
    /// `None` once it has ended.
    pub(super) open: Option<Sent>,
}

impl<T> Asked<T> {
    pub(super) fn take(&self) -> Option<BoxFuture<'static, Result<T, Error>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
