//! A coordinator inside the process, for one process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use proto::Error;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::coordinator::{Coordinator, Entry, Event, Expect, Lease, Put, Revision, Watch};

/// Events that wait for a watcher before it must list again.
const WATCH_QUEUE: usize = 1_024;

/// Keys in memory. Clones are one coordinator; leases end by tokio's clock,
/// looked at whenever anything is asked.
#[derive(Clone, Default)]
pub struct Embedded(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    revision: Revision,
    keys: BTreeMap<String, Key>,
    leases: BTreeMap<Lease, (Duration, Instant)>,
    watchers: Vec<Watcher>,
}

struct Key {
    value: Vec<u8>,
    revision: Revision,
    lease: Option<Lease>,
}

struct Watcher {
    prefix: String,
    events: mpsc::Sender<Event>,
    /// Whether events were lost, which the watcher has been told.
    behind: bool,
}

impl State {
    fn entry(&self, key: &str) -> Option<Entry> {
        let found = self.keys.get(key)?;
        Some(Entry { key: key.to_owned(), value: found.value.clone(), revision: found.revision })
    }

    fn holds(&self, key: &str, expect: Expect) -> bool {
        match (expect, self.keys.get(key)) {
            (Expect::Any, _) | (Expect::Absent, None) => true,
            (Expect::Revision(revision), Some(found)) => found.revision == revision,
            _ => false,
        }
    }

    fn tell(&mut self, key: &str, event: &Event) {
        self.watchers.retain_mut(|watcher| {
            if !key.starts_with(&watcher.prefix) {
                return !watcher.events.is_closed();
            }
            // The last place is kept for the word that something was missed.
            let room = watcher.events.capacity() > 1;
            if room {
                watcher.behind = watcher.events.try_send(event.clone()).is_err();
            } else if !watcher.behind {
                watcher.behind = watcher.events.try_send(Event::Resync).is_ok();
            }
            !watcher.events.is_closed()
        });
    }

    fn remove(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.revision += 1;
            let event = Event::Delete { key: key.to_owned(), revision: self.revision };
            self.tell(key, &event);
        }
    }

    fn end(&mut self, lease: Lease) {
        self.leases.remove(&lease);
        let held: Vec<String> = self
            .keys
            .iter()
            .filter(|(_, key)| key.lease == Some(lease))
            .map(|(name, _)| name.clone())
            .collect();
        held.iter().for_each(|key| self.remove(key));
    }
}

impl Embedded {
    /// An empty coordinator.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let ended: Vec<Lease> =
            state.leases.iter().filter(|(_, (_, end))| *end <= now).map(|(lease, _)| *lease).collect();
        ended.into_iter().for_each(|lease| state.end(lease));
        state
    }
}

#[async_trait]
impl Coordinator for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.state().entry(key))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let state = self.state();
        let keys = state.keys.range(prefix.to_owned()..).map(|(key, _)| key);
        Ok(keys.take_while(|key| key.starts_with(prefix)).filter_map(|key| state.entry(key)).collect())
    }

    async fn put(&self, put: Put) -> Result<Option<Revision>, Error> {
        let Put { key, value, expect, lease, guard } = put;
        let mut state = self.state();
        if lease.is_some_and(|lease| !state.leases.contains_key(&lease)) {
            return Err(Error::not_found("the lease has ended"));
        }
        let guarded = guard.is_none_or(|(key, revision)| state.holds(&key, Expect::Revision(revision)));
        if !guarded || !state.holds(&key, expect) {
            return Ok(None);
        }
        state.revision += 1;
        let revision = state.revision;
        let event = Event::Put(Entry { key: key.clone(), value: value.clone(), revision });
        state.keys.insert(key.clone(), Key { value, revision, lease });
        state.tell(&key, &event);
        Ok(Some(revision))
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool, Error> {
        let mut state = self.state();
        let found = state.keys.contains_key(key) && state.holds(key, expect);
        if found {
            state.remove(key);
        }
        Ok(found)
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease, Error> {
        let mut state = self.state();
        state.revision += 1;
        let lease = Lease(state.revision);
        state.leases.insert(lease, (ttl, Instant::now() + ttl));
        Ok(lease)
    }

    async fn keep_alive(&self, lease: Lease) -> Result<bool, Error> {
        let mut state = self.state();
        let Some((ttl, end)) = state.leases.get_mut(&lease) else { return Ok(false) };
        *end = Instant::now() + *ttl;
        Ok(true)
    }

    async fn revoke(&self, lease: Lease) -> Result<(), Error> {
        self.state().end(lease);
        Ok(())
    }

    async fn watch(&self, prefix: &str) -> Result<Watch, Error> {
        let (events, queue) = mpsc::channel(WATCH_QUEUE);
        self.state().watchers.push(Watcher { prefix: prefix.to_owned(), events, behind: false });
        Ok(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_conforms() {
        crate::conformance::suite(&Embedded::new()).await;
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_to_list_again() {
        let coordinator = Embedded::new();
        let mut watch = coordinator.watch("k").await.unwrap();
        let put = |n: usize| Put {
            key: format!("k{n}"),
            value: Vec::new(),
            expect: Expect::Any,
            lease: None,
            guard: None,
        };
        for n in 0..WATCH_QUEUE + 10 {
            coordinator.put(put(n)).await.unwrap();
        }
        for _ in 1..WATCH_QUEUE {
            assert!(matches!(watch.recv().await, Some(Event::Put(_))));
        }
        assert_eq!(watch.recv().await, Some(Event::Resync));
        coordinator.put(put(0)).await.unwrap();
        assert!(matches!(watch.recv().await, Some(Event::Put(_))));
    }
}
