//! What shall be injected, as a settings file or a JSON body says it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration::{Text, print_ms};
use crate::{Distribution, Random};

/// Longest that anything is held: far beyond the patience of every caller, and
/// short enough that a forgotten call goes away by itself.
pub const HELD_MAX: Duration = Duration::from_secs(60);
/// The mean time between stalls: whoever asks after an idle hour draws all that
/// were in it.
const EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3_600));

/// What is injected; the default is nothing.
///
/// ```json
/// {"seed": 7, "calls": ["search"], "errors": 0.05, "drops": 0.01,
///  "delay": {"probability": 0.1, "length": {"lognormal": {"mean": "5ms", "sigma": 1.0}}},
///  "stall": {"length": "200ms", "every": "10s"},
///  "disk": {"probability": 0.02, "length": {"constant": "20ms"}}}
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Repeats what is drawn; without one the system's randomness is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The calls of other nodes that the next four concern, by name; those that
    /// searches make without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<Vec<String>>,
    /// Calls that begin late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Chance>,
    /// Times at which no call goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// The share of calls that fail, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<f64>,
    /// The share of calls that nobody answers, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drops: Option<f64>,
    /// Tasks of the CPU pool and operations of the object store that take
    /// longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Chance>,
}

/// A length that comes now and then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// How often, from 0 to 1; always without it.
    #[serde(default = "always")]
    pub probability: f64,
    /// How long then; what is drawn beyond [`HELD_MAX`] is [`HELD_MAX`].
    pub length: Distribution,
}

/// Stalls of one length at random moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// How long each is.
    pub length: Text,
    /// The mean time from the end of one to the begin of the next.
    pub every: Text,
}

fn always() -> f64 {
    1.0
}

impl Spec {
    /// Checks every range, and the calls against those that there are.
    ///
    /// # Errors
    /// Says what is wrong and what would be accepted.
    pub fn check(&self, known: &[&str]) -> Result<(), String> {
        let shares = [("errors", self.errors), ("drops", self.drops)];
        for (name, share) in shares {
            share.map_or(Ok(()), |share| check_share(name, share))?;
        }
        if let Some(calls) = &self.calls {
            let unknown = calls.iter().find(|name| !known.contains(&name.as_str()));
            if let Some(name) = unknown {
                return Err(format!("calls names {name:?}: the calls are {}", known.join(", ")));
            }
            if calls.is_empty() {
                return Err("calls is empty: name some, or leave it out".to_owned());
            }
        }
        for (name, chance) in [("delay", &self.delay), ("disk", &self.disk)] {
            if let Some(Chance { probability, length }) = chance {
                check_share(&format!("{name}.probability"), *probability)?;
                length.check().map_err(|error| format!("{name}.length: {error}"))?;
                check_length(&format!("{name}.length"), longest(length), (Duration::ZERO, HELD_MAX))?;
            }
        }
        if let Some(stall) = &self.stall {
            check_length("stall.length", stall.length.0, (Duration::ZERO, HELD_MAX))?;
            check_length("stall.every", stall.every.0, EVERY)?;
        }
        Ok(())
    }
}

fn check_share(name: &str, share: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&share) {
        return Ok(());
    }
    Err(format!("{name} is {share}; it must be 0 to 1"))
}

