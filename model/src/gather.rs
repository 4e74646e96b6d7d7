//! Merging the ranked lists of shards into one.
//!
//! **Invariant:** the order of hits is the score, then the hash of the id, then
//! the id: one order for any number of shards.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::ShardId;

/// How far matches are counted by default: a person reads "over 10,000" like
/// the exact number, and common words need not be counted to the end.
pub const COUNT_BOUND_DEFAULT: u64 = 10_000;

/// A hit's place: what ranks it, and where it came from.
///
/// The order is best first; hits that tie in score and hash are ordered by
/// where they came from until their ids are known.
#[derive(Clone, Copy, Debug)]
pub struct Ranked {
    /// The score.
    pub score: f32,
    /// The hash of the id.
    pub hash: u64,
    /// The shard it is from.
    pub shard: ShardId,
    /// Its place in the caller's list.
    pub index: usize,
}

impl Ranked {
    /// Whether only the ids can order the two.
    #[must_use]
    pub fn ties(&self, other: &Self) -> bool {
        self.rank(other).is_eq()
    }

    fn rank(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.hash.cmp(&other.hash))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank(other).then(self.shard.cmp(&other.shard)).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

/// Merges `lists`, each best first, to the best `limit` hits and all further
/// ones that tie with the last of them in score and hash: the ids decide
/// between those.
#[must_use]
pub fn merge(lists: &[Vec<Ranked>], limit: usize) -> Vec<Ranked> {
    let mut merged: Vec<Ranked> = Vec::new();
    if limit == 0 {
        return merged;
    }
    let mut heads: BinaryHeap<Reverse<(Ranked, usize, usize)>> = lists
        .iter()
        .enumerate()
        .filter_map(|(list, hits)| hits.first().map(|first| Reverse((*first, list, 0))))
        .collect();
    while let Some(Reverse((hit, list, at))) = heads.pop() {
        let full = merged.len() >= limit;
        if full && merged.last().is_some_and(|last| !last.ties(&hit)) {
            break;
        }
        merged.push(hit);
        if let Some(next) = lists[list].get(at + 1) {
            heads.push(Reverse((*next, list, at + 1)));
        }
    }
    merged
}

/// How exactly matches are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Exactly up to this many, then "at least".
    Bounded(u64),
    /// Exactly.
    Exact,
    /// Not at all.
    None,
}

impl Default for Count {
    fn default() -> Self {
        Self::Bounded(COUNT_BOUND_DEFAULT)
    }
}

/// A text that names no way to count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("count is {0:?}; it must be \"bounded\", \"exact\" or \"none\"")]
pub struct BadCount(pub String);

impl FromStr for Count {
    type Err = BadCount;

    fn from_str(text: &str) -> Result<Self, BadCount> {
        match text {
            "bounded" => Ok(Self::default()),
            "exact" => Ok(Self::Exact),
            "none" => Ok(Self::None),
            _ => Err(BadCount(text.chars().take(100).collect())),
        }
    }
}

/// How a total's value relates to the number of matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// It is the number.
    Eq,
    /// There are at least as many.
    Gte,
}

/// How many documents match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// The number.
    pub value: u64,
    /// What it means.
    pub relation: Relation,
}

impl Total {
    /// Exactly `value`.
    #[must_use]
    pub fn exactly(value: u64) -> Self {
        Self { value, relation: Relation::Eq }
    }

    /// Sums the totals of disjoint shards; `None` for [`Count::None`].
    ///
    /// A bounded sum never exceeds its bound, so it does not depend on how
    /// many shards stopped counting.
    #[must_use]
    pub fn sum(parts: impl IntoIterator<Item = Self>, count: Count) -> Option<Self> {
        let mut sum = Self::exactly(0);
        for part in parts {
            sum.value = sum.value.saturating_add(part.value);
            if part.relation == Relation::Gte {
                sum.relation = Relation::Gte;
            }
        }
        match count {
            Count::None => None,
            Count::Exact => Some(sum),
            Count::Bounded(bound) if sum.value > bound => {
                Some(Self { value: bound, relation: Relation::Gte })
            }
            Count::Bounded(_) => Some(sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merging_equals_sorting_everything(
            lists in prop::collection::vec(prop::collection::vec((0_u8..4, 0_u64..4), 0..20), 0..6),
            limit in 0_usize..30,
        ) {
            let lists: Vec<Vec<Ranked>> = (0..).zip(lists).map(|(shard, hits)| {
                let mut hits: Vec<Ranked> = hits.into_iter().enumerate().map(|(index, (score, hash))| {
                    Ranked { score: f32::from(score), hash, shard: ShardId(shard), index }
                }).collect();
                hits.sort();
                hits
            }).collect();
            let mut all: Vec<Ranked> = lists.concat();
            all.sort();
            let merged = merge(&lists, limit);
            prop_assert_eq!(&merged[..], &all[..merged.len()]);
            prop_assert!(merged.len() >= limit.min(all.len()) || limit == 0);
            if limit > 0 && merged.len() > limit {
                prop_assert!(merged[limit..].iter().all(|hit| hit.ties(&merged[limit - 1])));
            }
            if let (Some(last), Some(next)) = (merged.last(), all.get(merged.len())) {
                prop_assert!(!last.ties(next));
            }
        }
    }

    #[test]
    fn totals_add_up() {
        let part = |value, relation| Total { value, relation };
        let exact = [Total::exactly(3), Total::exactly(4)];
        assert_eq!(Total::sum(exact, Count::Exact), Some(Total::exactly(7)));
        assert_eq!(Total::sum(exact, Count::None), None);
        assert_eq!(Total::sum(exact, Count::Bounded(7)), Some(Total::exactly(7)));
        assert_eq!(Total::sum(exact, Count::Bounded(6)), Some(part(6, Relation::Gte)));
        let stopped = [part(6, Relation::Gte), part(6, Relation::Gte)];
        assert_eq!(Total::sum(stopped, Count::Bounded(6)), Some(part(6, Relation::Gte)));
    }

    #[test]
    fn ways_to_count_have_names() {
        assert_eq!("bounded".parse(), Ok(Count::Bounded(10_000)));
        assert_eq!("none".parse(), Ok(Count::None));
        assert!("all".parse::<Count>().is_err());
    }
}
