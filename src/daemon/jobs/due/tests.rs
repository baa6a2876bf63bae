//! A day, a jump of a clock or a pause is a row: when do backups begin?

use super::*;
use jiff::ToSpan as _;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const YEARS: i64 = 10 * 365 * 24 * 3600;
/// As the control loop does, `storage.pollInterval` apart.
const POLL: u64 = 15;

/// What happens, so many seconds after the beginning.
#[derive(Clone, Copy)]
enum Event {
    /// The wall clock is set by so many seconds.
    Set(i64),
    /// Nobody looks for so long: the process is stopped, the machine asleep. Its monotonic clock may
    /// stand still meanwhile.
    Asleep {
        seconds: u64,
        monotonic: bool,
    },
    /// The next run takes so long.
    Takes(u64),
    /// The next runs fail.
    Fails(u32),
    Pause(Option<u64>),
    Resume,
    Ask,
}

/// Two clocks, a schedule, and a loop that looks at them.
struct World {
    due: Due,
    wall: Timestamp,
    monotonic: Instant,
    /// Seconds since the beginning, by no clock that anybody can set.
    elapsed: u64,
    /// The run that goes on ends then.
    running: Option<u64>,
    takes: u64,
    fails: u32,
    begun: Vec<(u64, Timestamp)>,
    skipped: usize,
}

impl World {
    fn new(cron: &str, zone: &str, now: &str) -> Self {
        let wall = now.parse().unwrap();
        let cron = Cron::parse(cron, zone).unwrap();
        Self {
            due: Due::new(cron, Duration::ZERO, Duration::from_mins(20), wall),
            wall,
            monotonic: crate::clock::monotonic(),
            elapsed: 0,
            running: None,
            takes: 5,
            fails: 0,
            begun: vec![],
            skipped: 0,
        }
    }

    fn run(&mut self, seconds: u64, events: &[(u64, Event)]) {
        let mut events = events.iter();
        let mut next = events.next();
        while self.elapsed < seconds {
            while let Some((_, event)) = next.filter(|(at, _)| *at <= self.elapsed) {
                self.meet(*event);
                next = events.next();
            }
            self.look();
            self.pass(POLL, true);
        }
    }

    fn pass(&mut self, seconds: u64, monotonic: bool) {
        self.elapsed += seconds;
        self.wall += SignedDuration::from_secs(i64::try_from(seconds).unwrap());
        if monotonic {
            self.monotonic += Duration::from_secs(seconds);
        }
    }

    fn meet(&mut self, event: Event) {
        match event {
            Event::Set(seconds) => self.wall += SignedDuration::from_secs(seconds),
            Event::Asleep { seconds, monotonic } => self.pass(seconds, monotonic),
            Event::Takes(seconds) => self.takes = seconds,
            Event::Fails(runs) => self.fails = runs,
            Event::Pause(seconds) => {
                let until = seconds.map(|seconds| later(self.wall, Duration::from_secs(seconds)));
                let pause = Pause { since: self.wall, until, reason: String::new(), epoch: 1 };
                self.due.pause(pause, self.wall, self.monotonic);
            }
            Event::Resume => {
                self.due.resume(self.wall).unwrap();
            }
            Event::Ask => self.due.ask(),
        }
    }

    fn look(&mut self) {
        let passed = self.due.look(self.wall, self.monotonic);
        self.skipped += usize::from(passed.skipped);
        if self.running.is_some_and(|end| end <= self.elapsed) {
            self.running = None;
            if self.fails > 0 {
                self.fails -= 1;
                self.due.failed(self.monotonic, Duration::from_secs(10));
            }
        }
        if self.running.is_none() && self.due.is_due(self.wall, self.monotonic) {
            self.due.begins(self.wall, 0);
            self.running = Some(self.elapsed + self.takes);
            self.takes = 5;
            self.begun.push((self.elapsed, self.wall));
        }
    }
}

