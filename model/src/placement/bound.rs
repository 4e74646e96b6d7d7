//! How much a leaf may have, and how little.

/// The load that each of some nodes may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The least: mean × (1 − 1/n), at most three quarters of the mean, rounded
    /// down. Without it a leaf that joins a large cluster would stay empty, for
    /// nobody there is overloaded; without the quarter's slack, a mean that
    /// rises from 5.9 to 6.1 would move a copy to every leaf that has five.
    pub least: usize,
    /// The most: mean × (1 + 1/n), rounded up.
    pub most: usize,
}

impl Bound {
    /// The bound for `total` things on `nodes` nodes.
    ///
    /// The slack of one share of the mean lets small clusters keep nodes by
    /// preference; with many nodes a whole unit is slack enough, as a load is
    /// a whole number.
    #[must_use]
    pub fn new(total: usize, nodes: usize) -> Self {
        if nodes == 0 {
            return Self { least: 0, most: 0 };
        }
        let square = nodes * nodes;
        let least = (total * (nodes - 1) / square).min(total * 3 / (nodes * 4));
        Self { least, most: (total * (nodes + 1)).div_ceil(square) }
    }

    /// Whether moving one thing between nodes of these loads mends a load that
    /// is out of bound. Such a move always evens the two out, so that moves
    /// cannot go on for ever.
    pub(super) fn mends(self, from: usize, to: usize) -> bool {
        from >= to + 2 && (from > self.most || to < self.least)
    }

    /// Whether one of `loads` is out of bound.
    pub(super) fn broken(self, mut loads: impl Iterator<Item = usize>) -> bool {
        loads.any(|load| load > self.most || load < self.least)
    }
}
