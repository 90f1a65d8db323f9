//! Tests that need nothing but this machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod audit;
mod backtest;
mod backtest_reference;
mod backups;
mod bundles;
mod demo;
mod embedded_broker;
mod eviction;
mod ingestion;
mod load;
mod migrations;
mod planted_bugs;
mod redrives;
mod scoring;
mod scoring_bad_input;
mod scoring_commands;
mod scoring_invariance;
mod scoring_placement;
mod scoring_traces;
mod scoring_world;
mod simulated_lives;
mod simulation;
