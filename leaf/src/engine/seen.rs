//! Which ids may be in a shard already.
//!
//! Replacing a document makes the engine look its id up in every segment. A
//! fresh load writes ids that were never there, so a filter that says "surely
//! new" saves most of that work.
//!
//! **Invariant:** never says "new" of an id that was added: at worst it says
//! "maybe", and the engine looks for nothing.

/// Bits for each id: at 12 bits and 4 probes about 1 % of new ids look known.
const BITS_PER_ID: usize = 12;
/// Ids that the first layer is made for; each further layer doubles.
const FIRST_LAYER_IDS: usize = 16_384;
const PROBES: u64 = 4;

/// A scalable Bloom filter over id hashes.
pub(crate) struct Seen {
    layers: Vec<Layer>,
}

struct Layer {
    words: Vec<u64>,
    ids: usize,
    ids_max: usize,
}

impl Layer {
    fn new(ids_max: usize) -> Self {
        Self { words: vec![0; (ids_max * BITS_PER_ID).div_ceil(64)], ids: 0, ids_max }
    }

    fn bits(&self, hash: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let bits = self.words.len() as u64 * 64;
        // Double hashing: Kirsch and Mitzenmacher, "Less hashing, same
        // performance", 2006.
        let (a, b) = (hash, hash.rotate_left(32) | 1);
        (0..PROBES).map(move |probe| {
            let bit = a.wrapping_add(probe.wrapping_mul(b)) % bits;
            (usize::try_from(bit / 64).expect("a word's index fits"), 1 << (bit % 64))
        })
    }
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self { layers: vec![Layer::new(FIRST_LAYER_IDS)] }
    }

    /// Adds an id by its hash; returns whether it may have been there.
    pub(crate) fn insert(&mut self, hash: u64) -> bool {
        let known =
            self.layers.iter().any(|layer| layer.bits(hash).all(|(word, bit)| layer.words[word] & bit != 0));
        if known {
            return true;
        }
        let last = self.layers.last().expect("there is always a layer");
        if last.ids == last.ids_max {
            let layer = Layer::new(last.ids_max * 2);
            self.layers.push(layer);
        }
        let last = self.layers.last_mut().expect("there is always a layer");
        for (word, bit) in last.bits(hash) {
            last.words[word] |= bit;
        }
        last.ids += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::id_hash;

    #[test]
    fn an_added_id_is_never_new() {
        let mut seen = Seen::new();
        let mut false_alarms = 0;
        for n in 0..100_000 {
            false_alarms += u32::from(seen.insert(id_hash(&n.to_string())));
        }
        assert!(false_alarms < 3_000, "{false_alarms} of 100,000 new ids looked known");
        assert!((0..100_000).all(|n| seen.insert(id_hash(&n.to_string()))));
    }
}
