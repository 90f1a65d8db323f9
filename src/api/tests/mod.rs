//! The interface over a real socket, above a real worker's commits.

mod abuse;
mod access;
mod anywhere;
mod arbitrary;
mod client;
mod contract;
mod deployed;
mod history;
mod inference;
mod models;
mod moody;
mod notifications;
mod orders;
mod overview;
mod payments;
mod schema;
mod sessions;
mod state;
mod streaming;
mod tls;
mod trail;
mod watching;
mod world;
