//! The brokers that the product runs on.

pub mod embedded;
pub mod kafka;
