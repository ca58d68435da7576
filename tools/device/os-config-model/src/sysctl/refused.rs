//! Settings that are refused, each with the reason: those that have a key of their own, and those that would take from the
//! device what brings it back by itself. What else its owner decides is his.

use super::path;
use serde_json::{Map, Value};

/// What a value is refused for.
enum Rule {
    /// Whatever it is.
    Always,
    /// Less than that.
    Below(u64),
    /// That.
    Is(u64),
    /// Everything but that.
    Not(u64),
}

use Rule::{Always, Below, Is, Not};

const RESTARTS: &str = "a kernel that is no longer sane has to restart, so that the boot loader can try the other slot";
const FALSE_ALARM: &str = "what a program or a driver may cause would restart the device, at every boot";
const SERVICES: &str = "the services of the system, and containers, could not start";

/// Names as paths; one that ends in a slash stands for all below it.
const RULES: &[(&str, Rule, &str)] = &[
    ("vm/swappiness", Always, "the key for it is os.memory.swappiness"),
    ("kernel/hostname", Always, "the key for it is hostname"),
    ("kernel/panic", Always, RESTARTS),
    ("kernel/panic_on_oops", Always, RESTARTS),
    ("kernel/panic_on_warn", Not(0), FALSE_ALARM),
    ("kernel/panic_on_rcu_stall", Not(0), FALSE_ALARM),
    ("kernel/hung_task_panic", Not(0), FALSE_ALARM),
    ("kernel/max_rcu_stall_to_panic", Not(0), FALSE_ALARM),
    ("vm/panic_on_oom", Not(0), "a container that takes all memory would restart the device"),
    (
        "kernel/modules_disabled",
        Not(0),
        "drivers of what is plugged in later, and the engine's networks, could not be loaded",
    ),
    ("kernel/modprobe", Always, "drivers could not be loaded"),
    ("kernel/hotplug", Always, "drivers could not be loaded"),
    ("kernel/usermodehelper/", Always, "drivers could not be loaded, and nothing takes it back"),
    ("kernel/kexec_load_disabled", Not(0), "the trial of an update may jump into its kernel (os.update.trial)"),
    ("kernel/kexec_load_limit_panic", Always, "the trial of an update may jump into its kernel (os.update.trial)"),
    ("kernel/kexec_load_limit_reboot", Always, "the trial of an update may jump into its kernel (os.update.trial)"),
    ("kernel/cad_pid", Always, "the power button and the console would not reach systemd"),
    ("fs/binfmt_misc/", Always, "these are no settings; a container that registers a format does so itself"),
    (
        "vm/overcommit_memory",
        Is(2),
        "programs that reserve more than they use, the engine's among them, could not start",
    ),
    ("kernel/pid_max", Below(4096), SERVICES),
    ("kernel/threads-max", Below(4096), SERVICES),
    ("kernel/pty/max", Below(64), "nobody could log in"),
    ("fs/file-max", Below(65_536), SERVICES),
    ("fs/nr_open", Below(1_048_576), SERVICES),
    ("fs/mount-max", Below(10_000), SERVICES),
    ("fs/epoll/max_user_watches", Below(16_384), SERVICES),
    ("fs/inotify/max_user_instances", Below(128), SERVICES),
    ("fs/inotify/max_user_watches", Below(8192), SERVICES),
    ("user/max_cgroup_namespaces", Below(1024), SERVICES),
    ("user/max_ipc_namespaces", Below(1024), SERVICES),
    ("user/max_mnt_namespaces", Below(1024), SERVICES),
    ("user/max_net_namespaces", Below(1024), SERVICES),
    ("user/max_pid_namespaces", Below(1024), SERVICES),
    ("user/max_uts_namespaces", Below(1024), SERVICES),
    ("user/max_inotify_instances", Below(128), SERVICES),
    ("user/max_inotify_watches", Below(8192), SERVICES),
    ("net/ipv4/ip_forward", Is(0), "containers would reach no network"),
    ("net/ipv4/conf/all/forwarding", Is(0), "containers would reach no network"),
    ("net/ipv4/conf/docker0/forwarding", Is(0), "containers would reach no network"),
];

