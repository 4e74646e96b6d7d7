//! Lengths of time by a law: injected faults and simulated work.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration::Text;

/// Longest length that is drawn, in µs: an hour.
const MAX_US: f64 = 3.6e9;

/// A law by which lengths of time are drawn, as a settings file or a JSON body
/// writes it: `{"constant": "5ms"}`, `{"lognormal": {"mean": "1ms", "sigma": 1.0}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Distribution {
    /// Always the same.
    Constant(Text),
    /// Evenly between the two.
    Uniform(Text, Text),
    /// Without memory, with this mean.
    Exponential(Text),
    /// The logarithm is normal.
    Lognormal {
        /// The mean of the lengths, not of their logarithms.
        mean: Text,
        /// The standard deviation of the logarithms.
        sigma: f64,
    },
    /// Few are long: the share that is longer than `x` is `(least / x)^alpha`.
    Pareto {
        /// The shortest.
        least: Text,
        /// The smaller, the more are long.
        alpha: f64,
        /// The longest.
        most: Text,
    },
    /// One of these laws, by their weights.
    Mixture(Vec<(f64, Distribution)>),
    /// One of these, each as likely: lengths that were measured.
    Samples(Vec<Text>),
}

impl Distribution {
    /// Says what is wrong with its numbers.
    ///
    /// # Errors
    /// What would be accepted.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Constant(_) | Self::Exponential(_) => Ok(()),
            Self::Uniform(from, to) if from.0 > to.0 => {
                Err("uniform takes the shorter length first".to_owned())
            }
            Self::Uniform(..) => Ok(()),
            Self::Lognormal { sigma, .. } if !(0.0..=5.0).contains(sigma) => {
                Err(format!("sigma is {sigma}; it must be 0 to 5"))
            }
            Self::Lognormal { .. } => Ok(()),
            Self::Pareto { least, alpha, most } => {
                if !(0.1..=100.0).contains(alpha) {
                    return Err(format!("alpha is {alpha}; it must be 0.1 to 100"));
                }
                if least.0.is_zero() || least.0 > most.0 {
                    return Err("pareto's least must be above 0 and at most its most".to_owned());
                }
                Ok(())
            }
            Self::Mixture(parts) => {
                let sum: f64 = parts.iter().map(|(weight, _)| *weight).sum();
                if parts.iter().any(|(weight, _)| *weight < 0.0) || !(sum > 0.0 && sum.is_finite()) {
                    return Err("the weights of a mixture must be at least 0, and one above".to_owned());
                }
                parts.iter().try_for_each(|(_, part)| part.check())
            }
            Self::Samples(samples) if samples.is_empty() => Err("there are no samples".to_owned()),
            Self::Samples(_) => Ok(()),
        }
    }

    /// Draws a length; `unit` returns numbers from 0 up to and without 1.
    pub fn draw(&self, unit: &mut dyn FnMut() -> f64) -> Duration {
        let us = self.draw_us(unit).clamp(0.0, MAX_US);
        Duration::from_nanos((us * 1_000.0) as u64)
    }

    fn draw_us(&self, unit: &mut dyn FnMut() -> f64) -> f64 {
        let us = |text: &Text| text.0.as_secs_f64() * 1e6;
        match self {
            Self::Constant(length) => us(length),
            Self::Uniform(from, to) => us(from) + (us(to) - us(from)) * unit(),
            Self::Exponential(mean) => -(1.0 - unit()).ln() * us(mean),
            Self::Lognormal { mean, sigma } => {
                // Box and Muller (1958); one of the two is enough.
                let normal = (-2.0 * (1.0 - unit()).ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
                us(mean) * (sigma * normal - sigma * sigma / 2.0).exp()
            }
            Self::Pareto { least, alpha, most } => {
                (us(least) * (1.0 - unit()).powf(-1.0 / alpha)).min(us(most))
            }
            Self::Mixture(parts) => {
                let sum: f64 = parts.iter().map(|(weight, _)| *weight).sum();
                let mut point = unit() * sum;
                for (weight, part) in parts {
                    if point < *weight {
                        return part.draw_us(unit);
                    }
                    point -= weight;
                }
                // Only by rounding.
                parts.last().map_or(0.0, |(_, part)| part.draw_us(unit))
            }
            Self::Samples(samples) => {
                let at = (unit() * samples.len() as f64) as usize;
                samples.get(at).map_or(0.0, us)
            }
        }
    }

    /// The mean, in µs.
    #[must_use]
    pub fn mean_us(&self) -> f64 {
        let us = |text: &Text| text.0.as_secs_f64() * 1e6;
        match self {
            Self::Constant(length) | Self::Exponential(length) => us(length),
            Self::Uniform(from, to) => f64::midpoint(us(from), us(to)),
            Self::Lognormal { mean, .. } => us(mean),
            Self::Pareto { least, alpha, most } => {
                // Of the law that is cut off at `most`.
                let (least, most) = (us(least), us(most));
                if (alpha - 1.0).abs() < 1e-9 {
                    least * (1.0 + (most / least).ln())
                } else {
                    (alpha * least - least.powf(*alpha) * most.powf(1.0 - alpha)) / (alpha - 1.0)
                }
            }
            Self::Mixture(parts) => {
                let sum: f64 = parts.iter().map(|(weight, _)| *weight).sum();
                parts.iter().map(|(weight, part)| weight / sum * part.mean_us()).sum()
            }
            Self::Samples(samples) => samples.iter().map(us).sum::<f64>() / samples.len().max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn text(us: u64) -> Text {
        Text(Duration::from_micros(us))
    }

    #[test]
    fn the_mean_of_what_is_drawn_is_the_mean() {
        let heavy = Distribution::Pareto { least: text(500), alpha: 1.5, most: text(20_000) };
        for law in [
            Distribution::Constant(text(700)),
            Distribution::Uniform(text(100), text(900)),
            Distribution::Exponential(text(1_000)),
            Distribution::Lognormal { mean: text(1_000), sigma: 1.0 },
            heavy.clone(),
            Distribution::Mixture(vec![(3.0, Distribution::Constant(text(100))), (1.0, heavy)]),
            Distribution::Samples(vec![text(100), text(200), text(600)]),
        ] {
            law.check().unwrap();
            let random = Random::seeded(7);
            let mut unit = || random.unit();
            let draws = 200_000;
            let sum: f64 = (0..draws).map(|_| law.draw(&mut unit).as_secs_f64() * 1e6).sum();
            let (mean, known) = (sum / f64::from(draws), law.mean_us());
            assert!((mean / known - 1.0).abs() < 0.02, "{law:?}: {mean} and {known}");
        }
    }

    #[test]
    fn it_is_written_as_people_write_it_and_wrong_numbers_are_refused() {
        let law: Distribution = serde_json::from_str(
            r#"{"mixture": [[99, {"constant": "1ms"}], [1, {"uniform": ["1s", "2s"]}]]}"#,
        )
        .unwrap();
        assert!((law.mean_us() - 15_990.0).abs() < 1e-6);
        let again: Distribution = serde_json::from_str(&serde_json::to_string(&law).unwrap()).unwrap();
        assert_eq!(law, again);
        for wrong in [
            r#"{"uniform": ["2s", "1s"]}"#,
            r#"{"lognormal": {"mean": "1ms", "sigma": 9}}"#,
            r#"{"pareto": {"least": "0s", "alpha": 1, "most": "1s"}}"#,
            r#"{"mixture": []}"#,
            r#"{"samples": []}"#,
        ] {
            assert!(serde_json::from_str::<Distribution>(wrong).unwrap().check().is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Distribution>(r#"{"normal": "1ms"}"#).is_err());
    }
}
