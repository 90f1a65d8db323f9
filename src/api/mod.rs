//! The HTTP interface: one HTTP/1.1 server over what the instance has committed.
//!
//! ```text
//! listener -> server (connections, limits) -> routes (table, method, token, body, time) -> a handler -> Reply | Problem
//!                                                                                             |
//!   query (which instance) <- anywhere -> committed (a user's profile and where it stands) <--+
//! ```
//!
//! A route is one row of `routes::ROUTES`: method, path, access, handler, and what it says of itself, which `document` makes
//! `/openapi.json` of. Handlers are plain functions of a `call::Call`;
//! those that read the store run beside the event loop, so a slow disk never holds up a probe. Every error is a
//! `problem::Problem` (RFC 9457) of a closed set, each explained at `/problems/{name}`.
//!
//! Invariants: only committed state is answered, with the position it stands for; "not found" is said only by the instance that
//! runs the partition (I5); a user's id is in no log line, metric or problem; nothing a caller sends makes a handler panic,
//! and one that does all the same costs its own request only.
//! Limits: a head of 32 KiB within 5 s, a body of 1 MiB within 5 s, 5 s for an answer, 1,024 connections, 64 reads of the store at
//! once; an idle connection is closed after 5 s. They are constants of `site`, `server` and `call`.

mod anywhere;
mod auth;
mod call;
mod committed;
mod copies;
mod dead_letters;
mod declare;
mod demo;
mod document;
mod erasure;
mod export;
mod exposition;
mod graph;
mod health;
mod history;
mod inference;
mod intake;
mod labels;
mod lines;
mod login;
mod models;
mod notifications;
mod orders;
mod pages;
mod parameters;
mod parts;
mod patience;
mod payments;
mod probes;
mod problem;
mod profile;
mod rates;
mod receipt;
mod recent;
mod reply;
mod route;
mod routes;
mod server;
mod sessions;
mod shadow;
mod site;
mod standing;
mod stores;
mod stream;
mod tally;
mod tasks;
mod trail;
mod train;
mod users;

#[cfg(test)]
mod tests;

pub use document::{published, published_names};
pub use health::Health;
pub use parts::{Api, Doors};
pub use server::serve;
