//! The self test of a device over ssh: what `os selftest` says there, and what only somebody outside can see: that the device
//! comes back, from a restart and from a hang.

use super::{BOOT_ID, Ssh, options};
use anyhow::{Context, Result, bail, ensure};
use os_facts::selftest::{Check, Outcome, SelfTest};
use serde_json::Value;
use std::time::{Duration, Instant};

const RETURNS: &str = "restart.returns";
const SLOT: &str = "restart.slot";
const HANGS: &str = "watchdog.restarts";

/// Restarts the device, and ends the login first.
const RESTART: &str = "systemd-run --quiet --collect systemctl reboot";
/// The first process stops, and nobody feeds the watchdog any more; what was written is on the disk by then.
const HANG: &str = "sync; echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze";
/// Succeeds when the start counts as a good one.
const IS_COMMITTED: &str = "systemctl is-active --quiet os-commit.service";

/// What is tested.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Depth {
    /// Restart the device first, and measure how long it takes; asks for confirmation
    #[arg(long)]
    pub full: bool,
    /// Make the device hang, and measure how long its watchdog takes to restart it; asks for confirmation
    #[arg(long)]
    pub watchdog: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    pub yes: bool,
}

impl Depth {
    /// Asks the person at the terminal.
    ///
    /// # Errors
    /// When nobody can be asked, or the answer is no.
    fn agree(&self, host: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if self.watchdog {
            let meaning =
                format!("makes {host} hang until its watchdog restarts it; what containers have not written is lost");
            os_sys::ask::agree(&meaning, "hang")?;
        } else if self.full {
            os_sys::ask::agree(&format!("restarts {host} and its containers"), "restart")?;
        }
        Ok(())
    }
}

/// Tests a device.
///
/// # Errors
/// When it cannot be reached, has no self test, or nobody agrees to what changes its state.
pub fn selftest(host: &str, depth: &Depth, ssh: &Ssh) -> Result<SelfTest> {
    depth.agree(host)?;
    let ask = |command: &str| ssh.read(host, command);
    let remote = Remote { ask: &ask, pause: Duration::from_secs(2), limit: Duration::from_secs(1800) };
    remote.test(depth).with_context(|| format!("cannot test {host}"))
}

/// A device that is asked, with a pause between two questions, and given up after a time.
struct Remote<'a> {
    ask: &'a dyn Fn(&str) -> Result<String>,
    pause: Duration,
    limit: Duration,
}

impl Remote<'_> {
    fn test(&self, depth: &Depth) -> Result<SelfTest> {
        let mut outside = Vec::new();
        if depth.full || depth.watchdog {
            let before = self.run(true)?;
            if depth.full {
                outside.push(self.comes_back(RETURNS, RESTART)?);
                let after = self.run(true)?;
                outside.push(same_slot(&before, &after));
            }
            if depth.watchdog {
                outside.push(self.hangs(&before)?);
            }
        }
        let mut test = self.run(false)?;
        test.add([options::check((self.ask)(options::ASK).ok().as_deref())]);
        test.add(outside);
        Ok(test)
    }

    /// What the device says of itself.
    fn run(&self, quick: bool) -> Result<SelfTest> {
        let text = (self.ask)(&format!("os selftest --json{}; true", if quick { " --quick" } else { "" }))?;
        serde_json::from_str(&text).or_else(|_| {
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            let said = answer.pointer("/error/text").and_then(Value::as_str).unwrap_or(text.trim());
            bail!("its release has no self test, or one of another form; it says: {said}")
        })
    }

    /// A device that nobody would restart is not made to hang.
    fn hangs(&self, before: &SelfTest) -> Result<Check> {
        let armed = before.checks.iter().find(|check| check.name == "watchdog.armed");
        if armed.is_none_or(|check| check.outcome != Outcome::Passed) {
            return Ok(Check::skipped(HANGS, "the watchdog is not armed, and a device that hangs would stay so"));
        }
        let mut check = self.comes_back(HANGS, HANG)?;
        if check.outcome == Outcome::Passed {
            let status = (self.ask)("os status --json; true").unwrap_or_default();
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            let knows = status.pointer("/lastRun").and_then(Value::as_str) == Some("watchdog");
            check.text.push_str(if knows { "; its driver says so" } else { "; its driver does not tell" });
        }
        Ok(check)
    }

    /// Has the device restart in some way, and waits until it is committed.
    fn comes_back(&self, name: &str, how: &str) -> Result<Check> {
        let before = (self.ask)(BOOT_ID)?;
        let start = Instant::now();
        // The login is cut off, or not: the identifier of the boot tells what happened.
        let _ = (self.ask)(how);
        let Some(login) = self.wait(start, || (self.ask)(BOOT_ID).is_ok_and(|boot| boot != before)) else {
            bail!(
                "it has not restarted and answered within {} minutes: look at its console",
                self.limit.as_secs() / 60
            );
        };
        let Some(committed) = self.wait(start, || (self.ask)(IS_COMMITTED).is_ok()) else {
            let text = format!("login after {} s, not committed after {} s", login.as_secs(), self.limit.as_secs());
            return Ok(Check::failed(name, text, "os status says what the health check waits for"));
        };
        Ok(Check::passed(name, format!("login after {} s, committed after {} s", login.as_secs(), committed.as_secs())))
    }

    /// How long it took since `start`; none when it took too long.
    fn wait(&self, start: Instant, is_so: impl Fn() -> bool) -> Option<Duration> {
        while start.elapsed() < self.limit {
            if is_so() {
                return Some(start.elapsed());
            }
            std::thread::sleep(self.pause);
        }
        None
    }
}

