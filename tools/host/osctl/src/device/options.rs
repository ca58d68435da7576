//! Whether a kernel that runs has the options that the OS needs: the build checks every kernel of ours, and a board may have
//! been started with another one.

use os_facts::selftest::Check;

const NAME: &str = "kernel.options";
/// What the OS needs.
const NEEDED: &str = include_str!("../../../../../meta-os/files/kernel/os.cfg");
/// Prints a kernel's configuration, where it was built to tell (`CONFIG_IKCONFIG_PROC`); a Raspberry Pi's has that as a module.
pub(super) const ASK: &str = "modprobe -q configs; zcat /proc/config.gz";

/// Its groups are paragraphs, and one whose comment says so may be missing (classes/os_kernel.bbclass).
fn needed() -> Vec<&'static str> {
    let groups = NEEDED.split("\n\n").filter(|group| !group.contains("[may lack]"));
    let options = groups.flat_map(str::lines).filter_map(|line| line.strip_suffix("=y"));
    options.filter(|option| option.starts_with("CONFIG_")).collect()
}

/// Compares what the kernel says of itself, when it does.
pub(super) fn check(config: Option<&str>) -> Check {
    let Some(config) = config.filter(|text| text.contains("CONFIG_")) else {
        return Check::skipped(NAME, "the kernel does not tell how it was built (CONFIG_IKCONFIG_PROC)");
    };
    let has = |option: &str| config.lines().any(|line| matches!(line.strip_prefix(option), Some("=y" | "=m")));
    let needed = needed();
    let lacks: Vec<&str> = needed.iter().copied().filter(|option| !has(option)).collect();
    match lacks.is_empty() {
        true => Check::passed(NAME, format!("all {} that the OS needs", needed.len())),
        false => Check::failed(
            NAME,
            format!("the kernel lacks {}", lacks.join(" ")),
            "add meta-os/files/kernel/os.cfg to its configuration, and build it with the check of os_kernel.bbclass",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_facts::selftest::Outcome::{Failed, Passed, Skipped};

    #[test]
    fn a_kernel_has_every_option_built_in_or_as_a_module() {
        let needed = needed();
        assert!(NEEDED.contains("CONFIG_IP_NF_IPTABLES_LEGACY=y") && !needed.contains(&"CONFIG_IP_NF_IPTABLES_LEGACY"));
        assert!(needed.len() > 50 && needed.contains(&"CONFIG_DM_VERITY"), "{needed:?}");
        let config: String = needed.iter().map(|option| format!("{option}=m\n")).collect();
        assert_eq!(check(Some(&config)).outcome, Passed);
        let check_without = check(Some(&config.replace("CONFIG_DM_VERITY=m", "# CONFIG_DM_VERITY is not set")));
        assert!(check_without.outcome == Failed && check_without.text.ends_with("lacks CONFIG_DM_VERITY"));
        assert_eq!((check(None).outcome, check(Some("")).outcome), (Skipped, Skipped));
    }
}
