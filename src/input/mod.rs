//! Payments from files.

pub mod csv;