/// Runs a world for so long: the wall time in its zone at which each run began.
#[track_caller]
fn check(
    (cron, zone, now): (&str, &str, &str),
    seconds: u64,
    events: &[(u64, Event)],
    expected: &[&str],
) -> World {
    let mut world = World::new(cron, zone, now);
    world.run(seconds, events);
    let zone = jiff::tz::TimeZone::get(zone).unwrap();
    let begun = world.begun.iter().map(|(_, wall)| wall.to_zoned(zone.clone()));
    let begun: Vec<String> = begun.map(|at| at.strftime("%Y %H:%M:%S %z").to_string()).collect();
    assert_eq!(begun, expected);
    world
}

const HALF_HOURS: (&str, &str, &str) = ("*/30 * * * *", "UTC", "2026-11-20T12:10:00Z");

#[test]
fn what_was_missed_is_one_run() {
    let usual = ["2026 12:30:00 +0000", "2026 13:00:00 +0000", "2026 13:30:00 +0000"];
    check(HALF_HOURS, 90 * MINUTE, &[], &usual);
    for monotonic in [true, false] {
        // From 12:20 to 15:20.
        let asleep = Event::Asleep { seconds: 3 * HOUR, monotonic };
        let expected = ["2026 15:20:00 +0000", "2026 15:30:00 +0000"];
        check(HALF_HOURS, 3 * HOUR + 30 * MINUTE, &[(10 * MINUTE, asleep)], &expected);
    }
    // From 12:30 to 14:10: three times came meanwhile, and never two runs at once.
    let long = (0, Event::Takes(100 * MINUTE));
    let expected = ["2026 12:30:00 +0000", "2026 14:10:00 +0000", "2026 14:30:00 +0000"];
    check(HALF_HOURS, 150 * MINUTE, &[long], &expected);
}

#[test]
fn a_clock_that_is_set_never_stops_the_backups() {
    let hour = HOUR.cast_signed();
    // At 12:40 by the clock that is set then.
    let after = |seconds| [(30 * MINUTE, Event::Set(seconds))];
    let rows: [(i64, &[&str]); 6] = [
        (hour, &["2026 12:30:00 +0000", "2026 13:40:00 +0000", "2026 14:00:00 +0000"]),
        (-hour, &["2026 12:30:00 +0000", "2026 11:40:00 +0000", "2026 12:00:00 +0000"]),
        (YEARS, &["2026 12:30:00 +0000", "2036 12:40:00 +0000", "2036 13:00:00 +0000"]),
        (-YEARS, &["2026 12:30:00 +0000", "2016 12:40:00 +0000", "2016 13:00:00 +0000"]),
        // A step within the interval misses nothing and repeats nothing.
        (-300, &["2026 12:30:00 +0000", "2026 13:00:00 +0000"]),
        (300, &["2026 12:30:00 +0000", "2026 13:00:00 +0000"]),
    ];
    for (seconds, expected) in rows {
        check(HALF_HOURS, 58 * MINUTE, &after(seconds), expected);
    }
    // There and back again, and the schedule is the old one.
    let events = [(30 * MINUTE, Event::Set(YEARS)), (35 * MINUTE, Event::Set(-YEARS))];
    let expected = [
        "2026 12:30:00 +0000",
        "2036 12:40:00 +0000",
        "2026 12:45:00 +0000",
        "2026 13:00:00 +0000",
    ];
    check(HALF_HOURS, 58 * MINUTE, &events, &expected);
    // Beyond the end of the calendar there is no schedule, and afterwards there is one again.
    let events = [(30 * MINUTE, Event::Set(10 * YEARS)), (35 * MINUTE, Event::Set(-10 * YEARS))];
    check(HALF_HOURS, 58 * MINUTE, &events, &{
        let mut expected = expected;
        expected[1] = "2126 12:40:00 +0000";
        expected
    });
}

