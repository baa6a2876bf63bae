//! Pure: cron expression × time zone × now ⇒ next run, with the semantics of crontab(5).
//!
//! The `cron` crate walks the calendar; what it means by a line differs from crontab, silently in
//! part, so the fields are read here and handed over as plain lists:
//! * it counts weekdays from 1 = Sunday; crontab from 0 = Sunday, and 7 is Sunday too;
//! * it wants day of month *and* day of week; crontab takes either where both are restricted (a field
//!   that begins with `*` is not);
//! * it knows no `@midnight` and `@annually`.
//!
//! It walks in civil time dressed as UTC. Clock changes are resolved afterwards, as cron does it: a
//! fixed time that the clock jumps over runs once, as much later as the clock jumped; one that comes
//! twice runs once; a line whose hours begin with `*` runs by real time, in both passes.
//!
//! What may go wrong: the calendar of the crate ends with the year 2100, and so does every schedule.

use chrono::{DateTime, Datelike, TimeZone as _, Timelike, Utc};
use jiff::civil;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::fmt;

/// A crontab line (five fields or `@hourly` …) in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    expression: String,
    zone: TimeZone,
    /// Any of them fires: two where both days are restricted.
    schedules: Vec<cron::Schedule>,
    by_real_time: bool,
}

/// Farther than any clock has been set in one step, except across the date line.
const LARGEST_CLOCK_CHANGE: SignedDuration = SignedDuration::from_hours(3);

/// No crontab line is longer; a longer one is not worth a message with itself in it.
const MAX_EXPRESSION: usize = 256;

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

impl Cron {
    /// The error says what is wrong with the expression or the zone, and what would be right.
    pub fn parse(expression: &str, timezone: &str) -> Result<Self, String> {
        if expression.len() > MAX_EXPRESSION {
            return Err(format!("the expression is longer than {MAX_EXPRESSION} characters"));
        }
        let zone =
            TimeZone::get(timezone).map_err(|_| format!("there is no time zone {timezone:?}"))?;
        let (schedules, by_real_time) = parse_line(expression.trim())?;
        let begin = Utc.timestamp_opt(0, 0).single().expect("the epoch is a time");
        if schedules.iter().all(|schedule| schedule.after(&begin).next().is_none()) {
            return Err(format!("{expression:?} never fires: no month has such a day"));
        }
        Ok(Self { expression: expression.trim().to_owned(), zone, schedules, by_real_time })
    }

    /// The time zone in which its hours and days are.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first run strictly after `now`. The end of time where the calendar has no more.
    pub fn next_after(&self, now: Timestamp) -> Timestamp {
        let next = self.schedules.iter().filter_map(|schedule| self.next_of(schedule, now)).min();
        next.unwrap_or(Timestamp::MAX)
    }

    fn next_of(&self, schedule: &cron::Schedule, now: Timestamp) -> Option<Timestamp> {
        let local = self.zone.to_datetime(now);
        let begin = local.saturating_sub(LARGEST_CLOCK_CHANGE);
        let mut next: Option<Timestamp> = None;
        // Around a clock change a later civil time can be an earlier instant: look a little further
        // than the first that is found.
        let mut until: Option<civil::DateTime> = None;
        for time in schedule.after(&dressed(begin)?).map_while(undressed) {
            if until.is_some_and(|until| time > until) {
                break;
            }
            for instant in self.instants(time).into_iter().flatten().filter(|i| *i > now) {
                next = Some(next.map_or(instant, |best| best.min(instant)));
                until = until.or(Some(time.saturating_add(LARGEST_CLOCK_CHANGE)));
            }
        }
        next
    }

    /// When the clocks of the zone show this time and the line fires.
    fn instants(&self, time: civil::DateTime) -> [Option<Timestamp>; 2] {
        let found = self.zone.to_ambiguous_timestamp(time);
        match found.offset() {
            AmbiguousOffset::Gap { .. } if self.by_real_time => [None, None],
            AmbiguousOffset::Fold { .. } if self.by_real_time => {
                [found.earlier().ok(), found.later().ok()]
            }
            AmbiguousOffset::Unambiguous { .. }
            | AmbiguousOffset::Gap { .. }
            | AmbiguousOffset::Fold { .. } => [found.compatible().ok(), None],
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.expression, self.zone.iana_name().unwrap_or("UTC"))
    }
}

