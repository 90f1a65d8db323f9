//! Contract tests of the Kafka broker against a real one.
//!
//! `MANGROVE_TEST_KAFKA` names its address (`scripts/kafka.sh start DIR 0` prints one). Without it each test that needs a broker says
//! loudly that it was skipped, and adds a line to the file that `MANGROVE_SKIPS` names. Topics, groups and identities are new for each
//! test, so any broker will do and tests run side by side. Failure detection is fast only where `group.min.session.timeout.ms` allows it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests of real time against a real broker, whose address the environment names")]

mod at_least_once;
#[path = "../common/mod.rs"]
mod common;
mod configuration;
mod conformance;
mod end_to_end;
mod fetching;
mod membership;
mod reading;
mod topics;
mod transactions;
mod world;
