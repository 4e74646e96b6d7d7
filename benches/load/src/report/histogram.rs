//! A histogram that is kept as JSON.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest that is told apart, in µs: ten minutes.
const MAX: u64 = 600_000_000;
/// Digits that are kept of each value.
const DIGITS: u8 = 3;

/// Counts of values in µs, each to three digits; longer ones count as ten
/// minutes. As JSON it is a list of `[value, count]`.
#[derive(Clone, PartialEq)]
pub struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Self {
        // Both are within what the crate takes.
        #[expect(clippy::expect_used, reason = "the bounds are constants")]
        let histogram = hdrhistogram::Histogram::new_with_bounds(1, MAX, DIGITS).expect("fixed bounds");
        Self(histogram)
    }
}

impl Histogram {
    /// Counts a value in µs.
    pub fn record(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
        // The bounds are the same, so that it cannot fail.
        let _added = self.0.add(&other.0);
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value in µs at a percentile, such as 99.9; 0 where there is none.
    #[must_use]
    pub fn percentile(&self, percentile: f64) -> u64 {
        self.0.value_at_percentile(percentile)
    }

    /// The largest value, to its digits.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// The share of values that are at most `us`, from 0 to 1.
    #[must_use]
    pub fn share_within(&self, us: u64) -> f64 {
        if self.0.is_empty() { 1.0 } else { self.0.percentile_below(us) / 100.0 }
    }

    /// Each value that was counted, and how often, in order.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percentile| self.0.value_at_percentile(percentile);
        write!(formatter, "{} values, p50 {} µs, p99 {} µs", self.0.len(), at(50.0), at(99.0))
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.counts())
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut histogram = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            if value > 2 * MAX {
                return Err(de::Error::custom(format!("{value} µs is beyond ten minutes")));
            }
            histogram.0.saturating_record_n(value, count);
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_as_json_is_what_was_counted() {
        let mut histogram = Histogram::default();
        for value in [0, 1, 17, 1_234, 1_235, 999_999, 12_345_678, u64::MAX] {
            histogram.record(value);
        }
        let json = serde_json::to_string(&histogram).unwrap();
        let back: Histogram = serde_json::from_str(&json).unwrap();
        assert_eq!(back, histogram);
        assert_eq!((back.len(), back.percentile(50.0)), (8, histogram.percentile(50.0)));
        assert!(serde_json::from_str::<Histogram>("[[9999999999999, 1]]").is_err());
    }
}
