//! What goes in: payments with ids of their own, records that must become dead letters, and resets.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use topology::partitioner::partition_of;

use crate::common::records::{Raw, Writer, now_ms};
use crate::common::scene::{PARTITIONS, Scene};
use crate::watch::Watch;

/// Payments are of this many users.
pub const USERS: u32 = 2_000;
/// Records on their way, at most: what an outage may leave to catch up with.
const WINDOW: u64 = 30_000;
/// Between two looks at the clock.
const BEAT: Duration = Duration::from_millis(20);
/// 2024-01-01: event times are the load's own.
const FIRST_MS: u64 = 1_704_067_200_000;
/// Of so many records one is broken, or in a wrong partition.
const BROKEN: u32 = 100;
const MISPLACED: u32 = 200;
/// Of so many beats one brings a reset.
const RESET: u32 = 20;

/// A user's name.
pub fn user(number: u32) -> String {
    format!("user-{number}")
}

/// What was sent so far.
#[derive(Default)]
pub struct Sent {
    pub records: AtomicU64,
    pub commands: AtomicU64,
}

pub struct Load<'a> {
    scene: &'a Scene,
    writer: Writer,
    random: ChaCha8Rng,
    transactions: String,
    commands: String,
    sent: &'a Sent,
}

impl<'a> Load<'a> {
    pub fn new(scene: &'a Scene, seed: u64, sent: &'a Sent) -> Self {
        let (transactions, commands) = (scene.topic("transactions"), scene.topic("commands"));
        Self {
            scene,
            writer: Writer::new(&scene.address),
            random: ChaCha8Rng::seed_from_u64(!seed),
            transactions,
            commands,
            sent,
        }
    }

    /// Sends so many records a second until it is told to end, and never more than the window beyond what came out.
    pub fn run(mut self, rate: u32, resets: bool, watch: &Watch, ends: &AtomicBool) {
        let per_beat = (f64::from(rate) * BEAT.as_secs_f64()).max(1.0) as u64;
        let mut due = Instant::now();
        while !ends.load(Ordering::Relaxed) {
            if self.sent.records.load(Ordering::Relaxed) < watch.outcomes() + WINDOW {
                for _ in 0..per_beat {
                    self.record();
                }
                if resets && self.random.random_ratio(1, RESET) {
                    self.reset();
                }
            }
            self.writer.serve();
            due += BEAT;
            match due.checked_duration_since(Instant::now()) {
                Some(left) => std::thread::park_timeout(left),
                // A machine that does not keep up gets no burst afterwards.
                None => due = Instant::now(),
            }
        }
        self.writer.flush();
        let inputs: u64 = self.scene.ends(&self.transactions).iter().sum();
        assert_eq!(inputs, self.sent.records.load(Ordering::Relaxed), "the broker has each record once");
    }

    fn record(&mut self) {
        let number = self.sent.records.fetch_add(1, Ordering::Relaxed);
        let user = user(self.random.random_range(0..USERS));
        let amount = f64::from(self.random.random_range(100_u32..20_000)) / 100.0;
        let amount = if self.random.random_ratio(1, 200) { amount * 50.0 } else { amount };
        let merchant = self.random.random_range(0..90);
        let at = FIRST_MS + number * 1_000 + self.random.random_range(0..5_000_u64);
        let json = format!(
            r#"{{"user_id":"{user}","amount":{amount},"merchant":"shop-{merchant}","timestamp":{at},"tx_id":"tx-{number}"}}"#
        );
        let home = partition_of(user.as_bytes(), PARTITIONS);
        let (partition, value) = if self.random.random_ratio(1, BROKEN) {
            (home, self.broken(&json))
        } else if self.random.random_ratio(1, MISPLACED) {
            ((home + 1) % PARTITIONS, Some(json.into_bytes()))
        } else {
            (home, Some(json.into_bytes()))
        };
        self.write(false, &user, partition, value);
    }

    fn broken(&mut self, json: &str) -> Option<Vec<u8>> {
        let text = match self.random.next_u32() % 5 {
            0 => return None,
            1 => String::new(),
            2 => json[..json.len() / 2].to_owned(),
            3 => json.replace(r#""amount":"#, r#""amount":-1"#),
            _ => json.replace("user_id", "used_id"),
        };
        Some(text.into_bytes())
    }

    fn reset(&mut self) {
        self.sent.commands.fetch_add(1, Ordering::Relaxed);
        let user = user(self.random.random_range(0..USERS));
        let json = format!(r#"{{"kind":"reset","user_id":"{user}"}}"#);
        self.write(true, &user, partition_of(user.as_bytes(), PARTITIONS), Some(json.into_bytes()));
    }

    fn write(&self, command: bool, user: &str, partition: u32, value: Option<Vec<u8>>) {
        let raw = Raw { partition, key: Some(user.as_bytes().to_vec()), value, timestamp: Some(now_ms()), ..Raw::default() };
        self.writer.raw(if command { &self.commands } else { &self.transactions }, &raw);
    }
}
