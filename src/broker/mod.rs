//! The brokers that the product runs on.

pub mod embedded;
pub mod groups;
pub mod kafka;
mod scan;

pub use groups::Groups;
pub use scan::scan;
