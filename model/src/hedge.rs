//! When a straggler of a query is asked of another replica too.
//!
//! After Dean and Barroso, "The Tail at Scale" (2013): a second copy of the
//! few calls that take longer than usual, and the first good answer wins. What
//! keeps the cure from being worse than the illness: one budget with retries,
//! in the first place for the last of a query's legs, and none while
//! everything is slow. A call may be late by chance, or since its leaf stands
//! still; a ping tells which, and costs no search. Found by simulation;
//! `docs/decisions/0003-hedging.md` has the figures.
//!
//! All lengths of time are in the caller's unit of choice, such as seconds.

/// How much is hedged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Further sends, hedges and retries together, for each first one.
    pub budget: f64,
    /// What of the budget may be saved up, in sends.
    pub burst: f64,
    /// The part of the budget that ordinary lateness may take: the rest is for
    /// leaves that stand still.
    pub ordinary: f64,
    /// Hedges of a shard in one query.
    pub hedges_max: u32,
    /// The part of a call's usual time after which its leaf is pinged, where it
    /// gave no other sign of life for as long.
    pub ping: f64,
    /// The quantile of a shard's past times after which a call is late.
    pub quantile: f64,
    /// The share of a query's legs that counts as its last ones; one at least.
    pub last: f64,
    /// How many times longer than this query's median leg a call must take to
    /// be late.
    pub others: f64,
    /// While more than this share of the calls is late, everything is slow.
    pub slow: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            budget: 0.02,
            burst: 10.0,
            ordinary: 0.3,
            hedges_max: 2,
            ping: 0.3,
            quantile: 0.95,
            last: 0.1,
            others: 1.5,
            slow: 0.4,
        }
    }
}

impl Settings {
    /// What may be saved up, and then owed: nothing where nothing is earned.
    #[must_use]
    pub fn burst(&self) -> f64 {
        if self.budget > 0.0 { self.burst } else { 0.0 }
    }

    /// How long a call takes before it is late: `usual` is its shards' quantile,
    /// `median` that of this query's legs that have ended.
    #[must_use]
    pub fn late_after(&self, usual: f64, median: Option<f64>) -> f64 {
        median.map_or(usual, |median| usual.max(self.others * median))
    }

    /// How many times as long a late call waits for its hedge while `open` of
    /// `legs` are without an answer: the last ones do not wait.
    #[must_use]
    pub fn patience(&self, open: usize, legs: usize) -> f64 {
        let last = (self.last * legs as f64).ceil().max(1.0);
        if open as f64 <= last { 1.0 } else { 2.0 }
    }
}

/// A running quantile in 8 bytes: a step up for each value above it, a smaller
/// one down for each below, in proportion to itself (after Ma, Muthukrishnan
/// and Sandler, "Frugal Streaming for Estimating Quantiles", 2013).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quantile {
    value: f32,
    seen: u32,
}

impl Quantile {
    /// After so many values it is believed.
    const SEEN_LEAST: u32 = 10;
    /// The steps shrink from the first to the last.
    const STEP_FIRST: f64 = 0.5;
    const STEP_LAST: f64 = 0.05;

    /// The estimate, once there is one.
    #[must_use]
    pub fn get(self) -> Option<f64> {
        (self.seen >= Self::SEEN_LEAST).then_some(f64::from(self.value))
    }

    /// The estimate of the quantile `at` after one more value.
    #[must_use]
    pub fn with(self, value: f64, at: f64) -> Self {
        let value = value.max(1e-9) as f32;
        if self.seen == 0 {
            return Self { value, seen: 1 };
        }
        let step = (Self::STEP_FIRST / f64::from(self.seen).sqrt()).max(Self::STEP_LAST);
        let by = if value > self.value { step * at } else { -step * (1.0 - at) };
        // Never beyond what was seen: the first steps are wide.
        let moved = self.value * by.exp() as f32;
        let moved = if value > self.value { moved.min(value) } else { moved.max(value) };
        Self { value: moved, seen: self.seen.saturating_add(1) }
    }

