//! Dates as people write them, in microseconds.

use jiff::Timestamp;
use jiff::civil::Date;

/// The earliest date of a document: 1678-01-01. The engine keeps 64-bit
/// nanoseconds, which end 106 days before.
pub const DATE_MIN: i64 = -9_214_560_000_000_000;
/// The latest date of a document: the last microsecond of 2261.
pub const DATE_MAX: i64 = 9_214_646_399_999_999;

const DAY_MICROSECONDS: i64 = 24 * 60 * 60 * 1_000_000;

/// A date as it was given. Not yet checked against [`DATE_MIN`] and
/// [`DATE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// A moment.
    Moment(i64),
    /// A whole day, by its midnight in UTC.
    Day(i64),
}

impl Given {
    /// Reads RFC 3339 with an offset, or `YYYY-MM-DD`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // jiff reads far more forms than we promise.
        let shape = |at: usize, byte: u8| text.as_bytes().get(at) == Some(&byte);
        if !shape(4, b'-') || !shape(7, b'-') {
            return None;
        }
        if text.len() == 10 {
            let date: Date = text.parse().ok()?;
            // Not by way of a timestamp: those end before the year 9999 does.
            let days = date.since(Date::constant(1970, 1, 1)).ok()?.get_days();
            return Some(Self::Day(i64::from(days) * DAY_MICROSECONDS));
        }
        let timed = (shape(10, b'T') || shape(10, b't') || shape(10, b' ')) && shape(13, b':');
        if !timed || text.ends_with(']') {
            return None;
        }
        let moment: Timestamp = text.parse().ok()?;
        Some(Self::Moment(moment.as_microsecond()))
    }

    /// The moment, or the first of the day.
    pub(crate) fn first(self) -> i64 {
        match self {
            Self::Moment(at) | Self::Day(at) => at,
        }
    }

    /// The moment, or the last microsecond of the day.
    pub(crate) fn last(self) -> i64 {
        match self {
            Self::Moment(at) => at,
            Self::Day(at) => at + (DAY_MICROSECONDS - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_two_forms() {
        assert_eq!(Given::parse("1970-01-02"), Some(Given::Day(DAY_MICROSECONDS)));
        assert_eq!(Given::parse("1970-01-01T00:00:01.5Z"), Some(Given::Moment(1_500_000)));
        assert_eq!(Given::parse("1970-01-01T01:00:00+01:00"), Some(Given::Moment(0)));
        for bad in [
            "",
            "1970",
            "1970-13-01",
            "19700101",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00Z[UTC]",
            "tomorrow",
            "1970-1-1",
            "1970-01-0é",
        ] {
            assert_eq!(Given::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_limits_are_years() {
        assert!(Given::parse("9999-12-31").is_some_and(|day| day.last() > DATE_MAX));
        assert!(Given::parse("0001-01-01").is_some_and(|day| day.first() < DATE_MIN));
        assert_eq!(Given::parse("1678-01-01").map(Given::first), Some(DATE_MIN));
        assert_eq!(Given::parse("2261-12-31").map(Given::last), Some(DATE_MAX));
    }
}
