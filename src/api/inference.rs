//! `POST /v1/inference`: what the stream would say of a payment if it came now. Nothing is stored.
//!
//! The body is `{user_id, transaction: {amount, merchant, tx_id?, currency?, timestamp?}}`; without a timestamp the payment is
//! made now. The answer is a verdict as on the wire, always with its reasons, and with `position`, `source` and `age_ms` of the
//! committed profile that it was judged by (a user without one has an empty profile, as in the stream). Its `id` is
//! `inference:{request id}`: a stream's verdict has `topic:partition:offset`, so the two can't be taken for each other.
//!
//! The payment is read by [`Transaction::from_json`], scored by the same functions over the same state as in the stream, so equal
//! profiles give equal scores to the last bit.

use std::sync::Arc;

use hyper::StatusCode;
use models::verdict::{self, Fx, Severity, VerdictRef};
use models::{Cause, InvalidTransaction, Limits, Model, Profile, Transaction, explain};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::anywhere::Handler;
use super::call::{Answer, Call};
use super::committed::Committed;
use super::declare::{Declared, gives, json};
use super::document::Payment;
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::standing::Standing;
use crate::scoring::{ScoringParams, Unconvertible};

/// What is wrong with a currency without a rate.
pub(crate) const NO_RATE: &str = "currency: is not in the table of rates";
/// What is wrong with an amount that a rate makes too large.
pub(crate) const OUT_OF_RANGE_CONVERTED: &str = "amount: is out of range once it is converted; expected 0 to 1e12";

/// The body, its parts unread.
#[derive(Deserialize)]
struct Envelope<'b> {
    #[serde(borrow, default)]
    user_id: Option<&'b RawValue>,
    #[serde(borrow, default)]
    transaction: Option<&'b RawValue>,
}

/// The body as it is documented; [`Envelope`] is the one that is read.
#[derive(JsonSchema)]
#[schemars(rename = "inference")]
#[allow(dead_code, reason = "the reader takes the parts apart by itself")]
struct Asked {
    /// Who pays.
    #[schemars(length(min = 1, max = 256))]
    user_id: String,
    transaction: Payment,
}

/// The answer as it is documented; `join` writes it.
#[derive(JsonSchema)]
#[schemars(rename = "inferred")]
#[allow(dead_code, reason = "written as bytes")]
struct Inferred {
    #[schemars(flatten)]
    verdict: models::Verdict,
    #[schemars(flatten)]
    standing: Standing,
}

/// What the route says of itself.
pub(crate) const INFERENCE: Declared = Declared::new(
    "Payments",
    "What the stream would say of a payment if it came now; nothing is stored",
    &[gives::<Inferred>(200, "The verdict, with its reasons, and the state that it was judged by.")],
)
.details("Any instance answers for any user. Without a timestamp the payment is made now.")
.body(&[json::<Asked>()]);

/// The route. A request is checked in full before it is passed on.
pub(crate) const HANDLER: Handler = Handler { user, answer: infer };

fn user(call: &Call) -> Result<String, Problem> {
    with_payment(call, |payment, _| Ok(payment.user_id.clone().into_owned()))
}

fn infer(call: &Call, committed: Committed) -> Answer {
    let api = &call.site.api;
    with_payment(call, |payment, fx| {
        let profile = committed.profile.unwrap_or_default();
        let id = format!("inference:{}", call.request);
        let verdict = judge(&api.params, api.model.get(), &profile.0, payment, fx, &id);
        Ok(Reply::new(StatusCode::OK, "application/json", join(verdict, &committed.standing)))
    })
}

/// Reads the body's payment, and converts its amount.
fn with_payment<T>(call: &Call, then: impl FnOnce(&Transaction<'_>, Option<&Fx>) -> Result<T, Problem>) -> Result<T, Problem> {
    let api = &call.site.api;
    let text = flatten(&call.body)?;
    let limits = Limits { max_future_ms: api.params.max_future_ms, ..Limits::default() };
    let payment = Transaction::from_json(text.as_bytes(), api.clock.now_ms(), &limits).map_err(|why| refused(&why))?;
    let fx = convert(&api.params, &payment)?;
    then(&payment, fx.as_ref())
}

/// The payment as the stream has it: the transaction's fields with the user's id among them, so that one reader serves both.
fn flatten(body: &[u8]) -> Result<String, Problem> {
    let not_json = |detail| Problem::new(Kind::NotJson, detail);
    let text = std::str::from_utf8(body).map_err(|_| not_json("the body is not UTF-8"))?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|_| not_json("the body is not one well-formed JSON value"))?;
    if !whole.get().starts_with('{') {
        return Err(Problem::invalid("", "a JSON object with user_id and transaction is expected"));
    }
    let envelope: Envelope<'_> = serde_json::from_str(whole.get())
        .map_err(|_| Problem::invalid("", "user_id and transaction are expected once each, under well-formed names"))?;
    let user_id = envelope
        .user_id
        .ok_or_else(|| Problem::invalid("/user_id", "user_id: is missing; expected a string of 1 to 256 bytes"))?;
    let transaction = envelope.transaction.map(RawValue::get);
    let fields = transaction.and_then(|text| text.strip_prefix('{')).ok_or_else(|| {
        Problem::invalid(
            "/transaction",
            "transaction: expected an object with amount, merchant and optionally tx_id, currency, timestamp",
        )
    })?;
    let comma = if fields.trim_start().starts_with('}') { "" } else { "," };
    Ok(format!("{{\"user_id\":{user_id}{comma}{fields}"))
}

