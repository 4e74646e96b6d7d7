//! What an index must hold, by what its clients were told.

use std::collections::{BTreeMap, BTreeSet};

/// The versions of documents that were acknowledged, and those whose outcome
/// nobody knows. A version of `None` is a deletion.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    acknowledged: BTreeMap<String, Option<u64>>,
    unknown: BTreeMap<String, BTreeSet<Option<u64>>>,
}

impl Ledger {
    /// A version is on its way.
    pub fn sent(&mut self, id: &str, version: Option<u64>) {
        self.unknown.entry(id.to_owned()).or_default().insert(version);
    }

    /// A version is acknowledged. Others that were sent may still land.
    pub fn acknowledged(&mut self, id: &str, version: Option<u64>) {
        self.acknowledged.insert(id.to_owned(), version);
        if let Some(unknown) = self.unknown.get_mut(id) {
            unknown.remove(&version);
        }
    }

    /// Nothing that was sent before is on its way any more: what is found is
    /// what counts from now on.
    pub fn settle(&mut self, id: &str, found: Option<u64>) {
        self.acknowledged.insert(id.to_owned(), found);
        self.unknown.remove(id);
    }

    /// Every id that anything was sent for.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let ids: BTreeSet<&str> =
            self.acknowledged.keys().chain(self.unknown.keys()).map(String::as_str).collect();
        ids.into_iter()
    }

    /// How many ids have an acknowledged version.
    #[must_use]
    pub fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// Whether nothing was acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.acknowledged.is_empty()
    }

    /// Takes in another's entries, of other ids.
    pub fn merge(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
    }

    /// Why `found` cannot be what the index holds for `id`; `None` when it can.
    #[must_use]
    pub fn wrong(&self, id: &str, found: Option<u64>) -> Option<String> {
        let acknowledged = self.acknowledged.get(id).copied().unwrap_or(None);
        let unknown = self.unknown.get(id);
        if acknowledged == found || unknown.is_some_and(|versions| versions.contains(&found)) {
            return None;
        }
        Some(format!("{id} is {found:?}, acknowledged {acknowledged:?}, unknown {unknown:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_write_and_a_returned_delete_are_wrong_and_an_unknown_one_is_not() {
        let mut ledger = Ledger::default();
        ledger.sent("a", Some(1));
        assert_eq!(ledger.wrong("a", None), None);
        assert_eq!(ledger.wrong("a", Some(1)), None);
        ledger.acknowledged("a", Some(1));
        assert!(ledger.wrong("a", None).is_some(), "lost");
        ledger.sent("a", None);
        assert_eq!(ledger.wrong("a", None), None);
        ledger.acknowledged("a", None);
        assert!(ledger.wrong("a", Some(1)).is_some(), "back");
        ledger.sent("a", Some(2));
        ledger.settle("a", None);
        assert!(ledger.wrong("a", Some(2)).is_some(), "settled");
    }
}
