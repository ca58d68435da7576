//! The boots. [`runner`] has them in chains.
//!
//! - [`first_boot`] is the long one, with [`live`] changes at its end; [`keys`] has every key of config.json in force,
//!   [`next_boot`] is the boot after that; [`lost`] has broken configurations, [`rescue`] leads to [`wiped`]
//! - [`update`] has releases from a channel, [`bad`] more of those that are no good, [`lies`] are what a server may try,
//!   [`pressure`] is what containers may take, [`hand`] has releases without a server, [`kexec`] has trials that begin
//!   with a jump; [`trials`] is what these share
//! - [`mbr`] has the image on a disk with an MBR
//! - [`tryboot`] has starts by the Raspberry Pi's firmware, of an image that is made for it
//! - [`uboot`] has boots of the boot script that boards with U-Boot run, [`raspi`] one of the system on a Raspberry Pi

mod bad;
mod first_boot;
mod hand;
mod healthy;
mod kexec;
mod keys;
mod lies;
mod live;
mod lost;
mod mbr;
mod next_boot;
mod pressure;
mod raspi;
mod rescue;
mod runner;
mod trials;
mod tryboot;
mod uboot;
mod update;
mod wiped;

pub(crate) use runner::run;
