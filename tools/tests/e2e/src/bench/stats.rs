//! What several measurements of one thing say together.

use std::fmt;

/// Median and spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) count: usize,
}

impl Spread {
    /// None when nothing was measured.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max, count) = (*sorted.first()?, *sorted.last()?, sorted.len());
        let upper = *sorted.get(count / 2)?;
        let lower = *sorted.get((count - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max, count })
    }

    /// In another unit.
    pub(super) fn scaled(self, by: f64) -> Self {
        Self { median: self.median * by, min: self.min * by, max: self.max * by, count: self.count }
    }
}

impl fmt::Display for Spread {
    /// `61.2 (58.0–63.1)`; `{:.0}` says how exactly. One measurement has no spread.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        write!(f, "{:.digits$}", self.median)?;
        if self.count > 1 {
            write!(f, " ({:.digits$}–{:.digits$})", self.min, self.max)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(odd, Spread { median: 2.0, min: 1.0, max: 3.0, count: 3 });
        let even = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(even, Spread { median: 2.5, min: 1.0, max: 4.0, count: 4 });
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn one_value_is_printed_without_a_spread() {
        assert_eq!(Spread::of([1.26]).unwrap().to_string(), "1.3");
        assert_eq!(format!("{:.0}", Spread::of([10.0, 30.0, 20.0]).unwrap()), "20 (10–30)");
        assert_eq!(Spread::of([2048.0]).unwrap().scaled(1.0 / 1024.0).to_string(), "2.0");
    }
}
