//! Quantities as a person reads them.
//!
//! **Invariant:** what is not a number is [`NONE`], never `NaN` or `inf`.

/// Where there is nothing to say.
pub(super) const NONE: &str = "-";

/// A time in µs, to three digits, in the unit that suits it.
pub(super) fn time(us: f64) -> String {
    scaled(us, figures)
}

/// The same without zeros at the end, for an axis.
pub(super) fn short_time(us: f64) -> String {
    scaled(us, trimmed)
}

fn scaled(us: f64, digits: fn(f64) -> String) -> String {
    if !us.is_finite() {
        return NONE.to_owned();
    }
    // Rounded first: 999,900 µs is a second, not 1000 ms.
    let us = significant(us);
    match us.abs() {
        // Latencies are whole µs: `5 µs` claims no more than was measured.
        below if below < 1e3 => format!("{} µs", trimmed(us)),
        below if below < 1e6 => format!("{} ms", digits(us / 1e3)),
        _ => format!("{} s", digits(us / 1e6)),
    }
}

/// A count or a rate: three digits, or all of a large whole part.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    match value.abs() {
        from if from >= 1e15 => format!("{value:.2e}"),
        from if from >= 999.95 => grouped(value),
        from if from >= 100.0 => trim(&format!("{value:.1}")),
        from if from > 0.0 && from < 1e-6 => format!("{value:.2e}"),
        _ => trimmed(significant(value)),
    }
}

/// Cores, to a hundredth: a clock that ticks a hundred times a second counts them.
pub(super) fn cores(cores: f64) -> String {
    if cores.abs() < 1e6 { format!("{cores:.2}") } else { number(cores) }
}

/// A part of a whole in percent, which is 0 or 100 % only where it is all.
pub(super) fn share(part: f64, whole: f64) -> String {
    let percent = 100.0 * part / whole;
    match percent {
        _ if !percent.is_finite() => NONE.to_owned(),
        p if p <= 0.0 => "0 %".to_owned(),
        p if p < 0.001 => "<0.001 %".to_owned(),
        p if p < 0.009_95 => format!("{p:.4} %"),
        p if p < 0.099_5 => format!("{p:.3} %"),
        p if p < 0.995 => format!("{p:.2} %"),
        p if p < 9.95 => format!("{p:.1} %"),
        p if p < 99.0 => format!("{p:.0} %"),
        p if p < 99.95 => format!("{p:.1} %"),
        p if p < 100.0 => ">99.9 %".to_owned(),
        _ => "100 %".to_owned(),
    }
}

/// A stretch of time in seconds, for people: `90 s`, `20 min 34 s`, `2 h`.
pub(super) fn span(seconds: f64) -> String {
    /// Up to here seconds are easily pictured.
    const SECONDS_MAX: f64 = 120.0;
    if !(SECONDS_MAX..1e9).contains(&seconds) {
        return if seconds.is_finite() { format!("{} s", number(seconds)) } else { NONE.to_owned() };
    }
    let whole = seconds.round() as u64;
    let parts = [(whole / 3_600, "h"), (whole / 60 % 60, "min"), (whole % 60, "s")];
    // Seconds do not matter beside hours.
    let shown = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .take(2)
        .filter(|(_, unit)| whole < 3_600 || *unit != "s");
    shown.map(|(count, unit)| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

/// At most `length` characters, without those that control a terminal.
pub(super) fn clipped(text: &str, length: usize) -> String {
    let clean = |char: char| if char.is_control() { ' ' } else { char };
    if text.chars().count() <= length {
        return text.chars().map(clean).collect();
    }
    text.chars().take(length.saturating_sub(1)).map(clean).chain(['…']).collect()
}

/// Rounds to three digits.
fn significant(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let exponent = 2 - value.abs().log10().floor() as i32;
    if exponent > 0 {
        let scale = 10_f64.powi(exponent);
        (value * scale).round() / scale
    } else {
        let scale = 10_f64.powi(-exponent);
        (value / scale).round() * scale
    }
}

/// Three digits.
fn figures(value: f64) -> String {
    match value.abs() {
        below if below < 10.0 => format!("{value:.2}"),
        below if below < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn trimmed(value: f64) -> String {
    trim(&format!("{value:.9}"))
}

fn trim(digits: &str) -> String {
    let trimmed =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    if trimmed == "-0" { "0".to_owned() } else { trimmed.to_owned() }
}

/// A whole number with a comma after each thousand.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit_that_suits_them() {
        let read = [0.0, 7.0, 41.5, 941.0, 999.9, 1_234.0, 12_345.0, 999_900.0, 61e6].map(time);
        let wanted =
            ["0 µs", "7 µs", "41.5 µs", "941 µs", "1.00 ms", "1.23 ms", "12.3 ms", "1.00 s", "61.0 s"];
        assert_eq!(read, wanted);
        assert_eq!([5e3, 2e5, 1e6].map(short_time), ["5 ms", "200 ms", "1 s"]);
    }

    #[test]
    fn numbers_are_short_but_keep_their_whole_part() {
        let read = [0.0, 1e-9, 0.012_34, 3.0, 17.25, 199.84, 999.96, 12_345.6, -1_500.0, 1e300].map(number);
        assert_eq!(
            read,
            ["0", "1.00e-9", "0.0123", "3", "17.3", "199.8", "1,000", "12,346", "-1,500", "1.00e300"]
        );
    }

    #[test]
    fn a_share_is_all_or_nothing_only_where_it_is() {
        let read =
            [0.0, 0.000_1, 0.012_34, 0.5, 0.999, 43.2, 99.5, 99.99, 100.0].map(|part| share(part, 100.0));
        assert_eq!(
            read,
            ["0 %", "<0.001 %", "0.012 %", "0.50 %", "1.0 %", "43 %", "99.5 %", ">99.9 %", "100 %"]
        );
    }

    #[test]
    fn long_stretches_are_told_in_minutes_and_hours() {
        let read = [0.5, 90.0, 120.0, 1_234.0, 3_600.0, 3_601.0, 5_400.0].map(span);
        assert_eq!(read, ["0.5 s", "90 s", "2 min", "20 min 34 s", "1 h", "1 h", "1 h 30 min"]);
    }

    #[test]
    fn what_is_no_number_is_a_dash() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(
                [time(value), short_time(value), number(value), share(value, 1.0), span(value)],
                [NONE; 5]
            );
        }
        assert_eq!(share(0.0, 0.0), NONE);
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(clipped("a\u{1b}[2Jb\nc", 20), "a [2Jb c");
        assert_eq!(clipped("abcdef", 4), "abc…");
    }
}
