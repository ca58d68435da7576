//! When the kernel has a value, though it writes it in another way.

/// True when `found` is what the kernel makes of `wanted`: blanks, bases of numbers, the order of words and lists of ranges
/// do not matter, and of several numbers the first may be given alone.
pub(super) fn same(wanted: &str, found: &str) -> bool {
    let wanted_words: Vec<&str> = wanted.split_ascii_whitespace().collect();
    let found_words: Vec<&str> = found.split_ascii_whitespace().collect();
    if wanted_words == found_words {
        return true;
    }
    if let (Some(wanted), Some(found)) = (numbers(&wanted_words), numbers(&found_words)) {
        return !wanted.is_empty() && found.starts_with(&wanted);
    }
    if let (Some(wanted), Some(found)) = (ranges(wanted), ranges(found)) {
        return wanted == found;
    }
    let sorted = |mut words: Vec<&str>| {
        words.sort_unstable();
        words.join(" ")
    };
    sorted(wanted_words) == sorted(found_words)
}

fn numbers(words: &[&str]) -> Option<Vec<i128>> {
    words.iter().map(|word| number(word)).collect()
}

/// As the kernel reads it (strtol with base 0).
pub(super) fn number(word: &str) -> Option<i128> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let value = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8).ok()?
    } else if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok()?
    } else {
        return None;
    };
    Some(i128::from(value) * sign)
}

/// Ranges such as `8080,9000-9010` (ports, processors), joined where they touch.
fn ranges(text: &str) -> Option<Vec<(u64, u64)>> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        all.push((from.parse().ok()?, to.parse().ok()?));
    }
    all.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (from, to) in all {
        match out.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => out.push((from, to)),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernel_writes_values_in_its_own_way() {
        for (wanted, found) in [
            ("262144", "262144"),
            ("4096 131072  6291456", "4096\t131072\t6291456"),
            ("0x1f", "31"),
            ("017", "15"),
            ("-1", "-1"),
            ("3", "3\t4\t1\t7"),
            ("30000,30001,30005", "30000-30001,30005"),
            ("9000-9002,80", "80,9000-9002"),
            ("bbr cubic", "cubic bbr"),
            ("|/bin/x  %P", "|/bin/x %P"),
            ("18446744073692774399", "18446744073692774399"),
        ] {
            assert!(same(wanted, found), "{wanted} and {found}");
        }
        for (wanted, found) in
            [("1", "0"), ("1", ""), ("1000000", "1048576"), ("3 4", "3"), ("bbr", "cubic"), ("80", "80-81"), ("x", "X")]
        {
            assert!(!same(wanted, found), "{wanted} and {found}");
        }
    }

    proptest! {
        #[test]
        fn what_is_the_same_text_is_the_same(text in ".{0,40}", other in ".{0,40}") {
            prop_assert!(same(&text, &text));
            let _ = same(&text, &other);
        }
    }
}
