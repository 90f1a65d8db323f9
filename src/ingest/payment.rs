//! A payment as a caller sends it, checked as the stream will check it, and made ready for the topic.

use std::borrow::Cow;

use hyper::body::Bytes;
use models::{InvalidTransaction, Transaction};
use sha2::{Digest, Sha256};
use topology::partitioner::partition_of;

use super::window::Fingerprint;
use crate::scoring::{ScoringParams, Unconvertible};

/// One payment on its way into the topic.
#[derive(Clone, Debug)]
pub struct Payment {
    /// The partition of the transactions topic that its user belongs to.
    pub partition: u32,
    /// The record's key.
    pub user_id: String,
    /// The sender's id of it.
    pub tx_id: Option<String>,
    /// The record's value: the bytes as they came.
    pub value: Bytes,
    /// The record's time, milliseconds since the epoch.
    pub time_ms: i64,
    /// What it is known again by; none where it has no `tx_id`.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// Why a payment is refused: the stream would make a dead letter of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// It is no payment.
    Invalid(InvalidTransaction),
    /// Its amount cannot be converted.
    Unconvertible(Unconvertible),
}

impl Payment {
    /// Reads a payment as the stream's processor will, with this moment as the record's time.
    ///
    /// # Errors
    /// What the processor would refuse.
    pub fn read(value: Bytes, now_ms: i64, params: &ScoringParams, partitions: u32) -> Result<Self, Refused> {
        let (user_id, tx_id) = {
            let payment = Transaction::from_json(&value, now_ms, &params.limits()).map_err(Refused::Invalid)?;
            params.convert(&payment).map_err(Refused::Unconvertible)?;
            (payment.user_id.into_owned(), payment.tx_id.map(Cow::into_owned))
        };
        let fingerprint = tx_id.as_deref().map(|tx_id| fingerprint(&user_id, tx_id));
        let partition = partition_of(user_id.as_bytes(), partitions);
        Ok(Self { partition, user_id, tx_id, value, time_ms: now_ms, fingerprint })
    }

    /// Memory that it takes while it waits.
    pub(super) fn bytes(&self) -> usize {
        self.value.len() + self.user_id.len() + self.tx_id.as_ref().map_or(0, String::len) + 256
    }
}

/// Stands for a user's transaction id. 128 bits of SHA-256: nobody can make a payment that passes for another one.
pub(super) fn fingerprint(user_id: &str, tx_id: &str) -> Fingerprint {
    let length = (user_id.len() as u32).to_le_bytes();
    let digest: [u8; 32] = Sha256::new().chain_update(length).chain_update(user_id).chain_update(tx_id).finalize().into();
    *digest.first_chunk().expect("invariant: 32 bytes begin with 16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_users_and_ids_apart() {
        assert_eq!(fingerprint("u", "t"), fingerprint("u", "t"));
        assert_ne!(fingerprint("ab", "c"), fingerprint("a", "bc"));
        assert_ne!(fingerprint("u", "t1"), fingerprint("u", "t2"));
    }

    #[test]
    fn what_the_stream_refuses_is_refused() {
        let read = |text: &'static str| Payment::read(Bytes::from_static(text.as_bytes()), 1_000, &ScoringParams::default(), 8);
        let payment = read(r#" {"user_id":"u","amount":1,"merchant":"m","tx_id":"t","other":[1]} "#).expect("a payment");
        assert_eq!(payment.partition, partition_of(b"u", 8));
        assert!(payment.fingerprint.is_some() && payment.time_ms == 1_000);
        assert!(matches!(read(r#"{"user_id":"u","amount":"1","merchant":"m"}"#), Err(Refused::Invalid(_))));
        assert!(matches!(read(r#"{"user_id":"u","amount":1,"merchant":"m","timestamp":9000000}"#), Err(Refused::Invalid(_))));
    }
}
