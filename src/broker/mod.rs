//! The brokers that the product runs on.

pub mod embedded;
pub mod groups;
pub mod kafka;
mod scan;
mod scribe;

pub use groups::Groups;
pub use scan::{partitions, scan};
pub use scribe::Scribe;
