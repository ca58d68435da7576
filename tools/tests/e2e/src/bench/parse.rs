//! Reads what the kernel, QEMU and the probe say. Nothing here touches the machine.

use super::probe;
use super::results::Memory;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// The kernel counts processor time for programs in hundredths of a second, on every architecture that we know.
const TICKS_A_SECOND: f64 = 100.0;
/// Frequency of the ACPI timer, and the number at which it begins anew.
const PM_TIMER_HZ: f64 = 3_579_545.0;
const PM_TIMER_WRAP: u32 = 1 << 24;

/// Processor seconds of a process, user and system, from `/proc/PID/stat`.
pub(super) fn process_seconds(stat: &str) -> Result<f64> {
    // The name of the program may have spaces and brackets; it ends at the last one.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || -> Result<f64> { Ok(fields.next().context("/proc/PID/stat is too short")?.parse()?) };
    Ok((ticks()? + ticks()?) / TICKS_A_SECOND)
}

/// Seconds that processors were busy and idle, all together, from the first line of `/proc/stat`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Processors {
    pub(super) busy: f64,
    /// With what they waited for disks.
    pub(super) idle: f64,
}

pub(super) fn processors(line: &str) -> Result<Processors> {
    let words = line.trim().strip_prefix("cpu ").with_context(|| format!("'{line}' is not from /proc/stat"))?;
    let ticks: Vec<f64> = words.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let [user, nice, system, idle, wait, irq, soft, steal, ..] = ticks.as_slice() else {
        anyhow::bail!("'{line}' has too few numbers for /proc/stat");
    };
    Ok(Processors {
        busy: (user + nice + system + irq + soft + steal) / TICKS_A_SECOND,
        idle: (idle + wait) / TICKS_A_SECOND,
    })
}

/// The load of the last minute, from `/proc/loadavg`.
pub(super) fn load(text: &str) -> Option<f64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Bytes and operations that the guest read from the drive of that name, from QMP's `query-blockstats`.
pub(super) fn reads(answer: &Value, drive: &str) -> Result<(u64, u64)> {
    let found = answer.as_array().into_iter().flatten().find(|entry| entry.get("device").is_some_and(|d| d == drive));
    let stats = found.and_then(|entry| entry.get("stats")).with_context(|| format!("QEMU has no drive {drive}"))?;
    let number = |name: &str| stats.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}"));
    Ok((number("rd_bytes")?, number("rd_operations")?))
}

/// What the monitor answers to a look at the ACPI timer: `portl[0x0608] = 0x0012d687`. None while the firmware has not
/// put the timer there.
pub(super) fn port(answer: &str) -> Option<u32> {
    let number = u32::from_str_radix(answer.trim().rsplit_once("= 0x")?.1, 16).ok()?;
    (number < PM_TIMER_WRAP).then_some(number)
}

/// The guest's clock since power-on, from an ACPI timer that begins anew every 4.7 s and is looked at more often.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: u32,
    ticks: u64,
}

impl Clock {
    pub(super) fn look(&mut self, timer: u32) {
        self.ticks += u64::from(timer.wrapping_sub(self.last) % PM_TIMER_WRAP);
        self.last = timer;
    }

    pub(super) fn seconds(&self) -> f64 {
        self.ticks as f64 / PM_TIMER_HZ
    }
}

/// What follows a mark of the probe in its line. None until the whole line is there.
pub(super) fn said<'a>(console: &'a str, mark: &str) -> Option<&'a str> {
    let (_, rest) = console.rsplit_once(mark)?;
    rest.split_once('\n').map(|(line, _)| line.trim())
}

