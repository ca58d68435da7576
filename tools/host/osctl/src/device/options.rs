//! Whether a kernel that runs has the options that the OS needs: the build checks every kernel of ours, and a board may have
//! been started with another one.

use crate::kconfig::{self, Configuration, Lack};
use os_facts::selftest::Check;

const NAME: &str = "kernel.options";
/// What the OS needs.
const NEEDED: &str = include_str!("../../../../../meta-os/files/kernel/os.cfg");
/// Prints a kernel's configuration, where it was built to tell (`CONFIG_IKCONFIG_PROC`); a Raspberry Pi's has that as a module.
pub(super) const ASK: &str = "modprobe -q configs; zcat /proc/config.gz";

/// What a configuration lacks of it. A kernel that runs has found its root, so that a module is enough for everything here.
fn lacks(config: &str) -> Vec<String> {
    let config = Configuration::parse(&config.replace("=m", "=y"));
    // One that is on where it should not be is said to be off in what is needed.
    let name = |Lack { option, found, .. }: Lack| if found == "n" { option } else { format!("{option}=n") };
    kconfig::groups(NEEDED).iter().flat_map(|group| group.lacks(&config)).map(name).collect()
}

/// Compares what the kernel says of itself, when it does.
pub(super) fn check(config: Option<&str>) -> Check {
    let Some(config) = config.filter(|text| text.contains("CONFIG_")) else {
        return Check::skipped(NAME, "the kernel does not tell how it was built (CONFIG_IKCONFIG_PROC)");
    };
    let lacks_of_it = lacks(config);
    match lacks_of_it.is_empty() {
        true => Check::passed(NAME, format!("all {} that the OS needs", lacks("").len())),
        false => Check::failed(
            NAME,
            format!("the kernel lacks {}", lacks_of_it.join(" ")),
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
        let needed = lacks("");
        assert!(
            NEEDED.contains("CONFIG_IP_NF_IPTABLES_LEGACY=y")
                && !needed.iter().any(|option| option == "CONFIG_IP_NF_IPTABLES_LEGACY")
        );
        assert!(needed.len() > 50 && needed.iter().any(|option| option == "CONFIG_DM_VERITY"), "{needed:?}");
        let config: String = needed.iter().map(|option| format!("{option}=m\n")).collect();
        assert_eq!(check(Some(&config)).outcome, Passed);
        let check_without = check(Some(&config.replace("CONFIG_DM_VERITY=m", "# CONFIG_DM_VERITY is not set")));
        assert!(check_without.outcome == Failed && check_without.text.ends_with("lacks CONFIG_DM_VERITY"));
        let stalled = check(Some(&(config + "CONFIG_PSI_DEFAULT_DISABLED=y\n")));
        assert!(
            stalled.outcome == Failed && stalled.text.ends_with("lacks CONFIG_PSI_DEFAULT_DISABLED=n"),
            "{stalled:?}"
        );
        assert_eq!((check(None).outcome, check(Some("")).outcome), (Skipped, Skipped));
    }
}
