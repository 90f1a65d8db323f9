//! Who the users are: their habits, the merchants, and how active everyone is in each hour of the week.

use std::sync::Arc;

use rand_chacha::rand_core::Rng;

use super::accounts::{Account, Accounts};
use super::anomaly::{Anomaly, Part};
use super::params::GeneratorParams;
use super::sample::{Weighted, below, between, normal, unit};
use super::week::{HOUR_MS, HOURS_PER_DAY, HOURS_PER_WEEK, RHYTHMS, Rhythm};

const FAVOURITES_MIN: u32 = 3;
const FAVOURITES_MAX: usize = 6;
/// How often a user goes somewhere new for no bad reason.
const CURIOSITY: f64 = 0.03;
/// Activity falls with the rank as 1 / (rank + offset)^exponent: few pay often, and nobody pays for everyone.
const USER_RANK_OFFSET: f64 = 20.0;
const USER_EXPONENT: f64 = 0.7;
const MERCHANT_RANK_OFFSET: f64 = 5.0;
const MERCHANT_EXPONENT: f64 = 0.9;
/// The logarithm of 24: what half of all users spend less than, half of the time.
const TYPICAL_LOG_AMOUNT: f64 = 3.178_053_830_347_946;
const CENTS: f64 = 100.0;
const AMOUNT_MAX: f64 = 1_000_000.0;
/// People looked at for customers of one merchant: enough for a popular one among any number of users.
const LOOKS_FOR_CUSTOMERS: u32 = 2_000;
const CATEGORIES: [&str; 16] = [
    "grocery",
    "bakery",
    "cafe",
    "fuel",
    "pharmacy",
    "restaurant",
    "books",
    "cinema",
    "clothes",
    "electronics",
    "hotel",
    "garden",
    "sports",
    "taxi",
    "toys",
    "tickets",
];

/// What one user always does.
struct User {
    name: Arc<str>,
    /// How many accounts were in this place before.
    account: u32,
    rhythm: Rhythm,
    /// The mean and deviation of the logarithm of their amounts.
    log_amount: f32,
    log_deviation: f32,
    favourites_count: u8,
    /// The merchants they know, the dearest first, and how much more than usual they spend there (a logarithm).
    favourites: [(u32, f32); FAVOURITES_MAX],
}

/// Everyone.
pub(super) struct Population {
    users: Box<[User]>,
    merchants: Box<[Arc<str>]>,
    merchant_by_popularity: Weighted,
    rhythms: Vec<RhythmUsers>,
    /// For each hour of the week, the rate of everyone together and the share of each rhythm, summed up.
    hours: Box<[Hour; HOURS_PER_WEEK]>,
    /// None where accounts live for ever.
    accounts: Option<Accounts>,
}

/// The users of one rhythm.
struct RhythmUsers {
    members: Vec<u32>,
    by_activity: Weighted,
}

struct Hour {
    rate_per_ms: f64,
    /// Ascending; the last is the sum of all.
    rhythm_ends: Vec<f64>,
}

impl Population {
    pub(super) fn new(params: &GeneratorParams, rng: &mut impl Rng) -> Self {
        let merchant_by_popularity = Weighted::new(&falling(params.merchants, MERCHANT_RANK_OFFSET, MERCHANT_EXPONENT));
        let merchants: Box<[Arc<str>]> = (0..params.merchants).map(merchant_name).collect();
        let users: Box<[User]> = (0..params.users)
            .map(|number| {
                let mut user = User::new(number, &merchant_by_popularity, rng);
                if params.worldwide {
                    user.rhythm = user.rhythm.elsewhere(below(rng, HOURS_PER_DAY as u32) as usize);
                }
                user
            })
            .collect();
        let (offset, exponent) = params.skew.map_or((USER_RANK_OFFSET, USER_EXPONENT), |skew| (1.0, skew));
        let activity = falling(params.users, offset, exponent);
        let mean_activity = activity.iter().sum::<f64>() / f64::from(params.users);
        let mut members: Vec<(Vec<u32>, Vec<f64>)> = vec![Default::default(); RHYTHMS];
        for ((number, user), weight) in (0..).zip(&users).zip(&activity) {
            let (numbers, weights) = &mut members[user.rhythm.0];
            numbers.push(number);
            weights.push(weight / mean_activity);
        }
        let mut rhythms = Vec::new();
        let mut hours = Box::new(std::array::from_fn(|_| Hour { rate_per_ms: 0.0, rhythm_ends: Vec::new() }));
        let per_user_ms = params.payments_per_user_day / (24.0 * HOUR_MS);
        for (rhythm, (numbers, weights)) in members.into_iter().enumerate() {
            if numbers.is_empty() {
                continue;
            }
            let rate = weights.iter().sum::<f64>() * per_user_ms;
            for (hour, in_hour) in hours.iter_mut().zip(Rhythm(rhythm).weights()) {
                hour.rate_per_ms += rate * in_hour;
                hour.rhythm_ends.push(hour.rate_per_ms);
            }
            rhythms.push(RhythmUsers { by_activity: Weighted::new(&weights), members: numbers });
        }
        let accounts = params.account_days.map(|days| Accounts::new(params.seed, days));
        Self { users, merchants, merchant_by_popularity, rhythms, hours, accounts }
    }

