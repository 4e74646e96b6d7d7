//! Axes with ticks at round numbers.

use crate::report::units;

/// The most ticks in a row that do not crowd.
const ACROSS_MAX: usize = 6;
/// The most ticks above each other: three decades of 1, 2 and 5.
const UP_MAX: usize = 10;
/// The end of a latency axis in µs, far beyond what a histogram tells apart.
const LATENCY_MAX: f64 = 5e9;
/// The end of any other axis: beyond, steps are too small to be added.
const VALUE_MAX: f64 = 1e15;

/// One axis of a plot.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// What it measures, with the unit where the ticks have none.
    pub(super) label: String,
    /// Its ticks, each with what stands beside it.
    pub(super) ticks: Vec<(f64, String)>,
    low: f64,
    high: f64,
    /// How values are spread: as they are, or by this.
    scale: fn(f64) -> f64,
}

impl Axis {
    /// Where a value lies on it, from 0 to 1.
    pub(super) fn position(&self, value: f64) -> f64 {
        let (low, high) = ((self.scale)(self.low), (self.scale)(self.high));
        let position = ((self.scale)(value) - low) / (high - low);
        // What is no number has no place: it lies at the beginning.
        if position.is_nan() { 0.0 } else { position.clamp(0.0, 1.0) }
    }

    /// Latencies in µs, by their logarithm, over at least what was measured.
    pub(super) fn latency(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .map(|value| value.clamp(1.0, LATENCY_MAX))
            .fold((f64::INFINITY, 1.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let low = if low.is_finite() { low } else { 1.0 };
        let round: Vec<f64> = decades(&[1.0, 2.0, 5.0]).collect();
        let below = round.iter().rposition(|tick| *tick <= low).unwrap_or(0).min(round.len() - 2);
        // At least one step above, or the axis has no length.
        let above = round.iter().position(|tick| *tick >= high).unwrap_or(round.len() - 1).max(below + 1);
        let mut ticks = round[below..=above].to_vec();
        if ticks.len() > UP_MAX {
            let (low, high) = (round[below], round[above]);
            ticks = decades(&[1.0]).filter(|tick| (low..=high).contains(tick)).collect();
        }
        Self {
            label: "latency".to_owned(),
            low: round[below],
            high: round[above],
            ticks: ticks.into_iter().map(|tick| (tick, units::short_time(tick))).collect(),
            scale: f64::log10,
        }
    }

    /// Shares of answers from the median to `reach`, by the logarithm of the
    /// rest: as far from 90 to 99 % as from 99 to 99.9 %.
    pub(super) fn shares(reach: f64) -> Self {
        let shown = [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
        let within = shown.into_iter().filter(|(share, _)| *share <= reach + 1e-9);
        Self {
            label: "share of answers that came within it".to_owned(),
            low: 0.5,
            high: reach.max(0.9),
            ticks: within.map(|(share, text)| (share, text.to_owned())).collect(),
            scale: |share| -(1.0 - share).log10(),
        }
    }

    /// Seconds since the beginning.
    pub(super) fn seconds(end: f64) -> Self {
        const STEPS: [f64; 18] = [
            1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0,
            7_200.0, 14_400.0, 43_200.0, 86_400.0,
        ];
        let end = if end.is_finite() { end.clamp(1.0, VALUE_MAX) } else { 1.0 };
        let fits = |step: &f64| end / step < ACROSS_MAX as f64;
        let step = STEPS.into_iter().find(fits).unwrap_or_else(|| round_step(end));
        Self {
            label: "time since the run began".to_owned(),
            ticks: ticks(step, end).map(|tick| (tick, units::span(tick))).collect(),
            low: 0.0,
            high: end,
            scale: |value| value,
        }
    }

    /// From 0 to a round number above all.
    pub(super) fn linear(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let high = values.filter(|value| value.is_finite()).fold(0.0, f64::max).min(VALUE_MAX);
        // Of less than that nothing can be read.
        let high = if high > 1.0 / VALUE_MAX { high } else { 1.0 };
        let step = round_step(high);
        // Some room above, or the highest line is hidden by the frame.
        let top = (high * 1.02 / step).ceil() * step;
        Self {
            label: label.to_owned(),
            ticks: ticks(step, top).map(|tick| (tick, units::number(tick))).collect(),
            low: 0.0,
            high: top,
            scale: |value| value,
        }
    }
}

/// These multiples of every power of ten from 1 µs to [`LATENCY_MAX`].
fn decades(multiples: &'static [f64]) -> impl Iterator<Item = f64> {
    (0..10).flat_map(move |power| multiples.iter().map(move |multiple| multiple * 10_f64.powi(power)))
}

/// A step of 1, 2 or 5 that gives four to seven ticks.
fn round_step(high: f64) -> f64 {
    let rough = high / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|multiple| rough <= multiple * power * 1.000_001);
    multiple.unwrap_or(10.0) * power
}

fn ticks(step: f64, end: f64) -> impl Iterator<Item = f64> {
    (0..=(end / step + 1e-9) as u32).map(move |tick| f64::from(tick) * step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            shown(&Axis::latency([3_400.0, 41_000.0].into_iter())),
            ["2 ms", "5 ms", "10 ms", "20 ms", "50 ms"]
        );
        assert_eq!(
            shown(&Axis::latency([300.0, 9e6].into_iter())),
            ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]
        );
        assert_eq!(shown(&Axis::linear("", [173.0].into_iter())), ["0", "50", "100", "150", "200"]);
        assert_eq!(shown(&Axis::linear("", [8.0].into_iter())), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(
            shown(&Axis::linear("", [0.25].into_iter())),
            ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]
        );
        assert_eq!(shown(&Axis::seconds(60.0)), ["0 s", "15 s", "30 s", "45 s", "60 s"]);
        let hour = ["0 s", "15 min", "30 min", "45 min", "1 h"];
        assert_eq!(shown(&Axis::seconds(3_600.0)), hour);
        assert_eq!(shown(&Axis::shares(0.999)), ["50 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn decades_of_the_rest_are_equally_far() {
        let axis = Axis::shares(0.9999);
        let far = |from, to| axis.position(to) - axis.position(from);
        assert!((far(0.9, 0.99) - far(0.99, 0.999)).abs() < 1e-9);
        assert_eq!((axis.position(0.5), axis.position(0.9999)), (0.0, 1.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_axis_has_a_length_and_a_few_ticks(values in prop::collection::vec(0.0..6e8_f64, 0..4), small in 0.0..1.0_f64) {
            let axes = [
                Axis::latency(values.iter().copied()),
                Axis::linear("", values.iter().copied()),
                Axis::linear("", [small].into_iter()),
                Axis::seconds(values.first().copied().unwrap_or(0.0)),
            ];
            for axis in axes {
                prop_assert!((2..=10).contains(&axis.ticks.len()), "{:?}", axis);
                prop_assert!(axis.low < axis.high, "{:?}", axis);
                prop_assert!(axis.ticks.is_sorted_by(|a, b| axis.position(a.0) < axis.position(b.0)), "{:?}", axis);
            }
            let axis = Axis::latency(values.iter().copied());
            prop_assert!(values.iter().all(|value| axis.low <= value.max(1.0) && *value <= axis.high), "{:?}", axis);
        }
    }
}
