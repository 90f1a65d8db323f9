//! Local state of a stream processor: bytes on disk, decoded values above them, changes not yet committed on top.
#![warn(missing_docs)]

pub mod backend;
pub mod store;
pub mod codec;
pub mod conformance;
pub mod memory;
#[cfg(feature = "rocks")]
pub mod rocks;
