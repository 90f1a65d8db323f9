//! The brokers that the product runs on.

pub mod embedded;
pub mod groups;
pub mod kafka;

pub use groups::Groups;
