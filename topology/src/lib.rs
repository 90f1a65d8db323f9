//! Mangrove's engine: partitioned, exactly-once stream processing with local state.
#![warn(missing_docs)]

pub mod broker;
pub mod clock;
mod commit;
pub mod conformance;
pub mod dead_letter;
pub mod decision;
pub mod driver;
mod emptying;
pub mod metrics;
pub mod partitioner;
pub mod processor;
pub mod record;
pub mod restore;
mod restoring;
pub mod simulated;
pub mod status;
mod task;
pub mod topology;
pub mod worker;
