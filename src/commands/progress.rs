//! Progress of long work: a bar on a terminal, nothing elsewhere (the log has lines).

use indicatif::{ProgressBar, ProgressStyle};

/// A counter of rows whose number is not known beforehand.
#[must_use]
pub fn rows(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}: {human_pos} rows, {per_sec}, {elapsed}")
        .expect("invariant: the template is valid");
    ProgressBar::new_spinner().with_style(style).with_message(what)
}

/// A counter of what came back, where nobody knows how much will.
#[must_use]
pub fn answers() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} came back, {per_sec}, {elapsed}: {msg}")
        .expect("invariant: the template is valid");
    ProgressBar::new_spinner().with_style(style)
}

/// A bar of known length.
#[must_use]
pub fn steps(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {human_pos}/{human_len}, {eta} left")
        .expect("invariant: the template is valid")
        .progress_chars("=> ");
    ProgressBar::new(length).with_style(style).with_message(what)
}

/// A bar whose length is told while it moves.
pub fn moving(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done.min(total));
}
