//! When a failed delivery is tried again: the schedule that Standard Webhooks recommends, with jitter.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, "Deliverability and reliability".

use sha2::{Digest as _, Sha256};

/// Milliseconds after each failed attempt; after the last the delivery is given up, three days after the first.
const AFTER_MS: [i64; 9] = [
    5_000,
    5 * 60_000,
    30 * 60_000,
    2 * 3_600_000,
    5 * 3_600_000,
    10 * 3_600_000,
    14 * 3_600_000,
    20 * 3_600_000,
    24 * 3_600_000,
];
/// The longest pause that a target may ask for.
pub const PAUSE_MAX_MS: i64 = 24 * 3_600_000;

/// Milliseconds to wait after so many failed attempts; none where the delivery is to be given up.
///
/// Up to a fifth later than the schedule has it, by the delivery's id and the attempt: what failed together does not come back together,
/// and the same delivery has the same times on any instance.
#[must_use]
pub fn wait_ms(id: &str, failed: u32) -> Option<i64> {
    let base = *AFTER_MS.get(failed.checked_sub(1)? as usize)?;
    let hash = Sha256::new().chain_update(id).chain_update(failed.to_le_bytes()).finalize();
    let share = i64::from(u16::from_le_bytes([hash[0], hash[1]]));
    Some(base + base / 5 * share / i64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_spread_and_end() {
        let waits: Vec<i64> = (1..).map_while(|failed| wait_ms("msg_1", failed)).collect();
        assert_eq!(waits.len(), 9);
        for (wait, base) in waits.iter().zip(AFTER_MS) {
            assert!((base..=base + base / 5).contains(wait), "{wait} for {base}");
        }
        let spread: std::collections::BTreeSet<_> = (0..100).filter_map(|id| wait_ms(&format!("msg_{id}"), 2)).collect();
        assert!(spread.len() > 90, "a hundred deliveries have {} different waits", spread.len());
        assert_eq!(wait_ms("msg_1", 0), None, "nothing has failed yet");
        assert_eq!(wait_ms("msg_1", 3), wait_ms("msg_1", 3));
    }
}
