//! The whole program, end to end: real `mangrove run` processes on a real Kafka. What the tests are written with: `tests/common`.
//!
//! What is expected comes from `mangrove backtest` over the same payments under the same names of topics: verdicts are compared byte
//! for byte. The tests' own consumers and producers are plain librdkafka, not the adapter under test.

mod at_least_once;
mod bad_input;
mod commands;
mod crashes;
mod instances;
<<<<<<< HEAD
mod members;
=======
mod lost_commits;
>>>>>>> f6e6c04 (Chaos on a real Kafka: three instances under faults and load, checked by an independent fold; repeated ends and offsets of transactions cannot touch the next one)
mod no_broker;
mod offsets;
mod partitioning;
mod sparkov;
mod stopping;
mod topics;

use crate::common::{broker, feed, ledger, proxy, records, scene, service, skip, until};
