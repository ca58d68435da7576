//! The one command on the workstation, as a library: the end-to-end tests use the same machine and image code.
//!
//! - [`repo`] knows where things are
//! - [`step`] runs build steps once per input and says how long they took
//! - [`lab`] builds the image of the lab lane
//! - [`image`] writes a configuration into an image or onto a card
//! - [`device`] updates a device over ssh
//! - [`qemu`] starts virtual machines with it, [`run`] one on this terminal
//! - [`crates_inc`] writes the crate list of the Yocto recipe
//! - [`config_docs`] writes the reference of config.json from its table of keys
//! - [`check`] compares what both lanes must agree on, [`pages`] the book with its table of contents

pub mod channel;
pub mod check;
pub mod config_docs;
pub mod crates_inc;
pub mod device;
pub mod image;
pub mod lab;
pub mod pages;
pub mod qemu;
pub mod repo;
pub mod run;
pub mod step;
