//! Arguments that several commands share.

use std::time::Duration;

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

/// A span of time: `90s`, `10m`, `2h`, `500ms`.
///
/// # Errors
/// What was expected, for a person.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().unwrap_or(f64::NAN) * unit;
    let within = (0.0..=1e9).contains(&seconds);
    within.then(|| Duration::from_secs_f64(seconds)).ok_or_else(|| "expected a time such as 90s, 10m or 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        assert_eq!(seconds("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(seconds("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(seconds("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "90", "s", "-1s", "1d", "1 s", "9999999999h"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
