//! The week: which hour a time falls in, and how people's payments spread over it.

pub(super) const HOUR_MS: f64 = 3_600_000.0;
pub(super) const HOURS_PER_DAY: usize = 24;
pub(super) const HOURS_PER_WEEK: usize = 7 * HOURS_PER_DAY;
/// The epoch was a Thursday; weeks begin on Monday.
const EPOCH_HOUR_OF_WEEK: f64 = 72.0;

/// How active people are so many hours from their favourite one. Beyond [`AWAKE_HOURS`] they sleep.
const ACTIVITY: [f64; 1 + AWAKE_HOURS] = [1.0, 0.95, 0.85, 0.7, 0.5, 0.3, 0.15, 0.05];
const AWAKE_HOURS: usize = 7;
/// How active they are on a day of the weekend, compared with a working day.
const WEEKEND: [f64; 3] = [0.5, 1.0, 1.8];

/// How many different rhythms there are.
pub(super) const RHYTHMS: usize = HOURS_PER_DAY * WEEKEND.len();

/// The hour of the week, Monday 00:00 UTC being 0.
pub(super) fn hour_of_week(time_ms: f64) -> usize {
    let hours = (time_ms / HOUR_MS).floor() + EPOCH_HOUR_OF_WEEK;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time is not before 1970")]
    let hours = hours as u64;
    usize::try_from(hours).expect("invariant: hours of centuries fit") % HOURS_PER_WEEK
}

/// Someone's weekly rhythm: a favourite hour of the day, and a way with weekends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm(pub usize);

impl Rhythm {
    pub(super) fn new(favourite_hour: usize, weekend: usize) -> Self {
        assert!(favourite_hour < HOURS_PER_DAY && weekend < WEEKEND.len(), "invariant: a rhythm of the table");
        Self(favourite_hour * WEEKEND.len() + weekend)
    }

    pub(super) const WEEKENDS: usize = WEEKEND.len();

    /// The same one, so many hours to the west.
    pub(super) fn elsewhere(self, hours: usize) -> Self {
        Self::new((self.favourite_hour() + hours) % HOURS_PER_DAY, self.0 % WEEKEND.len())
    }

    fn favourite_hour(self) -> usize {
        self.0 / WEEKEND.len()
    }

    /// The hour of the day farthest from the favourite one, when this user never pays.
    pub(super) fn quiet_hour(self) -> usize {
        (self.favourite_hour() + HOURS_PER_DAY / 2) % HOURS_PER_DAY
    }

    /// The activity in each hour of the week, 1 on average.
    pub(super) fn weights(self) -> [f64; HOURS_PER_WEEK] {
        let weekend = WEEKEND[self.0 % WEEKEND.len()];
        let mut weights = [0.0; HOURS_PER_WEEK];
        for (hour, weight) in weights.iter_mut().enumerate() {
            let apart = (hour % HOURS_PER_DAY).abs_diff(self.favourite_hour());
            let apart = apart.min(HOURS_PER_DAY - apart);
            let day = if hour / HOURS_PER_DAY >= 5 { weekend } else { 1.0 };
            *weight = ACTIVITY.get(apart).map_or(0.0, |activity| activity * day);
        }
        #[expect(clippy::cast_precision_loss, reason = "168")]
        let mean = weights.iter().sum::<f64>() / HOURS_PER_WEEK as f64;
        weights.map(|weight| weight / mean)
    }
}
