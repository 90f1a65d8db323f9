//! Training: rows from verdicts, Postgres or files, a forest on all cores, and whether it may go live.
//!
//! Each tree has random numbers of its own and rows come in one order, so the same rows and seed give the same model whatever the
//! number of threads, and whether they were read from the topic or from Postgres.

mod erased;
pub mod jobs;
mod postgres;
mod rows;
mod sources;
mod trainer;

pub use postgres::{FromPostgres, PostgresError, from_postgres};
pub use rows::TrainingRows;
pub use sources::{Logs, ROWS_MAX, RowsError, Span, from_file, from_verdicts, logged, synthetic};
pub use trainer::{Candidate, ROWS_MIN, Recipe, SAMPLES, TREES, candidate};
