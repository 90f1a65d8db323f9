//! The simulation: the product's own topology, tasks, workers, commits and restores, on a simulated broker, disks, clocks and group,
//! driven by one number.
//!
//! ```text
//! soak -> life -> world { broker, instances { workers, disk, clock, model } }    steps: what may go wrong where, and how often it did
//!           |-> feed (payments, poison, commands)                                 watch: what is checked at each step
//!           '-> checker <- oracle                                                 trace: what happened, to read and to compare
//! ```
//!
//! A seed is a life with at least three instances, 8 partitions, 300 records, 20 commits and 5 troubles; then peace, then a new life
//! from the topics and what disks are left. It runs on one thread, so the seed alone repeats it: `make sim SEED=n` tells it step by step.

pub mod checker;
pub mod disk;
pub mod feed;
pub mod life;
pub mod oracle;
pub mod random;
pub mod soak;
pub mod steps;
pub mod trace;
pub mod watch;
pub mod world;
