//! The boots. [`runner`] has them in chains.
//!
//! - [`first_boot`] is the long one, with [`live`] changes at its end; [`keys`] has every key of config.json in force,
//!   [`next_boot`] is the boot after that; [`lost`] has broken configurations, [`rescue`] leads to [`wiped`]
//! - [`update`] has releases from a channel, [`lies`] are what its server may try, [`hand`] has them without one
//! - [`kexec`] has trials that begin with a jump

mod first_boot;
mod hand;
mod kexec;
mod keys;
mod lies;
mod live;
mod lost;
mod next_boot;
mod rescue;
mod runner;
mod update;
mod wiped;

pub(crate) use runner::run;
