//! The hardware watchdog, and whether systemd really feeds it.

use super::root::Root;
use os_facts::selftest::Check;

const NAME: &str = "watchdog.armed";
const DIR: &str = "/sys/class/watchdog/watchdog0";

/// What systemd says of it, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fed {
    /// How long nothing may happen before it restarts the device; 0 when it is off.
    pub(super) timeout: u64,
    /// When it was fed last, on the clock of `now`; never is the largest number.
    pub(super) last: u64,
    /// The time since the start.
    pub(super) now: u64,
}

/// It is there, it is no program of the kernel, and it was fed within its time.
pub(super) fn armed(root: Root<'_>, fed: Result<Fed, String>) -> Check {
    let fed = match fed {
        Ok(fed) => fed,
        Err(err) => return Check::failed(NAME, err, "systemctl status"),
    };
    if fed.timeout == 0 {
        return Check::skipped(NAME, "it is switched off (os.watchdog)");
    }
    if !root.has(DIR) {
        let text = "there is none: a device that hangs stays so until power is cut";
        // Every board that we know has one; a PC may do without.
        return match root.has("/proc/device-tree/model") {
            true => Check::failed(NAME, text, "the kernel lacks its driver"),
            false => Check::skipped(NAME, text),
        };
    }
    // A kernel may be built without these files.
    let say = |name: &str| root.text(format!("{DIR}/{name}"));
    let identity = say("identity").unwrap_or_else(|| "watchdog0".to_owned());
    let seconds = fed.timeout / 1_000_000;
    if identity.to_lowercase().contains("software") {
        let remedy = "the kernel lacks the driver of the board's watchdog, or loads softdog before it";
        return Check::failed(NAME, format!("{identity}: it is part of the kernel, and hangs with it"), remedy);
    }
    let held = say("state").is_none_or(|state| state == "active");
    match held && fed.last <= fed.now && fed.now - fed.last <= fed.timeout {
        true => Check::passed(NAME, format!("{identity}, {seconds} s, fed by systemd")),
        false => Check::failed(
            NAME,
            format!("{identity}: systemd was told {seconds} s, and does not feed it"),
            "journalctl -b | grep -i watchdog; something else may hold /dev/watchdog0",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::Fake;
    use super::*;
    use os_facts::selftest::Outcome::{Failed, Passed, Skipped};

    const FED: Fed = Fed { timeout: 30_000_000, last: 85_000_000, now: 93_000_000 };

    #[test]
    fn only_one_that_is_fed_counts() {
        let fake = Fake::with(&[
            ("/sys/class/watchdog/watchdog0/identity", "Broadcom BCM2835 Watchdog timer\n"),
            ("/sys/class/watchdog/watchdog0/state", "active\n"),
        ]);
        let outcome = |fed| armed(fake.root(), Ok(fed)).outcome;
        let check = armed(fake.root(), Ok(FED));
        assert_eq!((check.outcome, check.text.contains("BCM2835 Watchdog timer, 30 s")), (Passed, true), "{check:?}");
        assert_eq!(outcome(Fed { last: u64::MAX, ..FED }), Failed);
        assert_eq!(outcome(Fed { last: 60_000_000, ..FED }), Failed);
        assert_eq!(outcome(Fed { timeout: 0, ..FED }), Skipped);
        assert_eq!(armed(fake.root(), Err("no bus".to_owned())).outcome, Failed);
        fake.write("/sys/class/watchdog/watchdog0/state", "inactive");
        assert_eq!(outcome(FED), Failed);
        fake.write("/sys/class/watchdog/watchdog0/state", "active");
        fake.write("/sys/class/watchdog/watchdog0/identity", "Software Watchdog");
        assert_eq!(outcome(FED), Failed);
    }

    #[test]
    fn a_pc_may_have_none_and_a_board_may_not() {
        assert_eq!(armed(Fake::with(&[]).root(), Ok(FED)).outcome, Skipped);
        let board = Fake::with(&[("/proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")]);
        assert_eq!(armed(board.root(), Ok(FED)).outcome, Failed);
    }
}
