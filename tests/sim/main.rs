//! Tests that need nothing but this machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod embedded_broker;
