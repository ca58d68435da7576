//! A time of the week in which updates may be installed: `Sat,Sun 02:00-05:00`.

/// Days as they are written, in the order of ISO 8601.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Days on which it opens, Monday first.
    days: [bool; 7],
    /// Minute of the day at which it opens.
    from: u16,
    /// Minute at which it closes; on the next day when it is not after the first.
    to: u16,
}

impl Window {
    /// Reads a window.
    pub fn parse(text: &str) -> Option<Self> {
        let (days, hours) = match text.split_once(' ') {
            Some((days, hours)) => (days, hours),
            None => ("", text),
        };
        let mut open = [days.is_empty(); 7];
        for day in days.split(',').filter(|_| !days.is_empty()) {
            *open.get_mut(DAYS.iter().position(|d| *d == day)?)? = true;
        }
        let (from, to) = hours.split_once('-')?;
        Some(Self { days: open, from: minute(from)?, to: minute(to)? })
    }

    /// True when it is open on a day (0 is Monday) at a minute of that day.
    pub fn is_open(&self, day: usize, minute: u16) -> bool {
        let opens = |day: usize| self.days.get(day % 7).copied().unwrap_or(false);
        if self.from < self.to {
            return opens(day) && (self.from..self.to).contains(&minute);
        }
        (opens(day) && minute >= self.from) || (opens(day + 6) && minute < self.to)
    }
}

/// Minute of the day of `HH:MM`.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |t: &str| (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u16>().ok())?;
    let (hour, minute) = (number(hour)?, number(minute)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_open_when_it_says() {
        let every = Window::parse("02:00-05:00").unwrap();
        assert!(every.is_open(0, 120) && every.is_open(6, 299) && !every.is_open(3, 300) && !every.is_open(3, 119));
        // Over midnight: what opens on Saturday closes on Sunday.
        let night = Window::parse("Sat 22:00-04:00").unwrap();
        assert!(night.is_open(5, 22 * 60) && night.is_open(6, 3 * 60));
        assert!(!night.is_open(5, 3 * 60) && !night.is_open(6, 22 * 60) && !night.is_open(0, 3 * 60));
        let sunday = Window::parse("Sun 23:00-01:00").unwrap();
        assert!(sunday.is_open(0, 30));
    }

    #[test]
    fn what_is_no_window_is_none() {
        for bad in [
            "",
            "2:00-5:00",
            "02:00",
            "24:00-01:00",
            "02:60-03:00",
            "Foo 02:00-03:00",
            "Sat, 02:00-03:00",
            "Sat  02:00-03:00",
        ] {
            assert_eq!(Window::parse(bad), None, "{bad}");
        }
    }
}