    /// For an atomic.
    #[must_use]
    pub fn bits(self) -> u64 {
        u64::from(self.value.to_bits()) << 32 | u64::from(self.seen)
    }

    /// From [`Self::bits`].
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self { value: f32::from_bits((bits >> 32) as u32), seen: bits as u32 }
    }
}

/// Sends that may be made beyond the first ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    saved: f64,
}

impl Budget {
    /// A full one.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { saved: settings.burst() }
    }

    /// Earns for so many first sends.
    pub fn earn(&mut self, sends: usize, settings: &Settings) {
        self.saved = (self.saved + settings.budget * sends as f64).min(settings.burst());
    }

    /// Spends on so many sends, if there is anything: what is large is paid
    /// afterwards. What is `overdue` may also use a reserve of another burst.
    pub fn take(&mut self, sends: usize, overdue: bool, settings: &Settings) -> bool {
        let some = self.saved >= if overdue { 1.0 - settings.burst() } else { 1.0 };
        if some {
            self.saved -= sends as f64;
        }
        some
    }

    /// Spends whether there is anything or not: what another leaf never worked
    /// on costs it nothing. The debt is bounded.
    pub fn charge(&mut self, sends: usize, settings: &Settings) {
        self.saved = (self.saved - sends as f64).max(-settings.burst()).min(self.saved);
    }

    /// What is saved; below 0 what is owed.
    #[must_use]
    pub fn saved(&self) -> f64 {
        self.saved
    }
}

/// How many times its usual time a call must take to be late, so that hedges
/// take their part of the budget and no more: a step up for each hedge, a small
/// one down for each first send.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stretch {
    logarithm: f64,
}

impl Stretch {
    const STEP: f64 = 0.01;
    const MOST: f64 = 8.0;

    /// Notes first sends.
    pub fn sent(&mut self, sends: usize, settings: &Settings) {
        let share = settings.budget * settings.ordinary;
        self.logarithm = (self.logarithm - Self::STEP * share * sends as f64).max(0.0);
    }

    /// Notes hedges.
    pub fn hedged(&mut self, sends: usize) {
        self.logarithm = (self.logarithm + Self::STEP * sends as f64).min(Self::MOST.ln());
    }

    /// The factor, 1 at least.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.logarithm.exp()
    }
}

/// The share of calls that make a leaf late that was not, lately: one leaf that
/// stands still does so once until it answers again, slow ones all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slowness(f64);

impl Slowness {
    /// The weight of one call.
    const WEIGHT: f64 = 1.0 / 64.0;

    /// Notes a call that ended in time, or became late.
    pub fn note(&mut self, late: bool) {
        self.0 += Self::WEIGHT * (f64::from(u8::from(late)) - self.0);
    }

