//! The whole program, end to end: real `mangrove run` processes on a real Kafka. What the tests are written with: `tests/common`.
//!
//! What is expected comes from `mangrove backtest` over the same payments under the same names of topics: verdicts are compared byte
//! for byte. The tests' own consumers and producers are plain librdkafka, not the adapter under test.

mod at_least_once;
mod audit;
mod bad_input;
mod commands;
mod crashes;
mod documents;
mod figures;
mod ingestion;
mod instances;
mod limits;
mod load;
mod lost_commits;
mod members;
mod migrate;
mod models;
mod no_broker;
mod notifications;
mod offsets;
mod orders;
mod partitioning;
mod queries;
mod redrive;
mod roles;
mod sparkov;
mod stopping;
mod takeover;
mod topics;

use crate::common::{broker, feed, ledger, proxy, records, scene, service, skip, small_disk, until, until_count};