    /// True where the user's account is used at this time: one that is young or about to close is used less.
    pub(super) fn is_active(&mut self, user: u32, time_ms: f64, rng: &mut impl Rng) -> bool {
        let activity = self.renew(user, time_ms);
        activity >= 1.0 || unit(rng) < activity
    }

    /// An account that has ended makes room for the one of this time; how much that is used.
    pub(super) fn renew(&mut self, user: u32, time_ms: f64) -> f64 {
        let Some(accounts) = &self.accounts else { return 1.0 };
        let Account { number, activity } = accounts.at(user, time_ms);
        let present = &mut self.users[user as usize];
        if present.account != number {
            let rhythm = present.rhythm;
            *present = User::new(user, &self.merchant_by_popularity, &mut accounts.habits(user, number));
            // The place keeps its rhythm, by which it is drawn.
            (present.rhythm, present.account, present.name) = (rhythm, number, Arc::from(format!("user-{user:06}.{number}")));
        }
        activity
    }

    /// A merchant that the user does not know.
    pub(super) fn stranger_to(&self, user: u32, rng: &mut impl Rng) -> u32 {
        self.unknown_merchant(&self.users[user as usize], rng)
    }

    /// The user and up to so many others who go where the user goes most.
    pub(super) fn customers_beside(&mut self, user: u32, wanted: u32, now_ms: f64, rng: &mut impl Rng) -> Vec<u32> {
        let breached = self.users[user as usize].known()[0].0;
        let everyone = u32::try_from(self.users.len()).expect("invariant: users are counted in u32");
        let mut customers = vec![user];
        for _ in 0..LOOKS_FOR_CUSTOMERS {
            let other = below(rng, everyone);
            self.renew(other, now_ms);
            let knows = self.users[other as usize].known().iter().any(|(known, _)| *known == breached);
            if knows && !customers.contains(&other) {
                customers.push(other);
            }
            if customers.len() >= wanted as usize {
                break;
            }
        }
        customers
    }

    /// How many payments a millisecond everyone together makes in this hour of the week.
    pub(super) fn rate_per_ms(&self, hour_of_week: usize) -> f64 {
        self.hours[hour_of_week].rate_per_ms
    }

    /// Someone who is up at this hour, by how often they pay.
    pub(super) fn pick_user(&self, hour_of_week: usize, rng: &mut impl Rng) -> u32 {
        let hour = &self.hours[hour_of_week];
        let at = unit(rng) * hour.rate_per_ms;
        // A rhythm that sleeps ends where the one before it ends, so nothing lies below its end and not below that.
        let rhythm = hour.rhythm_ends.partition_point(|end| *end <= at).min(self.rhythms.len() - 1);
        let rhythm = &self.rhythms[rhythm];
        rhythm.members[rhythm.by_activity.draw(rng) as usize]
    }

    /// An hour of the day at which this user never pays.
    pub(super) fn quiet_hour(&self, user: u32) -> i64 {
        i64::try_from(self.users[user as usize].rhythm.quiet_hour()).expect("invariant: a day has 24 hours")
    }

