//! The one command on the workstation, as a library. It needs no checkout; the lab and the end-to-end tests use it too.
//!
//! - [`image`] writes a configuration into an image or onto a card
//! - [`channel`] makes and keeps directories of releases
//! - [`device`] updates and tests a device over ssh
//! - [`layer`] makes the layer of a board
//! - [`kconfig`] compares a kernel's configuration with what the OS needs

pub mod channel;
pub mod device;
pub mod image;
pub mod kconfig;
pub mod layer;
