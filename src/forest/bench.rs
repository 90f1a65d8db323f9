//! How long training, scoring, explaining, writing and reading a forest take on this machine.
//!
//! Kernels are measured in CPU time, so that what else the machine does counts little.

use std::time::Duration;

use models::explain::explain;
use models::{FEATURES, Kernel, Model, Observation};
use serde::Serialize;

use crate::clock::{monotonic, process_cpu, since};
use crate::training::TrainingRows;

/// Rows of a batch in the stream: what a worker polls at once.
const BATCH_ROWS: usize = 1_000;
/// Measured for at least this long.
const LEAST: Duration = Duration::from_millis(500);

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// Rows trained on.
    pub rows: usize,
    /// Trees.
    pub trees: usize,
    /// Rows of each tree.
    pub samples: usize,
    /// Cores that training used.
    pub cores: usize,
    /// Training, calibration included, by the clock.
    pub train_seconds: f64,
    /// The same in CPU time of all cores together.
    pub train_cpu_seconds: f64,
    /// One row in a batch of 1,000, on one core, by the fastest kernel.
    pub score_batch_us: f64,
    /// The same by each kernel that this forest and processor allow.
    pub kernels: Vec<KernelTime>,
    /// One row alone, on one core.
    pub score_single_us: f64,
    /// The reasons of one row.
    pub explain_us: f64,
    /// Bytes of the artifact.
    pub artifact_bytes: usize,
    /// Reading and checking the artifact.
    pub load_ms: f64,
}

/// What a kernel takes.
#[derive(Clone, Debug, Serialize)]
pub struct KernelTime {
    /// Its name.
    pub kernel: String,
    /// One row in a batch of 1,000, on one core.
    pub score_batch_us: f64,
}

/// Measures with a model trained on these rows.
#[must_use]
pub fn measure(rows: &TrainingRows, model: &Model, trained: Duration, trained_cpu: Duration) -> Times {
    let features = rows.features();
    let batch = &features[..features.len().min(BATCH_ROWS * FEATURES)];
    let count = batch.len() / FEATURES;
    let each: Vec<&[f32; FEATURES]> = batch.as_chunks::<FEATURES>().0.iter().collect();
    let mut scores = Vec::new();
    let mut by_kernel = |kernel: Kernel| {
        let score_batch_us = micros(count, || {
            scores.clear();
            model.forest.raw_scores_by(kernel, batch, &mut scores);
        });
        KernelTime { kernel: format!("{kernel:?}").to_lowercase(), score_batch_us }
    };
    let kernels: Vec<KernelTime> = model.forest.kernels().iter().map(|&kernel| by_kernel(kernel)).collect();
    let score_batch_us = kernels.last().map_or(0.0, |fastest| fastest.score_batch_us);
    let mut sum = 0.0;
    let score_single_us = micros(count, || sum += each.iter().map(|row| model.raw_score(row)).sum::<f64>());
    let few = &each[..count.min(100)];
    let observe = |row: &[f32; FEATURES]| Observation { features: *row, normal: models::Normal::default() };
    let mut reasons = 0;
    let explain_us = micros(few.len(), || {
        reasons += few.iter().map(|row| explain(model, &observe(row), 1.0).len()).sum::<usize>();
    });
    let bytes = model.to_bytes();
    let mut read = true;
    let load_ms = micros(1, || read &= Model::from_bytes(&bytes).is_ok()) / 1_000.0;
    // The sums keep the work from being left out as unused.
    std::hint::black_box((sum, reasons, read));
    Times {
        rows: rows.len(),
        trees: model.params.trees,
        samples: model.forest.samples(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        train_seconds: trained.as_secs_f64(),
        train_cpu_seconds: trained_cpu.as_secs_f64(),
        score_batch_us,
        kernels,
        score_single_us,
        explain_us,
        artifact_bytes: bytes.len(),
        load_ms,
    }
}

/// Microseconds of CPU time that each of `count` parts of the work takes, over as many repetitions as fill the least time.
fn micros(count: usize, mut work: impl FnMut()) -> f64 {
    work();
    let (began, cpu) = (monotonic(), process_cpu());
    let mut rounds = 0u32;
    while since(began) < LEAST {
        work();
        rounds += 1;
    }
    process_cpu().saturating_sub(cpu).as_secs_f64() * 1e6 / (f64::from(rounds) * count.max(1) as f64)
}
