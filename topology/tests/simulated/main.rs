//! What the conformance suite can't see of the simulated broker: its faults, its clock, and what checkers are shown.

mod clock;
mod faults;
mod group;
mod scene;
