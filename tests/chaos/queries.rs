//! Profiles asked for all the time, of instances at random: an answer's position never goes back, and its profile is one that the user
//! had at that position or, being committed at that moment, soon after.
//!
//! One that wakes from a freeze is asked at once, and nobody else. Each question carries the furthest positions seen (`min_position`): where
//! instances honour that, none may ever go back. Where they do not yet, one that slept longer than its session may, until the group
//! has told it; such answers are counted.
//!
//! An instance may answer for its own partitions only; another answer than a profile, "no such user" or a refusal (503) is a fault.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::Value;

use crate::arena::{Addresses, SESSION};
use crate::common::scene::PARTITIONS;
use crate::load::{USERS, user};
use crate::schedule::INSTANCES;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(5);
/// A frozen instance does not answer.
const ANSWER: Duration = Duration::from_secs(1);

/// An answer about a user: `count` is none where there is no such user.
#[derive(Clone, Debug)]
pub struct Answered {
    pub user: u32,
    pub partition: u32,
    pub position: u64,
    pub count: Option<u64>,
    /// Milliseconds since the partition's last commit there.
    age_ms: u64,
}

pub struct Queries {
    addresses: Addresses,
    seed: u64,
    /// The only one to be asked, and without a pause; none above all instances.
    only: AtomicUsize,
    pub answered: Mutex<Vec<Answered>>,
    pub refused: AtomicU64,
    /// Nobody was there, or the answer broke off.
    pub unanswered: AtomicU64,
    /// Told from before they slept, by instances that do not honour `min_position`.
    pub slept: AtomicU64,
    /// What was wrong at once.
    pub faults: Mutex<Vec<String>>,
}

impl Queries {
    pub fn new(addresses: Addresses, seed: u64) -> Self {
        let [refused, unanswered, slept] = [const { AtomicU64::new(0) }; 3];
        let only = AtomicUsize::new(usize::MAX);
        Self { addresses, seed, only, answered: Mutex::default(), refused, unanswered, slept, faults: Mutex::default() }
    }

    /// From now on only this instance is asked; none ends that.
    pub fn ask_only(&self, instance: Option<usize>) {
        self.only.store(instance.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Asks until it is told to end.
    pub fn run(&self, ends: &AtomicBool) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x5157);
        let mut furthest = [0_u64; PARTITIONS as usize];
        let mut honoured = false;
        while !ends.load(Ordering::Relaxed) {
            let only = self.only.load(Ordering::Relaxed);
            if only >= INSTANCES {
                std::thread::park_timeout(PAUSE);
            }
            let (number, any) = (random.random_range(0..USERS), random.random_range(0..INSTANCES));
            let instance = if only < INSTANCES { only } else { any };
            let Some(address) = self.addresses.lock().unwrap()[instance].clone() else { continue };
            honoured = honoured || is_honoured(&address);
            let Some((status, body)) = ask(&address, &user(number), &furthest) else {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if status == 503 {
                self.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let Some(answered) = read(number, status, &body) else {
                self.faults.lock().unwrap().push(format!("instance {instance} answered {status}: {body}"));
                continue;
            };
            let furthest = &mut furthest[answered.partition as usize];
            if answered.position < *furthest && !honoured && answered.age_ms > SESSION.as_millis() as u64 {
                self.slept.fetch_add(1, Ordering::Relaxed);
            } else if answered.position < *furthest {
                let Answered { partition, position, .. } = answered;
                let went = format!("instance {instance}, partition {partition}: {position} after {furthest}, in {body}");
                self.faults.lock().unwrap().push(went);
            }
            *furthest = answered.position.max(*furthest);
            self.answered.lock().unwrap().push(answered);
        }
    }
}

fn read(user: u32, status: u16, body: &str) -> Option<Answered> {
    let body: Value = serde_json::from_str(body).ok()?;
    let partition = u32::try_from(body["position"]["partition"].as_u64()?).ok()?;
    let position = body["position"]["input_offset"].as_u64()?;
    let count = match status {
        200 => Some(body["count"].as_u64()?),
        404 => None,
        _ => return None,
    };
    Some(Answered { user, partition, position, count, age_ms: body["age_ms"].as_u64()? })
}

/// Whether a position that nobody has reached is refused by its name.
fn is_honoured(address: &str) -> bool {
    let never = [1 << 52; PARTITIONS as usize];
    ask(address, &user(0), &never).is_some_and(|(_, body)| body.contains("position-not-reached"))
}

fn ask(address: &str, user: &str, min: &[u64]) -> Option<(u16, String)> {
    let min: Vec<String> = min.iter().enumerate().map(|(partition, next)| format!("{partition}:{next}")).collect();
    let min = min.join(",");
    let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    write!(stream, "GET /v1/users/{user}/profile?min_position={min} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
