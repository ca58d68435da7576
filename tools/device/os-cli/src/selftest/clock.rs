//! The clock: what keeps it while the device is off, and who has set it.

use super::root::Root;
use os_facts::selftest::Check;
use std::time::Duration;

const RTC: &str = "clock.rtc";
const FLOOR: &str = "clock.floor";
const SYNCHRONISED: &str = "clock.synchronised";

/// Beyond this a clock that runs on is not set, in seconds.
const FAR: u64 = 86_400;
/// The kernel writes a clock that was synchronised to it every 11 minutes.
const WRITTEN: Duration = Duration::from_secs(15 * 60);

/// The clock that runs on while the device is off. `now` is the device's own, in seconds since 1970.
pub(super) fn rtc(root: Root<'_>, now: u64, uptime: Duration) -> Check {
    let dir = "/sys/class/rtc/rtc0";
    if !root.has(dir) {
        return Check::skipped(RTC, "there is none: after each start, the time is wrong until a time server answers");
    }
    let name = root.text(format!("{dir}/name")).unwrap_or_default();
    match root.number::<u64>(format!("{dir}/since_epoch")) {
        Some(time) if time.abs_diff(now) < FAR => Check::passed(RTC, format!("{name}, and it agrees with the clock")),
        _ if uptime < WRITTEN => {
            Check::skipped(RTC, format!("{name} is not set yet; test again 15 minutes after the start"))
        }
        _ => Check::failed(
            RTC,
            format!("{name} does not agree with the clock, or cannot be read"),
            "see clock.synchronised; without a battery it forgets the time when power is cut",
        ),
    }
}

/// The clock is not before a date that has passed for certain; all three in seconds since 1970. `was`: what it said at the start,
/// where that was earlier.
pub(super) fn floor(now: u64, floor: u64, was: Option<u64>) -> Check {
    if now < floor {
        return Check::failed(
            FLOOR,
            "the clock is behind the date of the image",
            "date -s \"2026-11-27 14:00\" sets it",
        );
    }
    Check::passed(
        FLOOR,
        match was {
            Some(_) => {
                "the clock was behind at the start, and moved forward to the date of the image or the last release"
            }
            None => "the clock was not behind the date of the image when the device started",
        },
    )
}

/// A time server has set the clock.
pub(super) fn synchronised(is: bool) -> Check {
    match is {
        true => Check::passed(SYNCHRONISED, "a time server has set the clock"),
        false => {
            Check::skipped(SYNCHRONISED, "no time server has answered yet (ntpServers); without a network none will")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::Fake;
    use super::*;
    use os_facts::selftest::Outcome::{Failed, Passed, Skipped};

    const NOW: u64 = 1_764_237_600;

    #[test]
    fn a_clock_that_runs_on_agrees_with_the_other_one() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let fake =
            Fake::with(&[("/sys/class/rtc/rtc0/name", "rpi-rtc rpi-rtc"), ("/sys/class/rtc/rtc0/since_epoch", "9")]);
        assert_eq!(rtc(fake.root(), NOW, minutes(1)).outcome, Skipped);
        assert_eq!(rtc(fake.root(), NOW, minutes(16)).outcome, Failed);
        fake.write("/sys/class/rtc/rtc0/since_epoch", &(NOW - 5).to_string());
        assert_eq!(rtc(fake.root(), NOW, minutes(16)).outcome, Passed);
        assert_eq!(rtc(Fake::with(&[]).root(), NOW, minutes(16)).outcome, Skipped);
    }

    #[test]
    fn the_clock_is_never_before_the_image() {
        assert_eq!((floor(9, 10, None).outcome, floor(10, 10, None).outcome), (Failed, Passed));
        assert!(floor(10, 10, Some(0)).text.contains("moved forward"));
        assert_eq!((synchronised(true).outcome, synchronised(false).outcome), (Passed, Skipped));
    }
}
