//! Training: rows from verdicts or files, a forest on all cores, and whether it may go live.
//!
//! Each tree has random numbers of its own and rows come in one order, so the same rows and seed give the same model whatever the
//! number of threads.

mod erased;
pub mod jobs;
mod rows;
mod sources;
mod trainer;

pub use rows::TrainingRows;
pub use sources::{Logs, ROWS_MAX, Span, from_file, from_verdicts, logged, synthetic};
pub use trainer::{Candidate, ROWS_MIN, Recipe, SAMPLES, TREES, candidate};
