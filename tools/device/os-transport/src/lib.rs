//! The way of a bundle, or of any file, from where it lies to whoever reads it.
//!
//! - [`fetch`] reads from a web server or a directory; [`address`] is where something lies on a server, [`head`] what a server
//!   says of its answer
//! - [`relay`] hands a bundle on to RAUC

pub mod address;
pub mod fetch;
pub mod head;
pub mod relay;

pub use address::Address;
pub use fetch::{FetchError, Part, Source, Stream, go_through};
