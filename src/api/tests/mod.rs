//! The interface over a real socket, above a real worker's commits.

mod abuse;
mod access;
mod anywhere;
mod arbitrary;
mod client;
mod inference;
mod models;
mod overview;
mod payments;
mod sessions;
mod state;
mod streaming;
mod tls;
mod trail;
mod watching;
mod world;
