//! The one place where the real clock is read.
//!
//! The engine and the models take time as an argument, so that a replay meets the time that the record met; clippy bans
//! the clock everywhere else. Who needs time is handed a [`Clock`] or calls here.

use std::time::Duration;

use topology::clock::Clock;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealClock;

impl Clock for RealClock {
    fn now_ms(&self) -> i64 {
        now_ms()
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(monotonic().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Milliseconds since the Unix epoch by the machine's clock, negative before it.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn now_ms() -> i64 {
    let milliseconds = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => milliseconds(since),
        Err(before) => -milliseconds(before.duration()),
    }
}

/// Time since the first call in this process; never goes back.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
pub fn monotonic() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

/// Time since an earlier answer of [`monotonic`].
pub fn since(earlier: Duration) -> Duration {
    monotonic().saturating_sub(earlier)
}

/// CPU time of this process so far, user and system, all threads.
pub fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.max(0).unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_in_this_century_and_the_other_never_goes_back() {
        let year_2020_ms = 1_577_836_800_000;
        assert!(now_ms() > year_2020_ms);
        let first = monotonic();
        assert!(monotonic() >= first);
    }
}