    /// Whether everything is slow, which more load does not cure.
    #[must_use]
    pub fn everything(&self, settings: &Settings) -> bool {
        self.0 > settings.slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::Draw;

    #[test]
    fn a_quantile_follows_what_it_sees() {
        let mut draw = Draw::new(1);
        let mut unit = || draw.below(1 << 30) as f64 / f64::from(1 << 30);
        let mut quantile = Quantile::default();
        assert_eq!(quantile.with(1.0, 0.95).get(), None);
        // Exponential with mean 1: the quantile is ln 20.
        let mut sum = 0.0;
        for n in 0..20_000 {
            quantile = Quantile::from_bits(quantile.with(-(1.0 - unit()).ln(), 0.95).bits());
            sum += if n >= 10_000 { quantile.get().unwrap() } else { 0.0 };
        }
        let mean = sum / 10_000.0;
        assert!((mean / 20_f64.ln() - 1.0).abs() < 0.1, "{mean}");
        // Ten times slower: noticed within some dozen calls.
        let before = quantile.get().unwrap();
        (0..100).for_each(|_| quantile = quantile.with(-(1.0 - unit()).ln() * 10.0, 0.95));
        assert!(quantile.get().unwrap() > before * 5.0);
    }

    #[test]
    fn a_budget_gives_its_share_and_its_burst_and_no_more() {
        let settings = Settings::default();
        let mut budget = Budget::new(&settings);
        let mut taken = 0;
        for _ in 0..100_000 {
            budget.earn(1, &settings);
            taken += usize::from(budget.take(1, false, &settings));
        }
        assert!((2_000..=2_100).contains(&taken), "{taken}");
        // A large one overdraws, and the next must wait.
        let mut budget = Budget::new(&settings);
        assert!(budget.take(250, false, &settings) && !budget.take(1, true, &settings));
        (0..13_000).for_each(|_| budget.earn(1, &settings));
        assert!(budget.take(1, false, &settings));
    }

    #[test]
    fn without_a_budget_there_is_no_burst_either() {
        let settings = Settings { budget: 0.0, ..Settings::default() };
        let mut budget = Budget::new(&settings);
        budget.earn(1_000, &settings);
        assert!(!budget.take(1, false, &settings) && !budget.take(1, true, &settings));
        budget.charge(1, &settings);
        assert_eq!(budget.saved(), 0.0);
    }

    #[test]
    fn what_is_overdue_has_a_reserve() {
        let settings = Settings::default();
        let mut budget = Budget::new(&settings);
        while budget.take(1, false, &settings) {}
        let more = (0..100).filter(|_| budget.take(1, true, &settings)).count();
        assert_eq!(more, settings.burst as usize);
    }

    #[test]
    fn charges_make_a_bounded_debt() {
        let settings = Settings::default();
        let mut budget = Budget::new(&settings);
        (0..1_000).for_each(|_| budget.charge(7, &settings));
        assert_eq!(budget.saved(), -settings.burst);
        assert!(!budget.take(1, true, &settings));
        // A debt that a large hedge made is not forgiven by a charge.
        let mut budget = Budget::new(&settings);
        assert!(budget.take(500, false, &settings));
        budget.charge(1, &settings);
        assert!(budget.saved() <= -400.0);
    }

    #[test]
    fn hedges_take_their_part_of_the_budget() {
        let settings = Settings::default();
        let (mut stretch, mut draw, mut hedged) = (Stretch::default(), Draw::new(3), 0);
        for call in 0..200_000 {
            stretch.sent(1, &settings);
            // Exponential times, whose usual quantile is known.
            let time = -(1.0 - draw.below(1 << 30) as f64 / f64::from(1 << 30)).ln();
            if time > 20_f64.ln() * stretch.factor() {
                stretch.hedged(1);
                hedged += usize::from(call >= 100_000);
            }
        }
        let share = hedged as f64 / 1e5;
        assert!((0.0054..0.0066).contains(&share), "{share}");
        (0..1_000).for_each(|_| stretch.hedged(1));
        assert!(stretch.factor() <= Stretch::MOST * 1.001);
    }

    #[test]
    fn one_leaf_that_stands_still_is_not_everything() {
        let settings = Settings::default();
        let mut slowness = Slowness::default();
        for call in 0..1_000 {
            slowness.note(call % 10 == 0);
        }
        assert!(!slowness.everything(&settings));
        (0..100).for_each(|_| slowness.note(true));
        assert!(slowness.everything(&settings));
        (0..100).for_each(|_| slowness.note(false));
        assert!(!slowness.everything(&settings));
    }

    #[test]
    fn the_last_legs_do_not_wait_and_others_wait_longer() {
        let settings = Settings::default();
        assert_eq!([1, 10, 11, 100].map(|open| settings.patience(open, 100)), [1.0, 1.0, 2.0, 2.0]);
        assert_eq!([1, 2].map(|open| settings.patience(open, 4)), [1.0, 2.0]);
        assert_eq!(settings.late_after(3.0, None), 3.0);
        assert_eq!(settings.late_after(3.0, Some(10.0)), 15.0);
    }
}
