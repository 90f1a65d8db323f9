//! Mangrove scores every payment as it happens: the product around the engine.
//!
//! `instance` puts parts together, `scoring` is where models meet topology, commands hold no logic.

pub mod api;
mod ask;
pub mod audit;
pub mod backtest;
pub mod backup;
pub mod broker;
pub mod bundle;
pub mod clock;
pub mod commands;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod exclusive;
pub mod failure;
pub mod forest;
pub mod generator;
pub mod ingest;
pub mod input;
pub mod instance;
pub mod labels;
pub mod live;
pub mod load;
pub mod logging;
pub mod membership;
pub mod migrate;
pub mod notify;
pub mod orders;
pub mod output;
pub mod parallel;
pub mod projection;
pub mod query;
pub mod redrive;
pub mod registry;
pub mod retraining;
pub mod schedule;
pub mod scoring;
pub mod service;
pub mod shadow;
pub mod snoozes;
pub mod tap;
pub mod tiers;
pub mod tls;
pub mod training;