#[test]
fn the_zone_decides_over_changes_of_the_clocks() {
    // 30 minutes past two comes not at all, and twice.
    check(
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"),
        48 * HOUR,
        &[],
        &["2026 03:30:00 +0200", "2026 02:30:00 +0200"],
    );
    check(
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z"),
        48 * HOUR,
        &[],
        &["2026 02:30:00 +0200", "2026 02:30:00 +0100"],
    );
    // Every hour is every hour.
    let hours = check(
        ("@hourly", "Europe/Berlin", "2026-10-24T22:30:00Z"),
        4 * HOUR,
        &[],
        &[
            "2026 01:00:00 +0200",
            "2026 02:00:00 +0200",
            "2026 02:00:00 +0100",
            "2026 03:00:00 +0100",
        ],
    );
    let apart: Vec<u64> = hours.begun.windows(2).map(|two| two[1].0 - two[0].0).collect();
    assert_eq!(apart, [HOUR; 3]);
    // Asleep over the night in which the clocks change.
    check(
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T20:00:00Z"),
        30 * HOUR,
        &[(HOUR, Event::Asleep { seconds: 12 * HOUR, monotonic: false })],
        &["2026 10:00:00 +0100", "2026 02:30:00 +0100"],
    );
}

#[test]
fn a_failure_is_tried_again_by_a_clock_that_nobody_sets() {
    for set in [0, -20, 300] {
        let events = [(0, Event::Fails(2)), (20 * MINUTE + 6, Event::Set(set))];
        let mut world = World::new(HALF_HOURS.0, HALF_HOURS.1, HALF_HOURS.2);
        world.run(25 * MINUTE, &events);
        let begun: Vec<u64> = world.begun.iter().map(|(at, _)| *at - 20 * MINUTE).collect();
        assert_eq!(begun, [0, 2 * POLL, 4 * POLL], "{set}");
    }
}

#[test]
fn a_pause_holds_the_schedule_back_and_what_it_held_is_one_run() {
    // From 12:20 on, for two hours.
    let pause = (10 * MINUTE, Event::Pause(Some(2 * HOUR)));
    let after = ["2026 14:20:00 +0000", "2026 14:30:00 +0000"];
    let world = check(HALF_HOURS, 150 * MINUTE, &[pause], &after);
    assert_eq!(world.skipped, 4, "12:30, 13:00, 13:30 and 14:00");
    assert_eq!(world.due.paused(), None);
    // Nothing was held back: nothing is made up for.
    let short = (10 * MINUTE, Event::Pause(Some(5 * MINUTE)));
    check(HALF_HOURS, 25 * MINUTE, &[short], &["2026 12:30:00 +0000"]);
    // Without an end, until somebody ends it.
    let forever = (10 * MINUTE, Event::Pause(None));
    let world = check(HALF_HOURS, 100 * HOUR, &[forever], &[]);
    assert_eq!(world.due.next(world.wall, world.monotonic), None);
    let resume = (70 * MINUTE, Event::Resume);
    check(HALF_HOURS, 75 * MINUTE, &[forever, resume], &["2026 13:20:00 +0000"]);
    // By hand all the same, and only that.
    let ask = (15 * MINUTE, Event::Ask);
    check(HALF_HOURS, 100 * MINUTE, &[forever, ask], &["2026 12:25:00 +0000"]);
    let failing = [(0, Event::Fails(9)), forever, ask];
    check(HALF_HOURS, 100 * MINUTE, &failing, &["2026 12:25:00 +0000"]);
}

#[test]
fn no_clock_makes_a_pause_longer() {
    let pause = (10 * MINUTE, Event::Pause(Some(2 * HOUR)));
    let back = [pause, (15 * MINUTE, Event::Set(-YEARS))];
    check(HALF_HOURS, 2 * HOUR + 12 * MINUTE, &back, &["2016 14:20:00 +0000"]);
    let forward = [pause, (15 * MINUTE, Event::Set(YEARS))];
    check(HALF_HOURS, 16 * MINUTE, &forward, &["2036 12:25:00 +0000"]);
    // A machine that sleeps does not wake up paused.
    let asleep = (15 * MINUTE, Event::Asleep { seconds: 5 * HOUR, monotonic: false });
    check(HALF_HOURS, 5 * HOUR + 16 * MINUTE, &[pause, asleep], &["2026 17:25:00 +0000"]);
    // Read back by a daemon that starts after the clock was set back: no more than was asked for.
    let mut world = World::new(HALF_HOURS.0, HALF_HOURS.1, "2016-11-20T12:10:00Z");
    let since: Timestamp = "2026-11-20T12:20:00Z".parse().unwrap();
    let pause = Pause { since, until: Some(since + 2.hours()), reason: String::new(), epoch: 1 };
    world.due.pause(pause, world.wall, world.monotonic);
    world.run(2 * HOUR + MINUTE, &[]);
    assert_eq!(world.begun.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2 * HOUR]);
}