/// The settings of an object that are refused, each with the reason.
pub fn refused(settings: &Map<String, Value>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut seen: Vec<(String, &str)> = Vec::new();
    for (name, value) in settings {
        let Some(path) = path(name) else { continue };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let Some(why) = reason(&path, &text) {
            out.push((name.clone(), format!("is refused: {why}")));
        }
        if let Some((_, other)) = seen.iter().find(|(before, _)| *before == path) {
            out.push((name.clone(), format!("is the same setting as {other}")));
        }
        seen.push((path, name));
    }
    out
}

fn reason(path: &str, value: &str) -> Option<&'static str> {
    let (_, rule, why) =
        RULES.iter().find(|(name, ..)| *name == path || name.ends_with('/') && path.starts_with(name))?;
    // Of several numbers the kernel takes the first. What is no number it refuses itself.
    let number = value.split_ascii_whitespace().next().and_then(super::value::number);
    let is_wrong = match rule {
        Always => true,
        Below(least) => number.is_some_and(|number| number < i128::from(*least)),
        Is(wrong) => number.is_some_and(|number| number == i128::from(*wrong)),
        Not(right) => number.is_none_or(|number| number != i128::from(*right)),
    };
    is_wrong.then_some(why)
}

/// Why a machine with so much memory cannot have a setting: what takes memory away from all programs leaves them some.
pub(super) fn too_much(path: &str, value: &str, meminfo: &str) -> Option<String> {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches("kB").trim().parse::<i128>().ok()
    };
    let ram = kib("MemTotal")?;
    let number = super::value::number(value.trim())?;
    let (takes, most) = match path {
        "vm/nr_hugepages" | "vm/nr_hugepages_mempolicy" => (number.checked_mul(kib("Hugepagesize")?)?, ram / 2),
        "vm/min_free_kbytes" => (number, ram / 10),
        _ => return None,
    };
    (takes > most)
        .then(|| format!("would take {} of {} MiB of memory; at most {} MiB", takes >> 10, ram >> 10, most >> 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(settings: Value) -> Vec<String> {
        refused(settings.as_object().unwrap()).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_brings_the_device_back_cannot_be_taken_away() {
        let bad = json!({"kernel.panic": 60, "kernel/panic_on_oops": 0, "vm.panic_on_oom": "0x1", "kernel.modules_disabled": 1,
            "kernel.usermodehelper.bset": "0 0", "vm.overcommit_memory": "2", "fs.nr_open": 1024, "kernel.pid_max": 0,
            "user.max_mnt_namespaces": 0, "net.ipv4.ip_forward": 0, "vm.swappiness": 10, "kernel.hostname": "x",
            "kernel.panic_on_warn": "yes"});
        assert_eq!(names(bad.clone()).len(), bad.as_object().unwrap().len());
        let good = json!({"vm.max_map_count": 262144, "vm.panic_on_oom": 0, "vm.overcommit_memory": 1, "fs.nr_open": 2000000,
            "net.ipv4.ip_forward": 1, "user.max_user_namespaces": 0, "kernel.sysrq": 1, "kernel.panic_print": 1,
            "vm.min_free_kbytes": 16384});
        assert_eq!(names(good), Vec::<String>::new());
    }

    #[test]
    fn one_setting_stands_once() {
        assert_eq!(names(json!({"vm.max_map_count": 1, "vm/max_map_count": 2})), ["vm/max_map_count"]);
    }

    #[test]
    fn the_rules_name_settings() {
        assert_eq!(path(super::super::SWAPPINESS).as_deref(), Some(RULES[0].0));
        for (name, ..) in RULES {
            assert_eq!(path(name.trim_end_matches('/')).as_deref(), Some(name.trim_end_matches('/')));
        }
    }

    #[test]
    fn programs_keep_memory() {
        let meminfo = "MemTotal:        1000000 kB\nHugepagesize:       2048 kB\n";
        assert!(too_much("vm/nr_hugepages", "300", meminfo).unwrap().contains("at most 488 MiB"));
        assert_eq!(too_much("vm/nr_hugepages", "200", meminfo), None);
        assert!(too_much("vm/min_free_kbytes", "200000", meminfo).is_some());
        assert_eq!(too_much("vm/min_free_kbytes", "16384", meminfo), None);
        assert_eq!(too_much("vm/max_map_count", "9999999", meminfo), None);
    }
}
