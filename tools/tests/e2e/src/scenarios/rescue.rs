//! Both slots are used up.

use super::wiped::wiped;
use crate::harness::checks::Checks;
use crate::harness::device::leave_rescue;
use crate::harness::lab::Lab;
use anyhow::{Result, bail, ensure};
use std::time::Duration;

/// Both slots have used up their tries; then everything is erased, and the plug is pulled while it is.
pub(super) fn rescue_and_wipe(lab: &Lab, checks: &mut Checks) -> Result<()> {
    let used_up: Vec<String> = lab.artifacts.slots.iter().map(|slot| format!("{slot}_TRY=3")).collect();
    let [first, _] = used_up.as_slice() else { bail!("there are not two slots") };
    lab.disk.set_grub(&used_up)?;
    let mut vm = lab.boot_to_restart()?;
    checks.check("after three failed tries of both slots, the rescue entry starts", || {
        vm.wait_ssh()?;
        vm.wait_for("systemctl is-active os-rescue.target", Duration::from_secs(60))?;
        let (code, _) = vm.ssh_code("systemctl is-active docker multi-user.target >/dev/null")?;
        ensure!(code != 0, "containers run in rescue");
        Ok(())
    });
    checks.check("the counters stay as they are", || {
        let text = vm.ssh(&format!("grep -a TRY {}", lab.disk.mounted_counters()))?;
        ensure!(used_up.iter().all(|tries| text.contains(tries)), "{text}");
        Ok(())
    });
    checks.check("it stays while somebody is logged in", || {
        vm.ssh("systemctl start os-rescue.service")?;
        let said = vm.ssh(&format!(
            "journalctl -b -u os-rescue.service -o cat --no-pager; grep -a TRY {}",
            lab.disk.mounted_counters()
        ))?;
        ensure!(said.contains("root is logged in") && said.contains(first), "{said}");
        vm.ssh("systemctl is-active os-rescue.timer").map(drop)
    });
    checks.check("when nobody comes, the slots are tried again, and a wipe of everything begins", || {
        vm.ssh("printf 'all\\r\\n' > /mnt/boot/wipe; sync /mnt/boot/wipe")?;
        leave_rescue(&mut vm, &lab.artifacts.console)?;
        vm.wait_console("wiping os-state, as asked", Duration::from_secs(120))
    });
    // In the middle of it.
    drop(vm);
    checks.check("a slot has tries again", || {
        let text = lab.disk.fat.read_text(&lab.disk.counters)?;
        ensure!(text.contains(first.trim_end_matches('3')) && !text.contains(first), "{text}");
        Ok(())
    });
    wiped(lab, checks)
}
