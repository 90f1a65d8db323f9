//! Arguments that several commands share.

/// See [`crate::training::TREES`].
const TREES: u32 = crate::training::TREES as u32;
/// See [`crate::training::SAMPLES`].
const SAMPLES: u32 = crate::training::SAMPLES as u32;

/// How a forest is grown. `--contamination` is a setting and so a flag of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct ForestParameters {
    /// How many trees
    #[arg(long, value_name = "COUNT", default_value_t = TREES, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub trees: u32,

    /// How many rows each tree is grown from
    #[arg(long, value_name = "ROWS", default_value_t = SAMPLES, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub samples: u32,

    /// Where the random numbers begin; the same seed and rows give the same forest
    #[arg(long, value_name = "NUMBER", default_value_t = 42)]
    pub seed: u64,
}

impl ForestParameters {
    /// As training takes them.
    #[must_use]
    pub fn params(&self) -> models::TrainParams {
        models::TrainParams { trees: self.trees as usize, max_samples: self.samples as usize, seed: self.seed }
    }
}

/// A moment: RFC 3339, or whole milliseconds since 1970.
///
/// # Errors
/// What was expected, for a person.
pub fn time_ms(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let parsed = text.parse::<jiff::Timestamp>();
    parsed
        .map(|at| at.as_millisecond())
        .map_err(|_| "expected a time such as 2026-11-23T10:00:00Z, or milliseconds since 1970".to_owned())
}