    /// Where the user goes and what they pay.
    pub(super) fn purchase(&self, user: u32, label: Option<Anomaly>, part: Part, rng: &mut impl Rng) -> (u32, f64) {
        let user = &self.users[user as usize];
        if let Part::Test(merchant) = part {
            return (merchant, libm::round(between(rng, 0.5, 2.5) * CENTS) / CENTS);
        }
        let somewhere_new = match label {
            Some(Anomaly::AmountSpike | Anomaly::OddHour) => false,
            Some(_) => true,
            None => unit(rng) < CURIOSITY,
        };
        let (merchant, log_factor) = if somewhere_new { (self.unknown_merchant(user, rng), 0.0) } else { user.favourite(rng) };
        // A spike stands on the user's typical amount, so that 10 to 50 times means what it says.
        let spread = if label == Some(Anomaly::AmountSpike) { 0.0 } else { normal(rng) };
        let log_amount = f64::from(user.log_amount) + f64::from(log_factor) + spread * f64::from(user.log_deviation);
        let factor = match label {
            Some(Anomaly::AmountSpike) => between(rng, 10.0, 50.0),
            Some(Anomaly::AccountTakeover) => between(rng, 1.5, 6.0),
            Some(Anomaly::NewMerchant) => between(rng, 3.0, 8.0),
            Some(Anomaly::CardTest) => between(rng, 8.0, 25.0),
            Some(Anomaly::MerchantCompromise) => between(rng, 2.0, 8.0),
            Some(Anomaly::OddHour) | None => 1.0,
        };
        let amount = (libm::exp(log_amount) * factor).clamp(1.0 / CENTS, AMOUNT_MAX);
        (merchant, libm::round(amount * CENTS) / CENTS)
    }

    /// A merchant that is not among the user's favourites; there are more merchants than favourites.
    fn unknown_merchant(&self, user: &User, rng: &mut impl Rng) -> u32 {
        loop {
            let merchant = self.merchant_by_popularity.draw(rng);
            if !user.known().iter().any(|(known, _)| *known == merchant) {
                return merchant;
            }
        }
    }

    pub(super) fn user_name(&self, user: u32) -> Arc<str> {
        Arc::clone(&self.users[user as usize].name)
    }

    pub(super) fn merchant_name(&self, merchant: u32) -> Arc<str> {
        Arc::clone(&self.merchants[merchant as usize])
    }
}

impl User {
    fn new(number: u32, merchants: &Weighted, rng: &mut impl Rng) -> Self {
        // Favourite hours lie around the early afternoon, few at its ends.
        let favourite_hour = (9 + below(rng, 6) + below(rng, 7)) as usize % HOURS_PER_DAY;
        let weekend = below(rng, u32::try_from(Rhythm::WEEKENDS).expect("invariant: a few")) as usize;
        let mut user = Self {
            name: Arc::from(format!("user-{number:06}")),
            account: 0,
            rhythm: Rhythm::new(favourite_hour, weekend),
            log_amount: narrow(TYPICAL_LOG_AMOUNT + 0.6 * normal(rng)),
            log_deviation: narrow(between(rng, 0.25, 0.6)),
            favourites_count: 0,
            favourites: [(0, 0.0); FAVOURITES_MAX],
        };
        let wanted = FAVOURITES_MIN as usize + below(rng, FAVOURITES_MAX as u32 - FAVOURITES_MIN + 1) as usize;
        while user.known().len() < wanted {
            let merchant = merchants.draw(rng);
            if !user.known().iter().any(|(known, _)| *known == merchant) {
                user.favourites[user.known().len()] = (merchant, narrow(0.4 * normal(rng)));
                user.favourites_count += 1;
            }
        }
        user
    }

    fn known(&self) -> &[(u32, f32)] {
        &self.favourites[..usize::from(self.favourites_count)]
    }

    /// One of the merchants they know: half of the time the first, and so on.
    fn favourite(&self, rng: &mut impl Rng) -> (u32, f32) {
        let halvings = rng.next_u32().leading_zeros() as usize;
        self.known()[halvings % self.known().len()]
    }
}

/// A habit's size: half of a double is enough for it, and halves the memory.
fn narrow(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
    let narrow = value as f32;
    narrow
}

/// Weights that fall with the rank.
fn falling(count: u32, offset: f64, exponent: f64) -> Vec<f64> {
    (0..count).map(|rank| libm::pow(f64::from(rank) + offset, -exponent)).collect()
}

fn merchant_name(number: u32) -> Arc<str> {
    Arc::from(format!("{}-{number:04}", CATEGORIES[number as usize % CATEGORIES.len()]))
}
