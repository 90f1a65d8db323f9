//! How far an instance's restores are, for whoever started it: a bar on a terminal, a line of the log every few seconds elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use topology::status::{Phase, TaskStatus};
use topology::topology::TaskId;
use tracing::info;

use crate::clock::{monotonic, since};

/// Between two lines of the log. A restore that is shorter has none: its end is logged anyway.
const LINE: Duration = Duration::from_secs(3);

/// All restoring tasks together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    tasks: usize,
    restored: u64,
    remaining: u64,
    rate_per_second: u64,
    /// That of the slowest.
    eta_seconds: Option<u64>,
}

impl Sum {
    /// Nothing where nothing is being restored.
    fn of(tasks: &BTreeMap<TaskId, TaskStatus>) -> Option<Self> {
        let mut sum = Self::default();
        for task in tasks.values().filter(|task| task.phase == Phase::Restoring && task.remaining > 0) {
            sum.tasks += 1;
            sum.restored += task.restored;
            sum.remaining += task.remaining;
            sum.rate_per_second += task.rate_per_second;
            sum.eta_seconds = sum.eta_seconds.max(task.eta_seconds);
        }
        (sum.tasks > 0).then_some(sum)
    }
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct RestoreView {
    bar: Option<ProgressBar>,
    line: Option<Duration>,
    /// What tasks that have come to their end had restored: the bar does not go back.
    highest: u64,
}

impl RestoreView {
    /// Shows them as they are now; called a few times a second.
    pub fn show(&mut self, tasks: &BTreeMap<TaskId, TaskStatus>) {
        let Some(sum) = Sum::of(tasks) else {
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            *self = Self::default();
            return;
        };
        self.highest = self.highest.max(sum.restored);
        let bar = self.bar.get_or_insert_with(bar);
        bar.set_length(self.highest + sum.remaining);
        bar.set_position(self.highest);
        bar.set_message(sum.tasks.to_string());
        if bar.is_hidden() && since(*self.line.get_or_insert_with(monotonic)) >= LINE {
            self.line = Some(monotonic());
            let Sum { tasks, restored, remaining, rate_per_second, eta_seconds } = sum;
            info!(tasks, restored, remaining, rate_per_second, eta_seconds, "restoring state");
        }
    }
}

fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("restoring {msg} partitions [{bar:40}] {human_pos}/{human_len}, {per_sec}, {eta} left")
            .expect("invariant: the template is valid")
            .progress_chars("=> ");
    ProgressBar::new(0).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(phase: Phase, restored: u64, remaining: u64, eta_seconds: Option<u64>) -> TaskStatus {
        TaskStatus {
            phase,
            worker: 0,
            inputs: Vec::new(),
            changelogs: Vec::new(),
            restored,
            remaining,
            rate_per_second: 10,
            eta_seconds,
            as_of_ms: 0,
            stream_time_ms: None,
            waits_for_tiers_since_ms: None,
        }
    }

    #[test]
    fn restoring_tasks_are_summed_and_the_slowest_says_when_it_ends() {
        let id = |partition| TaskId { sub: 0, partition };
        let tasks =
            [task(Phase::Restoring, 5, 20, Some(2)), task(Phase::Running, 900, 0, None), task(Phase::Restoring, 1, 90, Some(9))];
        let tasks: BTreeMap<TaskId, TaskStatus> = (0..).map(id).zip(tasks).collect();
        let expected = Sum { tasks: 2, restored: 6, remaining: 110, rate_per_second: 20, eta_seconds: Some(9) };
        assert_eq!(Sum::of(&tasks), Some(expected));
        let mut view = RestoreView::default();
        view.show(&tasks);
        let bar = view.bar.clone().expect("something is being restored");
        assert_eq!((bar.position(), bar.length()), (6, Some(116)));
        view.show(&BTreeMap::from([(id(0), task(Phase::Running, 25, 0, None))]));
        assert!(bar.is_finished() && view.bar.is_none());
    }
}
