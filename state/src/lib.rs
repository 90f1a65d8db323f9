//! Local state of a stream processor: bytes on disk, decoded values above them, changes not yet committed on top.
//!
//! [`backend`] is the port: bytes by key in partitions, with the positions they stand for, applied atomically. [`memory`] and (feature
//! `rocks`) [`rocks`](crate::backend) implement it and pass one suite, [`conformance`]; [`reopening`] opens one anew while others hold it. Above it a [`store::Store`] keeps decoded
//! values of one task, bounded in bytes, and the changes not yet committed; [`codec`] makes bytes of them.
//!
//! [`tier`] is the port to profiles outside of this machine; a [`tiered`] backend lets idle ones leave it and brings them back from there.
#![forbid(unsafe_code)]

pub mod backend;
pub mod codec;
pub mod conformance;
mod kept;
pub mod memory;
mod pass_on;
pub mod reopening;
#[cfg(feature = "rocks")]
pub mod rocks;
pub mod store;
pub mod tier;
pub mod tiered;
