//! The lab: an image of the OS for developing and testing, made of Debian's binary packages, and machines that run it. The
//! end-to-end tests use the same code.
//!
//! - [`repo`] knows where things are, [`arch`] what architectures differ in
//! - [`step`] runs build steps once per input and says how long they took
//! - [`tools_tree`] has the programs that all of this starts
//! - [`image`] builds the disk image
//! - [`uboot`] is the firmware of ARM machines, [`unit`] runs unit tests on them
//! - [`qemu`] starts virtual machines with it, [`run`] one on this terminal

pub mod arch;
pub mod image;
pub mod qemu;
pub mod repo;
pub mod run;
pub mod step;
pub mod tools_tree;
pub mod uboot;
pub mod unit;
