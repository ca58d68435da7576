//! What runs, from os-release(5).

/// A field of the running system's os-release(5); `None` where it has none.
pub fn field(name: &str) -> Option<String> {
    field_of(&std::fs::read_to_string("/etc/os-release").ok()?, name)
}

/// A field of any os-release(5), or of a file in its form.
pub fn field_of(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_with_and_without_quotes() {
        let text = "NAME=\"An OS\"\nVERSION_ID=0.1.0\nVERSION=7\n";
        assert_eq!(field_of(text, "NAME").as_deref(), Some("An OS"));
        assert_eq!(field_of(text, "VERSION_ID").as_deref(), Some("0.1.0"));
        assert_eq!(field_of(text, "VERSION_").as_deref(), None);
    }
}
