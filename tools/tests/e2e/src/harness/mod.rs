//! What tests are made of. Nothing here knows a scenario, a campaign or a benchmark.
//!
//! - [`lab`] is a flashed disk and the machines that start from it; [`vm`] is a machine and the ways into it
//! - [`device`] is what is asked of a device again and again
//! - [`artifacts`] is what is tested, [`settled`] a copy of it that runs, [`rig`] one with its servers around it
//! - [`disk`] is what a powered-off machine has, [`fat`] edits its boot partition, [`volume`] reads what lies on any,
//!   [`taken`] is what the bootloader keeps there, as os-boot sees it
//! - [`release`] makes releases, [`site`] is a web server for them, [`liar`] one that misbehaves, [`pipe`] the way there
//! - [`mdns`] asks for a name on the machine's second network card, [`tpm`] is the machine's TPM
//! - [`uboot`] is a board with U-Boot and no system, [`raspi`] an emulated Raspberry Pi, [`firmware`] stands in for its firmware
//! - [`trace`] is what the machine wrote to its disk
//! - [`checks`] counts and prints, [`deadline`] ends what takes too long, [`random`] gives numbers

pub(crate) mod artifacts;
pub(crate) mod checks;
pub(crate) mod deadline;
#[expect(clippy::indexing_slicing, reason = "indexing a JSON value that is not there gives null")]
pub(crate) mod device;
pub(crate) mod disk;
pub(crate) mod fat;
pub(crate) mod firmware;
pub(crate) mod lab;
pub(crate) mod liar;
pub(crate) mod mdns;
pub(crate) mod pipe;
pub(crate) mod random;
pub(crate) mod raspi;
pub(crate) mod release;
pub(crate) mod rig;
pub(crate) mod settled;
pub(crate) mod site;
pub(crate) mod taken;
pub(crate) mod tpm;
pub(crate) mod trace;
pub(crate) mod uboot;
#[expect(clippy::indexing_slicing, reason = "indexing a JSON value that is not there gives null")]
pub(crate) mod vm;
pub(crate) mod volume;