/// What the probe says of memory.
pub(super) fn memory(text: &str) -> Result<Memory> {
    let number = |mark: &str| -> Result<u64> {
        let found = said(text, mark).with_context(|| format!("the guest did not say {mark}"))?;
        found.parse().with_context(|| format!("{mark}: '{found}' is no number"))
    };
    let mut programs = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.trim().strip_prefix(probe::PROGRAM)) {
        if let Some((kib, name)) = line.trim().split_once(' ')
            && let Ok(kib) = kib.parse::<u64>()
        {
            *programs.entry(name.to_owned()).or_default() += kib;
        }
    }
    Ok(Memory { used: number(probe::USED)?, own: number(probe::OWN)?, programs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn memory_is_added_up_by_program() {
        let text = "BENCH-PSS 100 sh\r\nBENCH-PSS 7 (sd-pam)\r\nBENCH-PSS 50 sh\r\nBENCH-USED 300\r\nBENCH-OWN 0\r\n";
        let found = memory(text).unwrap();
        assert_eq!((found.used, found.own), (300, 0));
        assert_eq!(found.programs, BTreeMap::from([("sh".to_owned(), 150), ("(sd-pam)".to_owned(), 7)]));
        assert!(memory("BENCH-USED 300\r\n").is_err());
        assert!(memory("BENCH-USED \r\nBENCH-OWN 0\r\n").is_err());
    }

    #[test]
    fn a_process_has_used_user_and_system_time() {
        let stat = "7 (qemu) (x86 64) S 1 7 7 0 -1 4194560 91 0 0 0 1234 66 0 0 20 0 4 0 5103 1 2 3";
        assert!((process_seconds(stat).unwrap() - 13.0).abs() < 1e-9);
        assert!(process_seconds("7 (qemu) S 1").is_err());
        assert!(process_seconds("").is_err());
    }

    #[test]
    fn processors_are_busy_or_idle() {
        let found = processors("cpu  100 10 50 1000 200 5 15 20 7 0").unwrap();
        assert_eq!(found, Processors { busy: 2.0, idle: 12.0 });
        assert!(processors("cpu0 1 2 3 4 5 6 7 8").is_err());
        assert!(processors("cpu  1 2 3").is_err());
        assert!(processors("cpu  1 2 3 x 5 6 7 8").is_err());
    }

    #[test]
    fn the_load_is_that_of_the_last_minute() {
        assert_eq!(load("2.09 1.24 0.52 3/198 13333\n"), Some(2.09));
        assert_eq!(load(""), None);
    }

    #[test]
    fn the_drive_is_found_among_the_firmware() {
        let answer = json!([
            { "device": "pflash0", "stats": { "rd_bytes": 1, "rd_operations": 1 } },
            { "device": "disk", "stats": { "rd_bytes": 4096, "rd_operations": 2 } },
        ]);
        assert_eq!(reads(&answer, "disk").unwrap(), (4096, 2));
        assert!(reads(&answer, "cd").is_err());
        assert!(reads(&json!(null), "disk").is_err());
    }

    #[test]
    fn the_clock_goes_on_when_the_timer_begins_anew() {
        assert_eq!(port("portl[0x0608] = 0x0012d687\r\n"), Some(0x12_d687));
        assert_eq!(port("portl[0x0608] = 0xffffffff\r\n"), None);
        assert_eq!(port("unknown command"), None);
        let mut clock = Clock::default();
        clock.look(3_579_545);
        assert!((clock.seconds() - 1.0).abs() < 1e-9);
        clock.look(PM_TIMER_WRAP - 1);
        clock.look(1);
        assert!((clock.seconds() - f64::from(PM_TIMER_WRAP + 1) / PM_TIMER_HZ).abs() < 1e-9);
    }

    #[test]
    fn a_mark_counts_when_its_line_is_whole() {
        assert_eq!(said("[ok]\r\nBENCH-MEM 1024 512\r\n", "BENCH-MEM"), Some("1024 512"));
        assert_eq!(said("BENCH-IDLE 1\nBENCH-IDLE 2\n", "BENCH-IDLE"), Some("2"));
        assert_eq!(said("BENCH-MEM 10", "BENCH-MEM"), None);
        assert_eq!(said("", "BENCH-MEM"), None);
    }
}
