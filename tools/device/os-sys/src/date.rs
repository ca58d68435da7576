//! Times for people.

use crate::cmd::Cmd;

/// Seconds since 1970 in the device's time zone, as `date` knows it: `2026-11-27 14:05:00`.
pub fn local(at: u64) -> String {
    let text = Cmd::new("date").arg(format!("-d@{at}")).arg("+%F %T").read();
    text.map_or_else(|_| format!("@{at}"), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_date_is_read_by_people_and_sorted_by_programs() {
        let said = super::local(86_400 * 365);
        assert!(said.starts_with("197") && said.len() == "1971-01-01 00:00:00".len(), "{said}");
    }
}