/// Civil time in the only form that the crate takes.
fn dressed(time: civil::DateTime) -> Option<DateTime<Utc>> {
    let (year, month, day) = (time.year().into(), unsigned(time.month()), unsigned(time.day()));
    let (hour, minute) = (unsigned(time.hour()), unsigned(time.minute()));
    Utc.with_ymd_and_hms(year, month, day, hour, minute, unsigned(time.second())).single()
}

fn unsigned(number: i8) -> u32 {
    u32::from(number.unsigned_abs())
}

fn undressed(time: DateTime<Utc>) -> Option<civil::DateTime> {
    let small = |number: u32| i8::try_from(number).ok();
    let year = i16::try_from(time.year()).ok()?;
    let date = civil::Date::new(year, small(time.month())?, small(time.day())?).ok()?;
    let time = civil::Time::new(small(time.hour())?, small(time.minute())?, 0, 0).ok()?;
    Some(date.to_datetime(time))
}

/// A field of a crontab line.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// Of `first` and those after it, in crontab's own order.
    words: &'static [&'static str],
}

const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, words: &[] },
    Field { name: "hour", first: 0, last: 23, words: &[] },
    Field { name: "day of month", first: 1, last: 31, words: &[] },
    Field { name: "month", first: 1, last: 12, words: &MONTHS },
    Field { name: "day of week", first: 0, last: 7, words: &WEEKDAYS },
];

fn parse_line(line: &str) -> Result<(Vec<cron::Schedule>, bool), String> {
    let written = match NICKNAMES.iter().find(|(nickname, _)| *nickname == line) {
        Some((_, meaning)) => meaning,
        None if line.starts_with('@') => {
            let known: Vec<&str> = NICKNAMES.iter().map(|(nickname, _)| *nickname).collect();
            return Err(format!("{line:?} is not known; there are {}", known.join(", ")));
        }
        None => line,
    };
    let fields: Vec<&str> = written.split_whitespace().collect();
    let Ok([minute, hour, day, month, weekday]) = <[&str; 5]>::try_from(fields) else {
        let count = written.split_whitespace().count();
        return Err(format!("{line:?} has {count} fields; crontab has five"));
    };
    let [minutes, hours, days, months, weekdays] = FIELDS;
    let minutes = list(&minutes.parse(minute)?);
    let hours = list(&hours.parse(hour)?);
    let days = list(&days.parse(day)?);
    let months = list(&months.parse(month)?);
    let names = weekdays.parse(weekday)?.into_iter().map(|day| WEEKDAYS[day as usize % 7]);
    let names: Vec<&str> = names.collect();
    let weekdays = names.join(",");
    let either = !day.starts_with('*') && !weekday.starts_with('*');
    let lines = if either {
        vec![
            format!("0 {minutes} {hours} {days} {months} *"),
            format!("0 {minutes} {hours} * {months} {weekdays}"),
        ]
    } else {
        vec![format!("0 {minutes} {hours} {days} {months} {weekdays}")]
    };
    let parse = |line: &String| line.parse().map_err(|error: cron::error::Error| error.to_string());
    let schedules = lines.iter().map(parse).collect::<Result<_, _>>()?;
    Ok((schedules, hour.starts_with('*')))
}

fn list(numbers: &BTreeSet<u32>) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

impl Field {
    /// All numbers that the text names.
    fn parse(&self, text: &str) -> Result<BTreeSet<u32>, String> {
        let mut numbers = BTreeSet::new();
        for item in text.split(',') {
            numbers.extend(self.item(item)?);
        }
        Ok(numbers)
    }

