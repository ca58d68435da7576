//! The board itself: power, heat, memory, random numbers, and what its kernel can do.

use super::root::Root;
use os_facts::selftest::Check;

const MODEL: &str = "board.model";
const MEMORY: &str = "machine.memory";
const TEMPERATURE: &str = "machine.temperature";
const POWER: &str = "machine.power";
const RANDOM: &str = "machine.random";
const TPM: &str = "machine.tpm";
const FAULTS: &str = "kernel.faults";
const KEXEC: &str = "kernel.kexec";

/// The least that was ever tested is 512 MiB, of which firmware and kernel take a part; in bytes.
const LEAST_MEMORY: u64 = 400 << 20;
/// Processors slow down at about 80 to 85 °C, in thousandths of a degree.
const HOT: i64 = 80_000;
/// Bits of the kernel's taint (Documentation/admin-guide/tainted-kernels.rst) that mean a fault, not a choice.
const TAINTS: [(u32, &str); 5] = [
    (4, "the processor reported an error"),
    (5, "a page of memory was bad"),
    (7, "it has crashed in part"),
    (9, "it has warned of a fault of its own"),
    (14, "a processor was stuck"),
];

/// What the board calls itself: from the device tree, or from the firmware of a PC.
pub(super) fn model(root: Root<'_>) -> Option<String> {
    let dmi = |name: &str| root.text(format!("/sys/class/dmi/id/{name}"));
    root.text("/proc/device-tree/model").or_else(|| Some(format!("{} {}", dmi("sys_vendor")?, dmi("product_name")?)))
}

