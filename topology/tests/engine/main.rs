//! The engine's behaviour, seen from outside through the TestDriver: processors that have nothing to do with payments.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod away;
mod dead_letters;
mod faults;
mod latency;
mod ledger;
mod positions;
mod punctuation;
mod replay;
mod restores;
mod shares;
mod standbys;
mod words;
