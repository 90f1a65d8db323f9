//! The forest alone, on any table of numbers: how well it ranks labelled sets, and how fast its kernels are.

pub mod bench;
pub mod eval;
mod npy;
mod npz;
pub mod stability;

pub use npz::{Labelled, NpzError, read};
