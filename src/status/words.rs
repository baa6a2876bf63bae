//! Pure: times, durations and numbers as people read them: `7m`, `12 days`, `17:30Z`, `29,387`.
//!
//! Ages are coarse, because `7m12s` in a sentence is noise; spans are exact, because a promotion
//! that took `4m12s` is a fact.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// One unit: `41s`, `7m`, `3h`, `12 days`. Two days are shown in hours up to 47h, so that a unit
/// never hides more than half of what it says.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        HOUR..172_800 => format!("{}h", seconds / HOUR),
        _ => format!("{} days", seconds / DAY),
    }
}

/// Between two moments of one clock; a moment in the future counts as now.
pub fn age_of(at: Timestamp, now: Timestamp) -> String {
    age(seconds_between(at, now))
}

/// Whole seconds from `at` to `now`; 0 when `at` is later.
pub fn seconds_between(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0)
}

/// The two largest units, the second only when it is not zero: `4m12s`, `2m50s`, `1h`, `3d4h`.
pub fn span(seconds: u64) -> String {
    let units = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(3);
    let (unit, size) = units[first];
    let rest = seconds % size;
    match units.get(first + 1) {
        Some((next, smaller)) if rest >= *smaller => {
            format!("{}{unit}{}{next}", seconds / size, rest / smaller)
        }
        Some(_) | None => format!("{}{unit}", seconds / size),
    }
}

/// As [`span`], with milliseconds below ten seconds: a run of `0s` would say nothing.
pub fn span_of(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if seconds < 10.0 {
        return if seconds < 1.0 {
            format!("{:.0}ms", seconds * 1000.0)
        } else {
            format!("{seconds:.1}s")
        };
    }
    span(SignedDuration::try_from_secs_f64(seconds).map_or(0, |d| d.as_secs().unsigned_abs()))
}

/// `17:30Z` on the day of `now`, `2026-11-20 17:30Z` on any other.
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let (at, now) = (at.to_zoned(TimeZone::UTC), now.to_zoned(TimeZone::UTC));
    let format = if at.date() == now.date() { "%H:%MZ" } else { "%Y-%m-%d %H:%MZ" };
    at.strftime(format).to_string()
}

/// `2026-11-20 17:30:07Z`
pub fn full(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `17:30Z (7m ago)`
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({} ago)", clock(at, now), age_of(at, now))
}

/// `in 2m50s`, or `due` once it has passed.
pub fn until(at: Timestamp, now: Timestamp) -> String {
    match seconds_between(now, at) {
        0 => "due".to_owned(),
        seconds => format!("in {}", span(seconds)),
    }
}

/// `29,387`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 standby`, `2 standbys`
pub fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(number as u64), if number == 1 { one } else { many })
}

/// `812 B`, `1.4 MiB`
pub fn bytes(number: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    // Exact enough for reading: the mantissa of an f64 holds 8 PiB.
    #[allow(clippy::cast_precision_loss)]
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (3600, "1h"),
            (47 * 3600 + 3599, "47h"),
            (48 * 3600, "2 days"),
            (12 * 86_400 + 5, "12 days"),
        ] {
            assert_eq!(age(seconds), expected);
        }
    }

    #[test]
    fn a_span_has_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0s"),
            (45, "45s"),
            (170, "2m50s"),
            (3600, "1h"),
            (3601, "1h"),
            (5400, "1h30m"),
            (3 * 86_400 + 4 * 3600 + 59, "3d4h"),
        ] {
            assert_eq!(span(seconds), expected);
        }
        for (seconds, expected) in
            [(0.0384, "38ms"), (1.25, "1.2s"), (252.9, "4m12s"), (f64::NAN, "?"), (-1.0, "?")]
        {
            assert_eq!(span_of(seconds), expected);
        }
    }

    #[test]
    fn a_clock_names_the_day_only_when_it_is_another() {
        let now: Timestamp = "2026-11-20T17:37:12Z".parse().unwrap();
        let check = |at: &str, expected: &str| {
            assert_eq!(clock(at.parse().unwrap(), now), expected);
        };
        check("2026-11-20T17:30:59Z", "17:30Z");
        check("2026-11-19T23:59:59Z", "2026-11-19 23:59Z");
        assert_eq!(until(now, now), "due");
        assert_eq!(until("2026-11-20T17:40:02Z".parse().unwrap(), now), "in 2m50s");
        assert_eq!(age_of("2026-11-20T18:00:00Z".parse().unwrap(), now), "0s");
    }

    #[test]
    fn numbers_are_grouped_and_bytes_scaled() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (29_387, "29,387"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), expected);
        }
        for (number, expected) in [(812, "812 B"), (1024, "1.0 KiB"), (1_468_006, "1.4 MiB")] {
            assert_eq!(bytes(number), expected);
        }
    }
}
