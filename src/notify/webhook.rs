//! Standard Webhooks: what is sent and how it is signed.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>. `webhook-id` is the delivery's id, the
//! same at each attempt; `webhook-timestamp` is the attempt's time in seconds; `webhook-signature` holds for each secret `v1,` and
//! the base64 of HMAC-SHA256 over `id.timestamp.body`, with blanks between.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use super::entry::Delivery;
use super::message::{Kind, Message};
use super::render::time;

/// The body.
#[derive(Serialize)]
struct Body<'b> {
    /// What happened.
    #[serde(rename = "type")]
    kind: &'static str,
    /// When the message was made, RFC 3339.
    timestamp: String,
    data: Data<'b>,
}

#[derive(Serialize)]
struct Data<'b> {
    /// Which target this is.
    target: &'b str,
    /// Where people find it.
    link: String,
    /// One line for people.
    title: String,
    #[serde(flatten)]
    message: &'b Message,
}

/// The body of a delivery: the same bytes at each attempt.
pub(super) fn body(delivery: &Delivery, link: String) -> Vec<u8> {
    let message = &delivery.message;
    let kind = match message.kind {
        Kind::Anomalies => "mangrove.anomalies",
        Kind::Flood => "mangrove.flood",
        Kind::Test => "mangrove.test",
    };
    let data = Data { target: &delivery.target, link, title: message.title(), message };
    super::entry::encode(&Body { kind, timestamp: time(delivery.made_ms), data })
}

/// The header `webhook-signature`.
pub(super) fn signatures(secrets: &[Vec<u8>], id: &str, timestamp_s: i64, body: &[u8]) -> String {
    let one = |secret: &Vec<u8>| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("invariant: HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str) -> Vec<u8> {
        STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64")
    }

    /// The vector of the specification's own libraries.
    #[test]
    fn the_published_vector_comes_out() {
        let body = br#"{"test": 2432232314}"#;
        let signed =
            signatures(&[key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_of_several_secrets_signs() {
        let (old, new) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let signed = signatures(&[key(new), key(old)], "msg_1", 1_649_367_553, b"{}");
        let theirs = |secret| {
            standardwebhooks::Webhook::new(secret).expect("a secret").sign("msg_1", 1_649_367_553, b"{}").expect("signed")
        };
        assert_eq!(signed, format!("{} {}", theirs(new), theirs(old)));
    }
}
