//! Lines of an hour in a few hundred points.

/// A point of a line; `None` is a gap.
pub(super) type Point = Option<(f64, f64)>;
/// Where a band is, and from where to where it reaches; `None` is a gap.
pub(super) type Reach = Option<(f64, f64, f64)>;

/// Up to here every point is drawn: more would paint one upon the other.
const WHOLE_MAX: usize = 300;
/// Parts of a longer line. With both edges of its band and its gaps it has at
/// most 600 points.
const PARTS: usize = 150;

/// What a part of a long line is drawn as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Its median; a band tells the rest.
    Middle,
    /// Its highest point.
    Highest,
}

/// What is drawn of a line.
#[derive(Debug, PartialEq)]
pub(super) struct Thinned {
    pub(super) line: Vec<Point>,
    /// From the lowest to the highest, so that no peak is lost; empty where the
    /// line has every point.
    pub(super) band: Vec<Reach>,
}

/// How many of so many points become one.
pub(super) fn part(points: usize) -> usize {
    if points <= WHOLE_MAX { 1 } else { points.div_ceil(PARTS) }
}

/// Parts of equal length become one point each, and a gap where they had one.
pub(super) fn thin(points: &[Point], keep: Keep) -> Thinned {
    let part = part(points.len());
    if part == 1 {
        return Thinned { line: points.to_vec(), band: Vec::new() };
    }
    let (mut line, mut band) = (Vec::new(), Vec::new());
    for part in points.chunks(part) {
        let mut there: Vec<(f64, f64)> = part.iter().flatten().copied().collect();
        if let (Some(first), Some(last)) = (there.first().copied(), there.last().copied()) {
            let x = f64::midpoint(first.0, last.0);
            there.sort_by(|a, b| a.1.total_cmp(&b.1));
            let (low, middle, high) = (there[0].1, there[there.len() / 2].1, there[there.len() - 1].1);
            line.push(Some((x, if keep == Keep::Middle { middle } else { high })));
            band.push(Some((x, low, high)));
        }
        if part.contains(&None) {
            line.push(None);
            band.push(None);
        }
    }
    if keep == Keep::Highest {
        band.clear();
    }
    Thinned { line, band }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn peaks_and_gaps_outlive_thinning(
            values in prop::collection::vec(prop::option::weighted(0.99, 0_u32..1_000_000), 0..5_000),
        ) {
            let points: Vec<Point> =
                (0_u32..).zip(values).map(|(at, value)| value.map(|value| (f64::from(at), f64::from(value)))).collect();
            let heights = |points: &[Point]| points.iter().flatten().map(|point| point.1 as u64).collect::<Vec<_>>();
            let all = heights(&points);
            let highest = thin(&points, Keep::Highest);
            prop_assert_eq!(heights(&highest.line).into_iter().max(), all.iter().copied().max());
            prop_assert!(highest.band.is_empty());
            let middle = thin(&points, Keep::Middle);
            prop_assert!(middle.line.len() <= WHOLE_MAX && middle.band.len() <= WHOLE_MAX);
            prop_assert_eq!(middle.line.contains(&None), points.contains(&None));
            prop_assert!(middle.line.iter().flatten().map(|point| point.0).is_sorted());
            if !middle.band.is_empty() {
                let reach = || middle.band.iter().flatten();
                prop_assert_eq!(reach().map(|reach| reach.1 as u64).min(), all.iter().min().copied());
                prop_assert_eq!(reach().map(|reach| reach.2 as u64).max(), all.iter().max().copied());
            }
        }
    }

    #[test]
    fn a_line_that_can_be_drawn_whole_is() {
        let points = vec![Some((1.0, 2.0)); WHOLE_MAX];
        assert_eq!(thin(&points, Keep::Middle), Thinned { line: points, band: Vec::new() });
    }
}
