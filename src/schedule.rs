//! When something is due: cron expressions in UTC, and a thread that tells.

use std::time::Duration;

use crate::threads::spawn;
use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use tokio_cron_scheduler::{Job, JobScheduler};
use tracing::error;

/// How soon a stop is noticed.
const LOOK: Duration = Duration::from_millis(100);

/// Reads a cron expression of five fields, or six with seconds in front.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Cron, String> {
    CronParser::builder().seconds(Seconds::Optional).build().parse(text).map_err(|why| why.to_string())
}

/// The next time after this one, both in milliseconds since the epoch; none where there is none.
#[must_use]
pub fn next(cron: &Cron, after_ms: i64) -> Option<i64> {
    // Whole seconds: the parser would carry the rest over into its answer.
    let after: DateTime<Utc> = DateTime::from_timestamp(after_ms.div_euclid(1_000), 0)?;
    cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp_millis())
}

/// Calls `due` whenever the expression says so, on a thread of its own, until `stopped`.
///
/// # Panics
/// Where the system has no thread left at start.
pub fn start(expression: &str, due: impl Fn() + Send + Sync + 'static, stopped: impl Fn() -> bool + Send + 'static) {
    // The scheduler wants seconds.
    let fields = expression.split_ascii_whitespace().count();
    let expression = if fields == 5 { format!("0 {expression}") } else { expression.to_owned() };
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let told = runtime
            .map_err(|why| why.to_string())
            .and_then(|runtime| runtime.block_on(tick(&expression, due, &stopped)).map_err(|why| why.to_string()));
        if let Err(why) = told {
            error!(why, "the schedule does not run");
        }
    };
    spawn("schedule", run);
}

async fn tick(
    expression: &str,
    due: impl Fn() + Send + Sync + 'static,
    stopped: &impl Fn() -> bool,
) -> Result<(), tokio_cron_scheduler::JobSchedulerError> {
    let mut scheduler = JobScheduler::new().await?;
    scheduler.add(Job::new(expression, move |_, _| due())?).await?;
    scheduler.start().await?;
    while !stopped() {
        tokio::time::sleep(LOOK).await;
    }
    scheduler.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn the_next_time_is_the_crons_in_utc() {
        // 2024-01-01T00:00:00Z, a Monday.
        let monday = 1_704_067_200_000;
        let hour = 3_600_000;
        let at_three = parse("0 3 * * *").unwrap();
        assert_eq!(next(&at_three, monday), Some(monday + 3 * hour));
        assert_eq!(next(&at_three, monday + 3 * hour), Some(monday + 27 * hour), "after, not at");
        assert_eq!(next(&parse("*/10 * * * * *").unwrap(), monday + 1), Some(monday + 10_000));
        for wrong in ["", "61 * * * *", "a b c d e", "0 3 * *"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_tells_and_stops() {
        let (tell, told) = mpsc::sync_channel(8);
        let rest = Arc::new(AtomicU32::new(2));
        let left = Arc::clone(&rest);
        let due = move || {
            if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                tell.send(()).expect("the test waits");
            }
        };
        let stop = Arc::clone(&rest);
        start("* * * * * *", due, move || stop.load(Ordering::SeqCst) == 0);
        for _ in 0..2 {
            told.recv_timeout(Duration::from_secs(60)).expect("it is due every second");
        }
    }
}
