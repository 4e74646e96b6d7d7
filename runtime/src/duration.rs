//! Durations as people write them: `500ms`, `1s`, `1.5s`, `2m`, `1h`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

const UNITS: [(&str, f64); 5] = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];

/// Reads a duration; `None` where the text is none.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    if number.len() > 18 || !number.chars().all(plain) {
        return None;
    }
    let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let seconds = number.parse::<f64>().ok()? * seconds;
    // To the microsecond: 0.3 s is 300 ms, not 299.999999.
    Duration::try_from_secs_f64((seconds * 1e6).round() / 1e6).ok()
}

/// What a refusal says.
pub const EXPECTED: &str = "a duration such as \"500ms\", \"2s\" or \"1m\"";

/// Prints whole milliseconds in the largest unit that is exact.
#[must_use]
pub fn print_ms(ms: u64) -> String {
    match ms {
        0 => "0s".into(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// A duration in a JSON body or a settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text(pub Duration);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                parse(text).map(Text).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let us = self.0.as_micros();
        if us.is_multiple_of(1_000) {
            serializer.collect_str(&format_args!("{}ms", us / 1_000))
        } else {
            serializer.collect_str(&format_args!("{us}us"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations() {
        for (text, ms) in [("500ms", 500), ("1s", 1_000), ("1.5s", 1_500), ("0.3s", 300), ("2m", 120_000)] {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1e9s", "1 s", "1sec", "1s ", "..s", "999999999999999999999s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read() {
        for ms in [0, 1, 999, 1_000, 1_500, 60_000, 3_600_000, 3_601_000] {
            assert_eq!(parse(&print_ms(ms)), Some(Duration::from_millis(ms)));
        }
    }
}