fn check_length(name: &str, length: Duration, (least, most): (Duration, Duration)) -> Result<(), String> {
    if (least..=most).contains(&length) {
        return Ok(());
    }
    let text = |length: Duration| print_ms(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    Err(format!("{name} has {}; it must be {} to {}", text(length), text(least), text(most)))
}

/// The longest length that a distribution names.
fn longest(length: &Distribution) -> Duration {
    match length {
        Distribution::Constant(length) | Distribution::Exponential(length) => length.0,
        Distribution::Uniform(from, to) => from.0.max(to.0),
        Distribution::Lognormal { mean, .. } => mean.0,
        Distribution::Pareto { most, .. } => most.0,
        Distribution::Mixture(parts) => parts.iter().map(|(_, part)| longest(part)).max().unwrap_or_default(),
        Distribution::Samples(samples) => samples.iter().map(|sample| sample.0).max().unwrap_or_default(),
    }
}

impl Chance {
    /// Draws one; `None` where nothing is to happen.
    #[must_use]
    pub fn draw(&self, random: &Random) -> Option<Duration> {
        let happens = random.unit() < self.probability;
        happens.then(|| self.length.draw(&mut || random.unit()).min(HELD_MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: [&str; 2] = ["search", "fetch"];
    /// At a spread of 1 the mean of so many is good to 0.6 %.
    const DRAWS: u32 = 50_000;

    fn text(us: u64) -> Text {
        Text(Duration::from_micros(us))
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= expected * 0.04
    }

    fn read(json: &str) -> Result<Spec, String> {
        let spec: Spec = serde_json::from_str(json).map_err(|error| error.to_string())?;
        spec.check(&KNOWN).map(|()| spec)
    }

    #[test]
    fn a_spec_is_read_as_it_is_printed() {
        let spec = read(
            r#"{"seed": 7, "calls": ["search"], "errors": 0.05, "drops": 1,
                "delay": {"probability": 0.1, "length": {"lognormal": {"mean": "5ms", "sigma": 1.0}}},
                "stall": {"length": "200ms", "every": "10s"}, "disk": {"length": {"constant": "60s"}}}"#,
        )
        .unwrap();
        assert_eq!(spec.disk.as_ref().map(|disk| disk.probability), Some(1.0));
        assert_eq!(read(&serde_json::to_string(&spec).unwrap()), Ok(spec));
        assert_eq!(serde_json::to_string(&Spec::default()).unwrap(), "{}");
        assert_eq!(read("{}"), Ok(Spec::default()));
    }

    #[test]
    fn what_is_wrong_says_what_would_be_accepted() {
        for (json, says) in [
            (r#"{"dealy": {}}"#, "expected one of `seed`, `calls`, `delay`"),
            (r#"{"delay": {"length": {"gauss": "1ms"}}}"#, "expected one of `constant`, `uniform`"),
            (r#"{"delay": {"length": {"constant": 5}}}"#, "a duration such as \"500ms\""),
            (r#"{"delay": {"length": {"constant": "61s"}}}"#, "delay.length has 61s; it must be 0s to 1m"),
            (r#"{"delay": {"length": {"uniform": ["1s", "2m"]}}}"#, "delay.length has 2m"),
            (r#"{"delay": {"length": {"mixture": [[1, {"exponential": "1h"}]]}}}"#, "delay.length has 1h"),
            (r#"{"disk": {"length": {"samples": []}}}"#, "disk.length: there are no samples"),
            (
                r#"{"disk": {"probability": -0.1, "length": {"constant": "1s"}}}"#,
                "disk.probability is -0.1; it must be 0 to 1",
            ),
            (r#"{"errors": 1.5}"#, "errors is 1.5; it must be 0 to 1"),
            (r#"{"drops": 2}"#, "drops is 2; it must be 0 to 1"),
            (r#"{"calls": ["serach"]}"#, "the calls are search, fetch"),
            (r#"{"calls": []}"#, "leave it out"),
            (r#"{"stall": {"length": "2m", "every": "1s"}}"#, "stall.length has 2m"),
            (r#"{"stall": {"length": "1s", "every": "1ms"}}"#, "stall.every has 1ms; it must be 10ms to 1h"),
            (r#"{"stall": {"length": "1s"}}"#, "missing field `every`"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[test]
    fn a_chance_comes_as_often_as_it_says() {
        let random = Random::seeded(7);
        let share = |probability| {
            let chance = Chance { probability, length: Distribution::Constant(text(1)) };
            let came = (0..DRAWS).filter(|_| chance.draw(&random).is_some()).count();
            came as f64 / f64::from(DRAWS)
        };
        assert!(close(share(0.25), 0.25));
        assert_eq!((share(0.0), share(1.0)), (0.0, 1.0));
    }

    #[test]
    fn nothing_is_drawn_that_is_held_for_ever() {
        let wild = Distribution::Lognormal { mean: Text(HELD_MAX), sigma: 5.0 };
        let chance = Chance { probability: 1.0, length: wild };
        let random = Random::seeded(3);
        let longest = (0..DRAWS).filter_map(|_| chance.draw(&random)).max();
        assert_eq!(longest, Some(HELD_MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_drawn_has_the_mean_that_was_said(
            us in 100..500_000u64, sigma in 0.0..1.0f64, alpha in 1.5..4.0f64, seed in any::<u64>(),
        ) {
            for length in [
                Distribution::Constant(text(us)),
                Distribution::Uniform(text(us), text(3 * us)),
                Distribution::Exponential(text(us)),
                Distribution::Lognormal { mean: text(us), sigma },
                Distribution::Pareto { least: text(us), alpha, most: text(50 * us) },
            ] {
                let known = length.mean_us();
                let chance = Chance { probability: 1.0, length };
                let random = Random::seeded(seed);
                let sum: Duration = (0..DRAWS).filter_map(|_| chance.draw(&random)).sum();
                let mean = sum.as_secs_f64() * 1e6 / f64::from(DRAWS);
                prop_assert!(close(mean, known), "{chance:?}: {mean} and {known}");
            }
        }
    }
}