/// What the reader refused, in terms of this route's body. The reader's words hold no part of the value.
fn refused(why: &InvalidTransaction) -> Problem {
    let pointer = match (why.field, why.cause) {
        // The only second user_id there can be is one within the transaction.
        (Some("user_id"), Cause::Duplicate) => "/transaction/user_id",
        (Some("user_id"), _) => "/user_id",
        (Some("amount"), _) => "/transaction/amount",
        (Some("merchant"), _) => "/transaction/merchant",
        (Some("tx_id"), _) => "/transaction/tx_id",
        (Some("currency"), _) => "/transaction/currency",
        (Some("timestamp"), _) => "/transaction/timestamp",
        _ => "/transaction",
    };
    match why.cause {
        // Offsets would be those of the flattened text.
        Cause::NotJson | Cause::NotUtf8 => {
            Problem::invalid(pointer, "a string or number here, or after it, is not well-formed JSON")
        }
        Cause::FarFuture => Problem::invalid(pointer, "timestamp: is later than now by more than is allowed (MAX_FUTURE_MS)"),
        _ => Problem::invalid(pointer, why.to_string()),
    }
}

fn convert(params: &ScoringParams, payment: &Transaction<'_>) -> Result<Option<Fx>, Problem> {
    params.convert(payment).map_err(|why| match why {
        Unconvertible::Currency => Problem::invalid("/transaction/currency", NO_RATE),
        Unconvertible::Amount => Problem::invalid("/transaction/amount", OUT_OF_RANGE_CONVERTED),
    })
}

/// The verdict's JSON. The same steps as in the stream's processor, with reasons whatever the score.
fn judge(
    params: &ScoringParams,
    model: Option<Arc<Model>>,
    profile: &Profile,
    payment: &Transaction<'_>,
    fx: Option<&Fx>,
    id: &str,
) -> Vec<u8> {
    let model = model.as_deref();
    let amount = fx.map_or(payment.amount, |fx| fx.amount);
    let bound = params.global_amount_p99.or_else(|| model.map(|model| model.global_amount_p99));
    let observation = profile.observe(amount, payment.event_time, &payment.merchant, bound);
    let raw_score = model.map(|model| model.raw_score(&observation.features));
    let score = model.zip(raw_score).map(|(model, raw)| model.score(raw));
    let reasons = model.map_or_else(Vec::new, |model| explain::explain(model, &observation, amount));
    let mut text = Vec::with_capacity(1024);
    VerdictRef {
        tx_id: payment.tx_id.as_deref().unwrap_or(id),
        id,
        user_id: &payment.user_id,
        event_time: payment.event_time,
        amount: payment.amount,
        currency: payment.currency.as_deref(),
        merchant: &payment.merchant,
        score,
        raw_score,
        is_anomaly: score.is_some_and(|score| score >= params.threshold),
        severity: score.map_or(Severity::None, |score| verdict::severity(score, params.threshold)),
        explanation: &explain::explanation(&reasons),
        reasons: &reasons,
        features: &observation.features,
        model_id: model.map(|model| model.id.as_str()),
        fx,
    }
    .write_json(&mut text);
    text
}

/// The verdict's object with the standing's fields at its end.
fn join(mut verdict: Vec<u8>, standing: &Standing) -> Vec<u8> {
    let standing = serde_json::to_vec(standing).expect("invariant: our own shapes have text keys and plain values");
    let closed = verdict.pop();
    debug_assert_eq!(closed, Some(b'}'));
    verdict.push(b',');
    verdict.extend_from_slice(&standing[1..]);
    verdict
}
