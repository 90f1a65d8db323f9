//! Mangrove's engine: partitioned, exactly-once stream processing with local state.
//!
//! A [`topology::Topology`] says which topics are read, which [`processor::Processor`] runs on each partition, which stores it keeps and
//! which topics it writes. A [`worker::Worker`] runs the tasks that the group gives it: it polls, processes, commits outputs, state changes
//! and input offsets in one transaction of the broker, and only then writes the store on disk. So the disk is never ahead of the log: a
//! crash never means wiping it, and a restart restores the tail only.
//!
//! ```text
//!  broker -> record -> worker -> task -> processor (yours) -> commit -> broker
//!                        |                   |                   |
//!                     restore            stores (state)      stores on disk
//! ```
//!
//! What a user writes: [`topology`], [`processor`]. What runs it: [`worker`] (task, commit, restore inside), [`decision`], [`dead_letter`]. What audits it: [`replay`] (the same
//! processing again, without writing), [`refill`] (a store anew from its changelog).
//! Ports: [`broker`] (three implementations pass [`conformance`]), [`clock`], and `state`'s `Backend`. What tests it: [`driver`] on the
//! [`simulated`] broker. The engine reads no clock, no environment and no random number, and starts no thread: time, seeds and
//! threads come from whoever drives it, so a simulation drives the very same code.
//!
//! Start with the example in [`driver`]: a word count in twenty lines.
#![forbid(unsafe_code)]

mod assignment;
pub mod broker;
pub mod clock;
mod commit;
pub mod conformance;
pub mod dead_letter;
pub mod decision;
pub mod driver;
mod emptying;
mod ids;
pub mod latency;
pub mod metrics;
mod notes;
pub mod partitioner;
pub mod predecessors;
mod processing;
pub mod processor;
mod reaction;
pub mod record;
pub mod refill;
pub mod replay;
pub mod restore;
mod restoring;
pub mod simulated;
mod sink;
pub mod standby;
pub mod status;
mod task;
pub mod topology;
pub mod worker;
