//! What the conformance suite can't see of the simulated broker: its faults, its clock, and what checkers are shown.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clock;
mod faults;
mod group;
mod scene;