    /// `*`, `5`, `1-5`, `mon-fri`, and those with a step: `*/10`, `8-18/2`.
    fn item(&self, item: &str) -> Result<Vec<u32>, String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        // Seven is Sunday once more: a range over everything must not count it twice.
        let last = if self.is_weekday() { 6 } else { self.last };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (self.first, last),
            (_, Some((from, to))) => (self.number(from)?, self.number(to)?),
            (_, None) if step.is_some() => {
                let name = self.name;
                return Err(format!(
                    "{name} {item:?}: a step needs a range, such as {range}-{last}/{}",
                    step.unwrap_or_default()
                ));
            }
            (_, None) => (self.number(range)?, self.number(range)?),
        };
        let step = match step.map(str::parse::<usize>) {
            None => 1,
            Some(Ok(step)) if (1..=60).contains(&step) => step,
            Some(_) => return Err(format!("{} {item:?}: the step is no number from 1", self.name)),
        };
        if from <= to {
            return Ok((from..=to).step_by(step).collect());
        }
        if self.is_weekday() {
            // Friday to Monday: over the end of the week.
            return Ok((from..=to + 7).map(|day| day % 7).step_by(step).collect());
        }
        Err(format!("{} {item:?}: the range ends before it begins", self.name))
    }

    fn is_weekday(&self) -> bool {
        self.last == 7
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        if let Some(index) = self.words.iter().position(|word| word.eq_ignore_ascii_case(text)) {
            return Ok(self.first + u32::try_from(index).unwrap_or_default());
        }
        let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if all_digits && (self.first..=self.last).contains(&number) => Ok(number),
            _ => {
                let Self { name, first, last, words: _ } = self;
                Err(format!("{name} {text:?} is not a number from {first} to {last}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The next runs after `now`, in the zone's own clock.
    #[track_caller]
    fn check(expression: &str, zone: &str, now: &str, expected: &[&str]) {
        let cron = Cron::parse(expression, zone).unwrap();
        let mut now: Timestamp = now.parse().unwrap();
        for expected in expected {
            let next = cron.next_after(now);
            assert!(next > now, "{expression}: {next} is not after {now}");
            let shown = next.to_zoned(cron.zone.clone()).strftime("%Y-%m-%d %H:%M %z").to_string();
            assert_eq!(shown, *expected, "{expression} in {zone} after {now}");
            now = next;
        }
    }

    #[test]
    fn fields_read_as_in_crontab() {
        // 2026-11-20 is a Friday.
        let now = "2026-11-20T12:00:00Z";
        for (expression, next) in [
            ("*/30 * * * *", "2026-11-20 12:30 +0000"),
            ("0 2 * * *", "2026-11-21 02:00 +0000"),
            ("0 2 * * 1-5", "2026-11-23 02:00 +0000"),
            ("0 2 * * 0", "2026-11-22 02:00 +0000"),
            ("0 2 * * 7", "2026-11-22 02:00 +0000"),
            ("0 2 * * sun", "2026-11-22 02:00 +0000"),
            ("0 2 * * 6", "2026-11-21 02:00 +0000"),
            ("0 2 * * 5-7", "2026-11-21 02:00 +0000"),
            ("0 2 * * Sun-Tue", "2026-11-22 02:00 +0000"),
            ("0 2 * * */2", "2026-11-21 02:00 +0000"),
            ("0 2 * DEC *", "2026-12-01 02:00 +0000"),
            ("0 8-18/5 * * *", "2026-11-20 13:00 +0000"),
            ("5,10 12 * * *", "2026-11-20 12:05 +0000"),
            ("0 12 * * *", "2026-11-21 12:00 +0000"),
            ("@hourly", "2026-11-20 13:00 +0000"),
            ("@daily", "2026-11-21 00:00 +0000"),
            ("@midnight", "2026-11-21 00:00 +0000"),
            ("@weekly", "2026-11-22 00:00 +0000"),
            ("@monthly", "2026-12-01 00:00 +0000"),
            ("@yearly", "2027-01-01 00:00 +0000"),
            ("@annually", "2027-01-01 00:00 +0000"),
            ("0 0 29 2 *", "2028-02-29 00:00 +0000"),
            ("  0   0 1 1 *  ", "2027-01-01 00:00 +0000"),
        ] {
            check(expression, "UTC", now, &[next]);
        }
    }

    #[test]
    fn a_range_of_weekdays_may_pass_the_end_of_the_week() {
        let days = [
            "2026-11-20 02:00",
            "2026-11-21 02:00",
            "2026-11-22 02:00",
            "2026-11-23 02:00",
            "2026-11-27 02:00",
        ];
        let days = days.map(|day| format!("{day} +0000"));
        check(
            "0 2 * * fri-mon",
            "UTC",
            "2026-11-19T12:00:00Z",
            &days.each_ref().map(String::as_str),
        );
    }

    #[test]
    fn two_restricted_days_mean_either() {
        check(
            "0 0 13 * 5",
            "UTC",
            "2026-11-06T12:00:00Z",
            &[
                "2026-11-13 00:00 +0000",
                "2026-11-20 00:00 +0000",
                "2026-11-27 00:00 +0000",
                "2026-12-04 00:00 +0000",
                "2026-12-11 00:00 +0000",
                "2026-12-13 00:00 +0000",
            ],
        );
        // A field that begins with a star restricts nothing: both must agree.
        check(
            "0 0 */2 * 5",
            "UTC",
            "2026-11-06T12:00:00Z",
            &["2026-11-13 00:00 +0000", "2026-11-27 00:00 +0000"],
        );
    }

    #[test]
    fn what_cannot_fire_is_refused_with_the_reason() {
        for (expression, word) in [
            ("0 0 30 2 *", "never fires"),
            ("0 0 31 2,4,6,9,11 *", "never fires"),
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 * * * * *", "6 fields"),
            ("60 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of month"),
            ("* * * 13 *", "month"),
            ("* * * * 8", "day of week"),
            ("* * * * L", "day of week"),
            ("*/0 * * * *", "step"),
            ("5/10 * * * *", "5-59/10"),
            ("30-10 * * * *", "ends before"),
            ("1,, * * * *", "minute"),
            ("+1 * * * *", "minute"),
            ("? * * * *", "minute"),
            ("@every 5m", "@hourly"),
            ("@reboot", "@hourly"),
        ] {
            let why = Cron::parse(expression, "UTC").expect_err(expression);
            assert!(why.contains(word), "{expression}: {why}");
        }
        assert!(Cron::parse("@daily", "Europe/Berlim").unwrap_err().contains("Europe/Berlim"));
        assert!(Cron::parse(&"0,".repeat(1000), "UTC").is_err());
    }

    #[test]
    fn a_time_that_the_clock_jumps_over_runs_once_and_later() {
        let zone = "Europe/Berlin";
        check(
            "30 2 * * *",
            zone,
            "2026-03-28T12:00:00Z",
            &["2026-03-29 03:30 +0200", "2026-03-30 02:30 +0200"],
        );
        check(
            "30 2 * * *",
            zone,
            "2027-03-27T12:00:00Z",
            &["2027-03-28 03:30 +0200", "2027-03-29 02:30 +0200"],
        );
        // The later civil time is the earlier instant; two that fall together are one.
        check(
            "0,30 2,3 * * *",
            zone,
            "2026-03-28T12:00:00Z",
            &["2026-03-29 03:00 +0200", "2026-03-29 03:30 +0200", "2026-03-30 02:00 +0200"],
        );
        check(
            "15 2,3 * * *",
            zone,
            "2026-03-28T12:00:00Z",
            &["2026-03-29 03:15 +0200", "2026-03-30 02:15 +0200"],
        );
        check(
            "*/30 * * * *",
            zone,
            "2026-03-29T00:00:00Z",
            &["2026-03-29 01:30 +0100", "2026-03-29 03:00 +0200"],
        );
    }

    #[test]
    fn a_time_that_comes_twice_runs_once_unless_the_line_runs_by_real_time() {
        let zone = "Europe/Berlin";
        check(
            "30 2 * * *",
            zone,
            "2026-10-24T12:00:00Z",
            &["2026-10-25 02:30 +0200", "2026-10-26 02:30 +0100"],
        );
        check(
            "30 2 * * *",
            zone,
            "2027-10-30T12:00:00Z",
            &["2027-10-31 02:30 +0200", "2027-11-01 02:30 +0100"],
        );
        check(
            "*/30 * * * *",
            zone,
            "2026-10-25T00:00:00Z",
            &[
                "2026-10-25 02:30 +0200",
                "2026-10-25 02:00 +0100",
                "2026-10-25 02:30 +0100",
                "2026-10-25 03:00 +0100",
            ],
        );
        // In the second pass of the hour, where the crate alone gives a time of the past.
        check("10 2 * * *", zone, "2026-10-25T01:20:00Z", &["2026-10-26 02:10 +0100"]);
        check(
            "10 * * * *",
            zone,
            "2026-10-25T01:05:00Z",
            &["2026-10-25 02:10 +0100", "2026-10-25 03:10 +0100"],
        );
    }

    #[test]
    fn zones_with_other_rules_hold_too() {
        // Half an hour, and in the other half of the year.
        let zone = "Australia/Lord_Howe";
        check(
            "15 2 * * *",
            zone,
            "2026-10-03T00:00:00Z",
            &["2026-10-04 02:45 +1100", "2026-10-05 02:15 +1100"],
        );
        check(
            "45 1 * * *",
            zone,
            "2026-04-04T00:00:00Z",
            &["2026-04-05 01:45 +1100", "2026-04-06 01:45 +1030"],
        );
        check(
            "*/15 * * * *",
            zone,
            "2026-04-04T14:40:00Z",
            &[
                "2026-04-05 01:45 +1100",
                "2026-04-05 01:30 +1030",
                "2026-04-05 01:45 +1030",
                "2026-04-05 02:00 +1030",
            ],
        );
        // Midnight itself was jumped over until 2018; no changes since.
        let zone = "America/Sao_Paulo";
        check(
            "0 0 * * *",
            zone,
            "2018-11-03T12:00:00Z",
            &["2018-11-04 01:00 -0200", "2018-11-05 00:00 -0200"],
        );
        check("0 0 * * *", zone, "2026-11-03T12:00:00Z", &["2026-11-04 00:00 -0300"]);
        check("0 9 * * 1", "Asia/Kathmandu", "2026-11-20T00:00:00Z", &["2026-11-23 09:00 +0545"]);
    }

    #[test]
    fn the_end_of_the_calendar_is_the_end_of_the_schedule() {
        let cron = Cron::parse("@daily", "UTC").unwrap();
        assert_eq!(cron.next_after("2150-01-01T00:00:00Z".parse().unwrap()), Timestamp::MAX);
    }

    const ZONES: [&str; 5] =
        ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia"];

    fn field(first: u32, last: u32) -> impl Strategy<Value = String> {
        let number = move || first..=last;
        prop_oneof![
            3 => Just("*".to_owned()),
            1 => (1..=20_u32).prop_map(|step| format!("*/{step}")),
            3 => number().prop_map(|number| number.to_string()),
            1 => (number(), number(), 1..5_u32).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
            1 => (number(), number()).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    }

    fn line() -> impl Strategy<Value = String> {
        (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7))
            .prop_map(|(a, b, c, d, e)| format!("{a} {b} {c} {d} {e}"))
    }

    /// Whether a field names a number, read anew: `7` is given as `0` too.
    fn names(field: &str, number: u32) -> bool {
        field.split(',').any(|item| {
            let (range, step) = item.split_once('/').unwrap_or((item, "1"));
            let (from, to) = match range.split_once('-') {
                Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
                None if range == "*" => (u32::MAX, u32::MAX),
                None => (range.parse().unwrap(), range.parse().unwrap()),
            };
            let step: u32 = step.parse().unwrap();
            if from == u32::MAX {
                return number.is_multiple_of(step);
            }
            (from..=to).contains(&number) && (number - from).is_multiple_of(step)
        })
    }

    fn fires(line: &str, at: civil::DateTime) -> bool {
        let fields: Vec<&str> = line.split(' ').collect();
        let day = unsigned(at.day());
        // `*/n` counts from the first day of the month, which is 1.
        let of_month = names(fields[2], if fields[2].starts_with('*') { day - 1 } else { day });
        let weekday = unsigned(at.weekday().to_sunday_zero_offset());
        let seven = !fields[4].starts_with('*') && weekday == 0 && names(fields[4], 7);
        let of_week = names(fields[4], weekday) || seven;
        let either = !fields[2].starts_with('*') && !fields[4].starts_with('*');
        let month = unsigned(at.month());
        names(fields[0], unsigned(at.minute()))
            && names(fields[1], unsigned(at.hour()))
            && names(fields[3], if fields[3].starts_with('*') { month - 1 } else { month })
            && if either { of_month || of_week } else { of_month && of_week }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_next_run_is_always_later(line in line(), zone in 0..ZONES.len(), second in 1_400_000_000_i64..2_000_000_000) {
            let Ok(cron) = Cron::parse(&line, ZONES[zone]) else { return Ok(()) };
            let mut now = Timestamp::from_second(second).unwrap();
            for _ in 0..5 {
                let next = cron.next_after(now);
                prop_assert!(next > now, "{} after {}", next, now);
                now = next;
            }
        }

        #[test]
        fn nothing_is_left_out_and_nothing_is_made_up(line in line(), second in 1_400_000_000_i64..2_000_000_000) {
            let Ok(cron) = Cron::parse(&line, "UTC") else { return Ok(()) };
            let now = Timestamp::from_second(second).unwrap();
            let begin = TimeZone::UTC.to_datetime(now).with().second(0).subsec_nanosecond(0).build().unwrap();
            let next = TimeZone::UTC.to_datetime(cron.next_after(now));
            for minutes in 1..=60 * 24 * 3 {
                let at = begin + SignedDuration::from_mins(minutes);
                prop_assert_eq!(fires(&line, at), at == next, "{} after {}", at, now);
                if at == next {
                    break;
                }
            }
        }
    }
}