#[test]
fn jitter_stays_before_the_next_slot() {
    let now: Timestamp = "2026-11-20T12:10:30Z".parse().unwrap();
    for (cron, jitter, latest) in [
        ("* * * * *", 600, "2026-11-20T12:11:59.999Z"),
        ("* * * * *", 30, "2026-11-20T12:11:29.999Z"),
        ("*/30 * * * *", 600, "2026-11-20T12:39:59.999Z"),
        ("0,1 * * * *", 600, "2026-11-20T13:00:59.999Z"),
        ("* * * * *", 0, "2026-11-20T12:11:00Z"),
    ] {
        let monotonic = crate::clock::monotonic();
        let parsed = Cron::parse(cron, "UTC").unwrap();
        let mut due = Due::new(parsed, Duration::from_secs(jitter), Duration::ZERO, now);
        let slots = [0, 1, 59_999, 60_000, 3_600_000 - 1, u128::MAX].map(|random| {
            due.begins(now, random);
            assert_eq!(due.look(now, monotonic), Passed::default(), "{cron}: a clock set back?");
            due.next(now, monotonic).unwrap()
        });
        let highest = 1000 * u128::from(jitter.min(if cron == "*/30 * * * *" { 1800 } else { 60 }));
        due.begins(now, highest.saturating_sub(1));
        let last = due.next(now, monotonic).unwrap();
        assert_eq!(last.to_string(), latest, "{cron} {jitter}");
        assert!(slots.iter().all(|slot| *slot <= last), "{cron} {jitter}: {slots:?}");
    }
}

#[test]
fn the_deadline_is_the_second_slot_after_the_last_success() {
    let mut world = World::new(HALF_HOURS.0, HALF_HOURS.1, HALF_HOURS.2);
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let deadline = |world: &mut World, success: &str| {
        let found = world.due.deadline(at(success), world.wall);
        found.map(|at| at.to_string())
    };
    let on = |time: &str| Some(format!("2026-11-20T{time}:00Z"));
    assert_eq!(deadline(&mut world, "2026-11-20T12:00:05Z"), on("13:20"));
    assert_eq!(deadline(&mut world, "2026-11-20T12:00:00Z"), on("13:20"));
    assert_eq!(deadline(&mut world, "2026-11-20T11:59:59Z"), on("12:50"));
    world.meet(Event::Pause(None));
    assert_eq!(deadline(&mut world, "2026-11-20T12:00:05Z"), None);
    // What a pause has made old is not late as soon as it ends.
    world.wall += 3.hours();
    world.meet(Event::Resume);
    assert_eq!(deadline(&mut world, "2026-11-20T12:00:05Z"), on("16:20"));
    world.wall = at("2026-11-20T15:31:00Z");
    assert_eq!(deadline(&mut world, "2026-11-20T15:30:05Z"), on("16:50"));
    // A success of a clock that was set back since: the deadline does not run away from it.
    world.wall = at("2026-11-20T12:10:00Z");
    assert_eq!(deadline(&mut world, "2036-11-20T12:00:05Z"), on("13:20"));
    world.wall = at("2026-11-20T14:10:00Z");
    assert_eq!(deadline(&mut world, "2036-11-20T12:00:05Z"), on("13:20"));
    assert_eq!(deadline(&mut world, "2026-11-20T14:00:05Z"), on("15:20"));
    // Nor does the end of a pause that lies in the future now.
    world.meet(Event::Pause(None));
    world.meet(Event::Resume);
    assert_eq!(deadline(&mut world, "2026-11-20T14:00:05Z"), on("15:20"));
    world.wall = at("2026-11-20T12:40:00Z");
    assert_eq!(deadline(&mut world, "2026-11-20T12:30:05Z"), on("13:50"));
}