fn same_slot(before: &SelfTest, after: &SelfTest) -> Check {
    let name = |test: &SelfTest| test.slot.map_or("unknown", os_facts::Slot::name);
    match before.slot.is_some() && before.slot == after.slot {
        true => Check::passed(SLOT, format!("slot {}, as before", name(after))),
        false => Check::failed(
            SLOT,
            format!("slot {} before the restart, {} after it", name(before), name(after)),
            "os slot status; os update log says what became of the other slot",
        ),
    }
}

/// Prints the report for people, and what is left for them to do.
///
/// # Errors
/// When a check failed.
pub fn report(test: &SelfTest, json: bool) -> Result<()> {
    if json {
        os_sys::out::json(test);
    } else {
        os_sys::out::print(format_args!("{test}"));
        os_sys::say!("What only hands can show, and where to send this: docs/hardware-check.md");
    }
    ensure!(test.is_good(), "{} of {} checks failed", test.failed, test.checks.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_facts::Slot;
    use std::cell::RefCell;

    /// A device that restarts at once, or not at all, and is committed when it is asked for the second time.
    struct Fake {
        asked: RefCell<Vec<String>>,
        test: SelfTest,
        restarts: bool,
    }

    impl Fake {
        fn new(watchdog: Check) -> Self {
            let mut test = SelfTest { slot: Some(Slot::A), ..SelfTest::default() };
            test.add([watchdog]);
            Self { asked: RefCell::default(), test, restarts: true }
        }

        fn ask(&self, command: &str) -> Result<String> {
            let count = |what: &str| self.asked.borrow().iter().filter(|asked| *asked == what).count();
            let starts = if self.restarts { count(RESTART) + count(HANG) } else { 0 };
            let committed = count(IS_COMMITTED) % 2 == 1;
            self.asked.borrow_mut().push(command.to_owned());
            match command {
                BOOT_ID => Ok(starts.to_string()),
                RESTART | HANG => bail!("the connection was closed"),
                IS_COMMITTED if !committed => bail!("inactive"),
                IS_COMMITTED => Ok(String::new()),
                options::ASK => bail!("no such file"),
                "os status --json; true" => Ok(r#"{"version":1,"lastRun":"watchdog"}"#.to_owned()),
                _ => Ok(os_sys::out::json_text(&self.test)),
            }
        }

        fn test(&self, depth: &Depth) -> Result<SelfTest> {
            let ask = |command: &str| self.ask(command);
            Remote { ask: &ask, pause: Duration::from_millis(1), limit: Duration::from_millis(200) }.test(depth)
        }

        fn was_asked(&self, command: &str) -> bool {
            self.asked.borrow().iter().any(|asked| asked == command)
        }
    }

    fn outcome(test: &SelfTest, name: &str) -> Option<Outcome> {
        test.checks.iter().find(|check| check.name == name).map(|check| check.outcome)
    }

    const ALL: Depth = Depth { full: true, watchdog: true, yes: true };

    #[test]
    fn nothing_is_restarted_unless_asked_for() {
        let fake = Fake::new(Check::passed("watchdog.armed", "30 s"));
        let test = fake.test(&Depth::default()).unwrap();
        assert_eq!((test.checks.len(), outcome(&test, "kernel.options")), (2, Some(Outcome::Skipped)));
        assert!(!fake.was_asked(RESTART) && !fake.was_asked(HANG));
    }

    #[test]
    fn a_device_comes_back_from_a_restart_and_from_a_hang() {
        let fake = Fake::new(Check::passed("watchdog.armed", "30 s"));
        let test = fake.test(&ALL).unwrap();
        for name in [RETURNS, SLOT, HANGS] {
            assert_eq!(outcome(&test, name), Some(Outcome::Passed), "{test}");
        }
        assert!(test.is_good() && test.to_string().contains("its driver says so"), "{test}");
        let before = SelfTest { slot: Some(Slot::B), ..SelfTest::default() };
        assert_eq!(same_slot(&before, &test).outcome, Outcome::Failed);
        assert_eq!(same_slot(&SelfTest::default(), &SelfTest::default()).outcome, Outcome::Failed);
    }

    #[test]
    fn without_a_watchdog_nothing_is_made_to_hang() {
        let fake = Fake::new(Check::failed("watchdog.armed", "nobody feeds it", "look"));
        let test = fake.test(&ALL).unwrap();
        assert_eq!((outcome(&test, HANGS), fake.was_asked(HANG)), (Some(Outcome::Skipped), false));
        assert!(!test.is_good());
    }

    #[test]
    fn a_device_that_stays_away_or_has_no_self_test_is_an_error() {
        let mut fake = Fake::new(Check::passed("watchdog.armed", "30 s"));
        fake.restarts = false;
        assert!(fake.test(&ALL).unwrap_err().to_string().contains("has not restarted"));
        let ask = |_: &str| Ok(r#"{"version":1,"error":{"text":"unrecognized subcommand 'selftest'"}}"#.to_owned());
        let remote = Remote { ask: &ask, pause: Duration::ZERO, limit: Duration::ZERO };
        let said = remote.test(&Depth::default()).unwrap_err().to_string();
        assert!(said.contains("has no self test") && said.contains("unrecognized subcommand"), "{said}");
    }
}
