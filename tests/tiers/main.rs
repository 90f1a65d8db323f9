//! Redis and Postgres as they are: tiers, schema and projection against real servers.
//!
//! `MANGROVE_TEST_REDIS` and `MANGROVE_TEST_POSTGRES` are URLs (`scripts/redis.sh start DIR 0` and `scripts/postgres.sh start DIR 0` print
//! them). Without them each test that needs one says loudly that it was skipped. Each test is an application of its own: its keys and
//! its schema are nobody else's. Tests that stop a server start their own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests of real time against real servers, whose addresses the environment names")]

#[path = "../common/mod.rs"]
mod common;
mod conformance;
mod documents;
mod erasure;
mod eviction;
mod figures;
mod history;
mod leaving;
mod place;
mod program;
mod projection;
mod queries;
mod rival;
mod schema;
mod servers;
mod site;
mod stage;
mod training;
