//! Network interfaces that the board has, and its radio. Addresses and names of networks are nobody's business.

use super::root::Root;
use os_config::links::Link;
use os_facts::selftest::Check;

const STATE: &str = "network.state";
const COUNTRY: &str = "wifi.country";
const SCAN: &str = "wifi.scan";
const DIR: &str = "/sys/class/net";

/// The interfaces with hardware behind them; containers' and tunnels have none.
pub(super) fn interfaces(root: Root<'_>) -> Vec<String> {
    let names = root.names(DIR).into_iter();
    names.filter(|name| root.has(format!("{DIR}/{name}/device"))).collect()
}

/// Those that are radios.
pub(super) fn radios(root: Root<'_>) -> Vec<String> {
    interfaces(root).into_iter().filter(|name| root.has(format!("{DIR}/{name}/phy80211"))).collect()
}

/// A check for each interface: a cable, or a network, and an address.
pub(super) fn connected(root: Root<'_>, links: &[Link]) -> Vec<Check> {
    let names = interfaces(root);
    if names.is_empty() {
        let remedy = "the kernel lacks a driver: journalctl -k says what it found";
        return vec![Check::failed(STATE, "no network interface is there", remedy)];
    }
    names.iter().map(|interface| one(root, interface, links)).collect()
}

fn one(root: Root<'_>, interface: &str, links: &[Link]) -> Check {
    let name = format!("network.{interface}");
    let dir = format!("{DIR}/{interface}");
    let driver = root.leads_to(format!("{dir}/device/driver")).unwrap_or_else(|| "unknown".to_owned());
    // A radio that is switched off, or an interface that is down, cannot be asked for either.
    let carrier = root.number::<u32>(format!("{dir}/carrier")) == Some(1);
    if !carrier {
        let what =
            if root.has(format!("{dir}/phy80211")) { "no network is connected" } else { "no cable is plugged in" };
        return Check::skipped(name, format!("driver {driver}, {what}"));
    }
    let speed = root.number::<i64>(format!("{dir}/speed")).filter(|speed| *speed > 0);
    let speed = speed.map_or_else(String::new, |speed| format!(" at {speed} Mbit/s"));
    let has = links.iter().any(|link| link.name == interface && link.addresses.iter().any(|address| address.global));
    match has {
        true => Check::passed(name, format!("driver {driver}, link{speed}, has an address")),
        false => Check::failed(
            name,
            format!("driver {driver}, link{speed}, and no address"),
            "nmcli device status and journalctl -u NetworkManager say why",
        ),
    }
}

/// What NetworkManager makes of all of them, `NMState` in a word.
pub(super) fn state(word: Result<&str, String>) -> Check {
    match word {
        Ok(word @ ("online" | "site" | "local")) => Check::passed(STATE, word),
        Ok(word) => Check::failed(STATE, word, "nmcli device status says why"),
        Err(err) => Check::failed(STATE, err, "journalctl -u NetworkManager"),
    }
}

/// The country that a radio obeys, from `iw reg get`.
pub(super) fn country(said: &str) -> Check {
    let found = said.lines().find_map(|line| line.strip_prefix("country ")?.split(':').next());
    match found {
        Some("00") | None => {
            Check::skipped(COUNTRY, "none is set (country): channels and power are those of every country")
        }
        Some(country) => Check::passed(COUNTRY, country),
    }
}

/// How many networks a radio hears.
pub(super) fn heard(networks: Result<usize, String>) -> Check {
    const REMEDY: &str = "a missing antenna, firmware or country: journalctl -k | grep -i firmware; iw reg get";
    match networks {
        Ok(0) => Check::failed(SCAN, "the radio hears no network", REMEDY),
        Ok(count) => Check::passed(SCAN, format!("the radio hears {count} access points")),
        Err(err) => Check::failed(SCAN, err, REMEDY),
    }
}

/// There is nothing to hear with.
pub(super) fn deaf() -> Check {
    Check::skipped(SCAN, "there is no radio, or the kernel lacks its driver or firmware")
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::Fake;
    use super::*;
    use os_config::links;
    use os_facts::selftest::Outcome::{Failed, Passed, Skipped};

    fn board() -> (Fake, Vec<Link>) {
        let fake = Fake::with(&[
            ("/sys/class/net/lo/carrier", "1"),
            ("/sys/class/net/docker0/carrier", "1"),
            ("/sys/class/net/eth0/carrier", "1\n"),
            ("/sys/class/net/eth0/speed", "1000\n"),
            ("/sys/class/net/eth0/device/uevent", ""),
            ("/sys/class/net/wlan0/device/uevent", ""),
            ("/sys/class/net/wlan0/phy80211/name", "phy0"),
        ]);
        fake.link("/sys/class/net/eth0/device/driver", "../../../../bus/platform/drivers/bcmgenet");
        let json = r#"[{"ifname":"eth0","addr_info":[{"local":"192.0.2.7","prefixlen":24,"scope":"global"}]},
            {"ifname":"wlan0","addr_info":[{"local":"fe80::1","prefixlen":64,"scope":"link"}]}]"#;
        (fake, links::parse(json))
    }

    #[test]
    fn an_interface_has_a_link_and_an_address_or_is_not_plugged_in() {
        let (fake, links) = board();
        let found = connected(fake.root(), &links);
        assert_eq!(
            found,
            [
                Check::passed("network.eth0", "driver bcmgenet, link at 1000 Mbit/s, has an address"),
                Check::skipped("network.wlan0", "driver unknown, no network is connected"),
            ]
        );
        fake.write("/sys/class/net/wlan0/carrier", "1");
        let found = connected(fake.root(), &links);
        assert_eq!(found[1].outcome, Failed, "a link-local address is none");
        assert!(!found.iter().any(|check| check.text.contains("192.0.2.7")));
        fake.write("/sys/class/net/eth0/carrier", "0");
        assert!(connected(fake.root(), &links)[0].text.contains("no cable"));
        assert_eq!(connected(Fake::with(&[]).root(), &[])[0].outcome, Failed);
        assert_eq!((state(Ok("site")).outcome, state(Ok("offline")).outcome), (Passed, Failed));
        assert_eq!(state(Err("NetworkManager does not run".to_owned())).outcome, Failed);
    }

    #[test]
    fn a_radio_hears_something_and_knows_where_it_is() {
        let (fake, _) = board();
        assert_eq!(radios(fake.root()), ["wlan0"]);
        assert_eq!((heard(Ok(3)).outcome, heard(Ok(0)).outcome, deaf().outcome), (Passed, Failed, Skipped));
        assert_eq!(heard(Err("nmcli failed".to_owned())).outcome, Failed);
        let said = "global\ncountry DE: DFS-ETSI\n\t(2400 - 2483 @ 40), (N/A, 20), (N/A)\n";
        assert_eq!(country(said), Check::passed(COUNTRY, "DE"));
        assert_eq!((country("global\ncountry 00: DFS-UNSET\n").outcome, country("").outcome), (Skipped, Skipped));
    }
}