/// Version of what ran before the kernel: a PC's firmware, a Raspberry Pi's EEPROM, U-Boot.
pub(super) fn firmware(root: Root<'_>) -> Option<String> {
    let dmi = root.text("/sys/class/dmi/id/bios_version").map(|version| {
        format!("{version} {}", root.text("/sys/class/dmi/id/bios_date").unwrap_or_default()).trim_end().to_owned()
    });
    let eeprom = root.text("/proc/device-tree/chosen/bootloader/version").map(|version| format!("EEPROM {version}"));
    let u_boot = root.text("/proc/device-tree/chosen/u-boot,version").map(|version| format!("U-Boot {version}"));
    let parts: Vec<String> = [dmi, eeprom, u_boot].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The board is known.
pub(super) fn named(model: Option<&str>) -> Check {
    match model {
        Some(model) => Check::passed(MODEL, model),
        None => Check::skipped(MODEL, "neither a device tree nor a firmware says what board this is"),
    }
}

/// There is enough memory; bytes that the kernel has.
pub(super) fn memory(total: Option<u64>) -> Check {
    match total {
        Some(total) if total >= LEAST_MEMORY => Check::passed(MEMORY, format!("{} MiB", total >> 20)),
        Some(total) => Check::failed(
            MEMORY,
            format!("{} MiB; containers need 512 MiB and more", total >> 20),
            "a firmware that keeps memory for graphics, or a device tree of another board",
        ),
        None => Check::failed(MEMORY, "the kernel does not say how much", "cat /proc/meminfo"),
    }
}

/// The hottest of all sensors.
pub(super) fn temperature(root: Root<'_>) -> Check {
    let dir = "/sys/class/thermal";
    let zones = root.names(dir).into_iter().filter(|name| name.starts_with("thermal_zone"));
    let read = zones.filter_map(|zone| {
        let kind = root.text(format!("{dir}/{zone}/type")).unwrap_or_default();
        Some((root.number::<i64>(format!("{dir}/{zone}/temp"))?, kind))
    });
    match read.max() {
        None => Check::skipped(TEMPERATURE, "there is no sensor, or the kernel lacks its driver"),
        Some((temp, zone)) if temp < HOT => Check::passed(TEMPERATURE, format!("{} °C ({zone})", temp / 1000)),
        Some((temp, zone)) => Check::failed(
            TEMPERATURE,
            format!("{} °C ({zone})", temp / 1000),
            "it slows down: give it a heat sink or air",
        ),
    }
}

/// A Raspberry Pi's firmware says when the voltage was too low, and keeps saying it until the next start. Its older file
/// `get_throttled` is left alone: the kernel warns when somebody reads it.
pub(super) fn power(root: Root<'_>) -> Check {
    let dir = "/sys/class/hwmon";
    let names = root.names(dir);
    let sensor = names.iter().find(|name| root.text(format!("{dir}/{name}/name")).as_deref() == Some("rpi_volt"));
    match sensor.and_then(|name| root.number::<u32>(format!("{dir}/{name}/in0_lcrit_alarm"))) {
        Some(0) => Check::passed(POWER, "the voltage was never too low since the start"),
        Some(_) => {
            Check::failed(POWER, "the voltage was too low", "use the power supply and cable made for this board")
        }
        None => Check::skipped(POWER, "this board does not tell, or the kernel lacks the driver"),
    }
}

/// Random numbers come from hardware.
pub(super) fn random(root: Root<'_>) -> Check {
    match root.text("/sys/class/misc/hw_random/rng_current").filter(|name| name != "none") {
        Some(name) => Check::passed(RANDOM, name),
        None => Check::skipped(
            RANDOM,
            "there is no generator, or the kernel lacks its driver; the kernel collects them itself",
        ),
    }
}

/// A TPM, which can keep the key of the data partition.
pub(super) fn tpm(root: Root<'_>) -> Check {
    match root.number::<u32>("/sys/class/tpm/tpm0/tpm_version_major") {
        Some(2) => Check::passed(TPM, "TPM 2"),
        Some(other) => Check::skipped(TPM, format!("TPM {other}, which os.encryption.data cannot use")),
        None => Check::skipped(TPM, "there is none; os.encryption.data can only be key"),
    }
}

/// The kernel has reported no fault of its own or of the hardware. `warnings`: how many lines it has said at that level.
pub(super) fn faults(root: Root<'_>, warnings: Option<usize>) -> Check {
    let taint = root.number::<u64>("/proc/sys/kernel/tainted").unwrap_or(0);
    let found: Vec<&str> = TAINTS.iter().filter(|(bit, _)| taint & (1 << bit) != 0).map(|(_, text)| *text).collect();
    let said = warnings.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    match found.is_empty() {
        true => Check::passed(FAULTS, format!("none; warnings: {said}")),
        false => Check::failed(
            FAULTS,
            format!("the kernel says that {}; warnings: {said}", found.join(", ")),
            "journalctl -k -b -p warning says which",
        ),
    }
}

/// A release can be tried without the firmware.
pub(super) fn kexec(root: Root<'_>) -> Check {
    const OTHERWISE: &str = "a trial restarts the device instead";
    let locked = root.text("/sys/kernel/security/lockdown").is_some_and(|modes| !modes.contains("[none]"));
    match root.number::<u32>("/proc/sys/kernel/kexec_load_disabled") {
        Some(0) if locked => {
            Check::skipped(KEXEC, format!("the kernel is locked down, and takes signed kernels only; {OTHERWISE}"))
        }
        Some(0) => Check::passed(KEXEC, "possible"),
        Some(_) => Check::skipped(KEXEC, format!("switched off; {OTHERWISE}")),
        None => Check::skipped(KEXEC, format!("the kernel cannot do it; {OTHERWISE}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::Fake;
    use super::*;
    use os_facts::selftest::Outcome::{Failed, Passed, Skipped};

    #[test]
    fn boards_and_pcs_say_what_they_are() {
        let pi = Fake::with(&[
            ("/proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
            ("/proc/device-tree/chosen/bootloader/version", "c305221a\0"),
            ("/proc/device-tree/chosen/u-boot,version", "2025.01\0"),
        ]);
        assert_eq!(model(pi.root()).as_deref(), Some("Raspberry Pi 4 Model B Rev 1.4"));
        assert_eq!(firmware(pi.root()).as_deref(), Some("EEPROM c305221a, U-Boot 2025.01"));
        let pc = Fake::with(&[
            ("/sys/class/dmi/id/sys_vendor", "LENOVO\n"),
            ("/sys/class/dmi/id/product_name", "20HR\n"),
            ("/sys/class/dmi/id/bios_version", "1.52\n"),
        ]);
        assert_eq!((model(pc.root()), firmware(pc.root())), (Some("LENOVO 20HR".to_owned()), Some("1.52".to_owned())));
        assert_eq!(model(Fake::with(&[]).root()), None);
        assert_eq!((named(Some("x")).outcome, named(None).outcome), (Passed, Skipped));
    }

    #[test]
    fn heat_is_that_of_the_hottest_sensor() {
        let fake = Fake::with(&[
            ("/sys/class/thermal/thermal_zone0/temp", "54200\n"),
            ("/sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("/sys/class/thermal/thermal_zone1/temp", "41000\n"),
            ("/sys/class/thermal/cooling_device0/type", "cpufreq"),
        ]);
        assert_eq!(temperature(fake.root()), Check::passed(TEMPERATURE, "54 °C (cpu-thermal)"));
        fake.write("/sys/class/thermal/thermal_zone1/temp", "83000");
        assert_eq!(temperature(fake.root()).outcome, Failed);
        assert_eq!(temperature(Fake::with(&[]).root()).outcome, Skipped);
    }

    #[test]
    fn a_low_voltage_is_remembered() {
        let fake = Fake::with(&[
            ("/sys/class/hwmon/hwmon0/name", "cpu_thermal"),
            ("/sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
            ("/sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n"),
        ]);
        assert_eq!(power(fake.root()).outcome, Passed);
        fake.write("/sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
        assert_eq!(power(fake.root()).outcome, Failed);
        assert_eq!(power(Fake::with(&[]).root()).outcome, Skipped);
    }

    #[test]
    fn memory_random_numbers_and_a_tpm_are_found() {
        assert_eq!((memory(Some(480 << 20)).outcome, memory(Some(200 << 20)).outcome), (Passed, Failed));
        assert_eq!(memory(None).outcome, Failed);
        let fake = Fake::with(&[
            ("/sys/class/misc/hw_random/rng_current", "iproc-rng200\n"),
            ("/sys/class/tpm/tpm0/tpm_version_major", "2\n"),
        ]);
        assert_eq!((random(fake.root()).outcome, tpm(fake.root()).outcome), (Passed, Passed));
        fake.write("/sys/class/misc/hw_random/rng_current", "none\n");
        fake.write("/sys/class/tpm/tpm0/tpm_version_major", "1\n");
        assert_eq!((random(fake.root()).outcome, tpm(fake.root()).outcome), (Skipped, Skipped));
    }

    #[test]
    fn a_kernel_that_is_only_out_of_tree_is_no_faulty_one() {
        let fake = Fake::with(&[("/proc/sys/kernel/tainted", "5120\n")]);
        assert_eq!(faults(fake.root(), Some(2)), Check::passed(FAULTS, "none; warnings: 2"));
        fake.write("/proc/sys/kernel/tainted", "4608\n");
        let check = faults(fake.root(), None);
        assert!(check.outcome == Failed && check.text.contains("a fault of its own"), "{check:?}");
    }

    #[test]
    fn a_kernel_that_is_locked_down_takes_no_jump() {
        let fake = Fake::with(&[
            ("/proc/sys/kernel/kexec_load_disabled", "0\n"),
            ("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n"),
        ]);
        assert_eq!(kexec(fake.root()).outcome, Passed);
        fake.write("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        assert_eq!(kexec(fake.root()).outcome, Skipped);
        assert_eq!(kexec(Fake::with(&[]).root()).outcome, Skipped);
    }
}
