//! How many requests a second a caller may make: a bucket of tokens each, which fills at the rate and holds a second's worth.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Buckets at once; full ones are forgotten first, for they are as good as new.
const BUCKETS_MAX: usize = 10_000;

/// Whose bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A token, by its name.
    Token(String),
    /// An address; of IPv6 the network, since one host may have all of its 2^64.
    Address([u8; 8]),
}

impl Key {
    pub(crate) fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                Self::Address([0, 0, 0, 0, a, b, c, d])
            }
            IpAddr::V6(address) => Self::Address(*address.octets().first_chunk().expect("invariant: 16 bytes begin with 8")),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at_us: u64,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Rates {
    per_second: f64,
    buckets: Mutex<BTreeMap<Key, Bucket>>,
}

impl Rates {
    /// So many requests a second each; 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// Takes one request's worth, or says after what time there will be one.
    pub(crate) fn take(&self, key: Key, now_us: u64) -> Result<(), Duration> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let (rate, full) = (self.per_second, self.per_second.max(1.0));
        let filled = |bucket: &Bucket| (bucket.left + now_us.saturating_sub(bucket.at_us) as f64 / 1e6 * rate).min(full);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| filled(bucket) < full);
            // So many callers at once, each in the middle of its second: the newest waits for the next.
            if buckets.len() >= BUCKETS_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { left: full, at_us: now_us });
        let left = filled(bucket);
        *bucket = Bucket { left: if left >= 1.0 { left - 1.0 } else { left }, at_us: now_us };
        if left >= 1.0 { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - left) / rate)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> Key {
        Key::Token(name.into())
    }

    #[test]
    fn a_second_holds_its_rate_and_no_more() {
        let rates = Rates::new(10);
        let taken = |now_us| (0..100).filter(|_| rates.take(token("a"), now_us).is_ok()).count();
        assert_eq!(taken(1_000_000), 10, "a second's worth at once");
        assert_eq!(taken(1_000_000), 0);
        assert_eq!(taken(1_500_000), 5);
        assert_eq!(taken(60_000_000), 10, "what was not used is not saved up");
        assert_eq!(rates.take(token("a"), 60_000_000), Err(Duration::from_millis(100)));
        assert!(rates.take(token("b"), 60_000_000).is_ok(), "others have their own");
    }

    #[test]
    fn no_limit_is_none() {
        let rates = Rates::new(0);
        assert!((0..1_000).all(|_| rates.take(token("a"), 0).is_ok()));
    }

    #[test]
    fn memory_is_bounded_and_who_waited_is_not_forgotten_for_it() {
        let rates = Rates::new(1);
        assert!(rates.take(token("greedy"), 0).is_ok());
        for n in 0..2 * BUCKETS_MAX {
            let _ = rates.take(token(&n.to_string()), 0);
        }
        assert!(rates.buckets.lock().expect("nobody panicked").len() <= BUCKETS_MAX);
        assert!(rates.take(token("greedy"), 0).is_err());
        assert!(rates.take(token("new"), 2_000_000).is_ok(), "a second later there is room");
    }

    #[test]
    fn a_host_of_ipv6_has_one_bucket() {
        let of = |text: &str| Key::of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
