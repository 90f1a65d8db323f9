//! The interface over a real socket, above a real worker's commits.

mod abuse;
mod access;
mod anywhere;
mod arbitrary;
mod client;
mod inference;
mod models;
mod notifications;
mod overview;
mod state;
mod streaming;
mod watching;
mod world;
