//! The interfaces that have a default route, from the kernel's tables (proc_pid_net(5)).

use std::collections::BTreeSet;

/// `RTF_REJECT`: the kernel's own entry that refuses.
const REJECT: u32 = 0x200;

pub(super) fn interfaces() -> BTreeSet<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut out = v4(&read("/proc/net/route"));
    out.extend(v6(&read("/proc/net/ipv6_route")));
    out
}

/// Interface, destination, gateway, flags, three counters, mask.
fn v4(table: &str) -> BTreeSet<String> {
    let default = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields.as_slice() {
            [name, "00000000", _, flags, _, _, _, "00000000", ..] if is_open(flags) => Some((*name).to_owned()),
            _ => None,
        }
    };
    table.lines().filter_map(default).collect()
}

/// Destination, its prefix, source, its prefix, next hop, metric, two counters, flags, interface.
fn v6(table: &str) -> BTreeSet<String> {
    let default = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields.as_slice() {
            [to, "00", _, _, _, _, _, _, flags, name] if to.bytes().all(|b| b == b'0') && is_open(flags) => {
                (*name != "lo").then(|| (*name).to_owned())
            }
            _ => None,
        }
    };
    table.lines().filter_map(default).collect()
}

fn is_open(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & REJECT == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn default_routes_are_found() {
        let four = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth1\t0000630A\t00000000\t0001\t0\t0\t101\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(v4(four), BTreeSet::from(["eth0".to_owned()]));
        let zero = "0".repeat(32);
        let six = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000064 00000001 00000000 00000003     wlan0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth1\n"
        );
        assert_eq!(v6(&six), BTreeSet::from(["wlan0".to_owned()]));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(?s).{0,300}") {
            let _ = (v4(&text), v6(&text));
        }
    }
}
