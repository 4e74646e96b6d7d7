//! One answer from many leaves.
//!
//! **Invariant:** hits are ordered by (score descending, id hash, id), so one
//! order holds for any number of shards and leaves. Ids are only needed where
//! two documents tie in score and hash, so they are fetched for the page and
//! for what ties with its ends, and for nothing else.

use model::gather::Ranked;
use proto::leaf::LeafHit;

fn rank(a: &LeafHit, b: &LeafHit) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.hash.cmp(&b.hash))
}

/// Merges the leaves' hits, each list best first, to the first `reach` and all
/// that tie with the last, by [`model::gather::merge`].
pub(crate) fn merge(lists: Vec<Vec<LeafHit>>, reach: usize) -> Vec<LeafHit> {
    let mut all: Vec<Option<LeafHit>> = Vec::new();
    let mut ranked = Vec::with_capacity(lists.len());
    for hits in lists {
        let first = all.len();
        let each = |(index, hit): (usize, &LeafHit)| {
            let LeafHit { score, hash, shard, .. } = *hit;
            Ranked { score, hash, shard, index }
        };
        ranked.push((first..).zip(&hits).map(each).collect());
        all.extend(hits.into_iter().map(Some));
    }
    let merged = model::gather::merge(&ranked, reach);
    merged.into_iter().filter_map(|hit| all[hit.index].take()).collect()
}

/// The first hit whose id is needed to order the hits from `offset` on.
pub(crate) fn first_needed(hits: &[LeafHit], offset: usize) -> usize {
    let mut first = offset.min(hits.len());
    while first > 0 && first < hits.len() && rank(&hits[first - 1], &hits[first]).is_eq() {
        first -= 1;
    }
    first
}

/// Orders hits that tie in score and hash by their ids, which `id` tells.
pub(crate) fn settle<T>(hits: &mut [T], hit: impl Fn(&T) -> &LeafHit, id: impl Fn(&T) -> &str) {
    hits.sort_by(|a, b| rank(hit(a), hit(b)).then_with(|| id(a).cmp(id(b))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::ShardId;
    use proto::leaf::Address;

    fn hit(score: f32, hash: u64, doc: u32) -> LeafHit {
        let address = Address { segment: 0, doc };
        LeafHit { score, hash, shard: ShardId(0), address, document: None }
    }

    #[test]
    fn merging_keeps_what_ties_with_the_last() {
        let left = vec![hit(3.0, 1, 0), hit(2.0, 7, 1)];
        let right = vec![hit(2.0, 7, 2), hit(2.0, 8, 3)];
        let merged = merge(vec![left, right], 2);
        assert_eq!(merged.iter().map(|hit| hit.address.doc).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(first_needed(&merged, 2), 1);
    }

    #[test]
    fn ids_decide_between_equal_hashes() {
        let mut hits = vec![(hit(1.0, 7, 0), "b"), (hit(1.0, 7, 1), "a"), (hit(2.0, 9, 2), "c")];
        settle(&mut hits, |(hit, _)| hit, |(_, id)| id);
        assert_eq!(hits.iter().map(|(_, id)| *id).collect::<Vec<_>>(), ["c", "a", "b"]);
    }
}
