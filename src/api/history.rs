//! `GET /v1/verdicts`, `/v1/anomalies`, `/v1/users/{id}/verdicts` and `/v1/verdicts/{id}`: what was said of payments, out of the cold
//! tier, page by page or as one CSV.
//!
//! Time: event time, from `from` (inclusive) to `to` (exclusive), the last day unless said otherwise. The cursor holds both, so that
//! pages fit together however long the reader takes. An answer of Postgres is as new as its projection is: `GET /v1/health` says how far
//! that is behind.

use hyper::StatusCode;
use jiff::Timestamp;
use models::{Severity, Verdict};
use schemars::JsonSchema;
use serde::Serialize;
use tracing::error;

use super::call::{Answer, Call, Coming};
use super::committed;
use super::declare::{Declared, Parameter, Takes, USER, gives, gives_other, parameter};
use super::export;
use super::parameters;
use super::problem::{Kind, Problem};
use super::reply::Reply;
use crate::history::{self, LIMIT_MAX, Place, Question};
use crate::portrait::rfc3339;
use crate::tiers::{Cold, Unreachable};

const DAY_MS: i64 = 86_400_000;
const LIMIT_DEFAULT: usize = 100;
/// Payments may be dated ahead: the default window reaches as far.
const AHEAD_MS: i64 = DAY_MS;
const RETRY_S: u16 = 2;
const NAME_BYTES_MAX: usize = 256;

/// A page of verdicts, the latest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "page_of_verdicts")]
struct Page {
    /// The window of event time that was looked at.
    from: Option<String>,
    to: Option<String>,
    verdicts: Vec<Verdict>,
    /// Give it as `after` to go on; null at the end.
    next: Option<String>,
}

const TIME: Takes =
    Takes::Pattern(r"^([0-9]{1,14}|[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z)$");
const FROM: Parameter = parameter(
    "from",
    TIME,
    "Event time, RFC 3339 or milliseconds since the epoch; a day before `to`, or before now, unless given.",
);
const TO: Parameter =
    parameter("to", TIME, "Event time that ends the window, itself not in it; now, and what is dated ahead, unless given.");
const SEVERITY: Parameter = parameter(
    "severity",
    Takes::Pattern("^(NONE|LOW|MEDIUM|HIGH|CRITICAL)(,(NONE|LOW|MEDIUM|HIGH|CRITICAL)){0,4}$"),
    "One or more severities, with commas between.",
);
const OF_USER: Parameter = parameter("user_id", Takes::Text(NAME_BYTES_MAX), "Of this user.");
const MERCHANT: Parameter = parameter("merchant", Takes::Text(NAME_BYTES_MAX), "Of payments to this merchant.");
const MODEL: Parameter = parameter("model_id", Takes::Pattern("^[0-9a-f]{16}$"), "By this model.");
const AFTER: Parameter =
    parameter("after", Takes::Pattern("^([0-9a-f]{2}){25,400}$"), "`next` of the page before; absent, the list begins.");
const LIMIT: Parameter = parameter("limit", Takes::Number(1, LIMIT_MAX as i64), "Verdicts of one page; 100 unless given.");
const FORMAT: Parameter = parameter(
    "format",
    Takes::OneOf(&["json", "csv"]),
    "`csv` gives everything that the question finds, up to a million rows, as one file; so does `Accept: text/csv`.",
);

const ANSWERS: [super::declare::Given; 2] = [
    gives::<Page>(200, "A page; `next` leads to the next one."),
    gives_other(200, export::CSV, "All rows. Cells that a spreadsheet would take for a formula begin with an apostrophe."),
];
const PROBLEMS: [Kind; 3] = [Kind::NoColdTier, Kind::ColdTierUnavailable, Kind::InvalidUserId];

/// What the list of verdicts says of itself.
pub(crate) const VERDICTS: Declared = Declared::new("Verdicts", "Verdicts of a window of time, the latest first", &ANSWERS)
    .query(&[FROM, TO, SEVERITY, OF_USER, MERCHANT, MODEL, AFTER, LIMIT, FORMAT])
    .problems(&PROBLEMS);

/// What the list of anomalies says of itself.
pub(crate) const ANOMALIES: Declared = Declared::new("Verdicts", "Anomalies of a window of time, the latest first", &ANSWERS)
    .query(&[FROM, TO, SEVERITY, OF_USER, MERCHANT, MODEL, AFTER, LIMIT, FORMAT])
    .problems(&PROBLEMS);

/// What a user's verdicts say of themselves.
pub(crate) const OF_ONE: Declared = Declared::new("Users", "A user's verdicts of a window of time, the latest first", &ANSWERS)
    .about(USER)
    .query(&[FROM, TO, SEVERITY, MERCHANT, MODEL, AFTER, LIMIT, FORMAT])
    .problems(&PROBLEMS);

/// What one verdict says of itself.
pub(crate) const SHOW: Declared = Declared::new("Verdicts", "One verdict", &[gives::<Verdict>(200, "The verdict.")])
    .about(parameter("verdict_id", Takes::Text(300), "The verdict's id: `topic:partition:offset` of the payment's record."))
    .problems(&[Kind::NoSuchVerdict, Kind::NoColdTier, Kind::ColdTierUnavailable]);

/// Answers `GET /v1/verdicts`.
pub(crate) fn verdicts(call: Call) -> Coming {
    Box::pin(async move { list(&call, Question::default(), true).await })
}

/// Answers `GET /v1/anomalies`.
pub(crate) fn anomalies(call: Call) -> Coming {
    Box::pin(async move { list(&call, Question { anomalies: true, ..Question::default() }, true).await })
}

/// Answers `GET /v1/users/{id}/verdicts`.
pub(crate) fn of_user(call: Call) -> Coming {
    Box::pin(async move {
        let user = Some(committed::checked(call.name.clone())?);
        list(&call, Question { user, ..Question::default() }, false).await
    })
}

/// Answers `GET /v1/verdicts/{id}`.
pub(crate) fn show(call: Call) -> Coming {
    Box::pin(async move {
        let cold = cold(&call)?;
        let verdict = history::one(cold, &call.name).await.map_err(|why| unavailable(&call, &why))?;
        let unknown = || Problem::new(Kind::NoSuchVerdict, "no verdict of this id is in the cold tier");
        Ok(Reply::json(StatusCode::OK, &verdict.ok_or_else(unknown)?))
    })
}

async fn list(call: &Call, question: Question, any_user: bool) -> Answer {
    let asked = read(call, question, any_user)?;
    let cold = cold(call)?;
    if asked.csv {
        return export::csv(call, cold.clone(), asked.question).await.map_err(|why| unavailable(call, &why));
    }
    let Asked { question, limit, .. } = asked;
    // One more than the page holds: then there is a next one.
    let mut verdicts = history::verdicts(cold, &question, limit + 1).await.map_err(|why| unavailable(call, &why))?;
    let more = verdicts.len() > limit;
    verdicts.truncate(limit);
    let last = verdicts.last().filter(|_| more).map(Place::of);
    let next = last.map(|place| Cursor { from_ms: question.from_ms, to_ms: question.to_ms, place }.text());
    let page = Page { from: rfc3339(question.from_ms), to: rfc3339(question.to_ms), verdicts, next };
    Ok(Reply::json(StatusCode::OK, &page))
}

fn cold(call: &Call) -> Result<&Cold, Problem> {
    let none = || Problem::new(Kind::NoColdTier, "DATABASE_URL is not set");
    call.site.api.tiers.cold.as_ref().ok_or_else(none)
}

/// The tier gave no answer.
fn unavailable(call: &Call, why: &Unreachable) -> Problem {
    error!(request = call.request, %why, "the cold tier does not answer");
    Problem::new(Kind::ColdTierUnavailable, "Postgres did not answer, or not in time").retry_after(RETRY_S)
}

/// A question as it was asked.
#[derive(Debug)]
struct Asked {
    question: Question,
    limit: usize,
    csv: bool,
}

const KNOWN: [&str; 9] = ["from", "to", "severity", "merchant", "model_id", "after", "limit", "format", "user_id"];

fn read(call: &Call, mut question: Question, any_user: bool) -> Result<Asked, Problem> {
    let known = if any_user { &KNOWN[..] } else { &KNOWN[..8] };
    let (mut from, mut to, mut after) = (None, None, None);
    let (mut limit, mut csv) = (LIMIT_DEFAULT, call.wants_csv);
    let wrong = |name: &str, expected: &str| parameters::invalid(format!("`{name}`: expected {expected}"));
    for (name, value) in parameters::read(&call.query, known)? {
        let text = || (1..=NAME_BYTES_MAX).contains(&value.len()).then(|| value.clone().into_owned());
        match name {
            "from" | "to" => {
                let time = moment(&value).ok_or_else(|| wrong(name, "a time, RFC 3339 or milliseconds since the epoch"))?;
                *(if name == "from" { &mut from } else { &mut to }) = Some(time);
            }
            "severity" => {
                let severities: Option<Vec<Severity>> = value.split(',').map(severity).collect();
                question.severities =
                    severities.ok_or_else(|| wrong(name, "NONE, LOW, MEDIUM, HIGH or CRITICAL, with commas between several"))?;
            }
            "user_id" => question.user = Some(text().ok_or_else(|| wrong(name, "1 to 256 bytes"))?),
            "merchant" => question.merchant = Some(text().ok_or_else(|| wrong(name, "1 to 256 bytes"))?),
            "model_id" => question.model = Some(text().ok_or_else(|| wrong(name, "a model's id"))?),
            "after" => after = Some(Cursor::read(&value).ok_or_else(|| wrong(name, "`next` of a page"))?),
            "limit" => {
                let number = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                limit = number.ok_or_else(|| wrong(name, &format!("1 to {LIMIT_MAX}")))?;
            }
            _ => {
                csv = match &*value {
                    "csv" => true,
                    "json" => false,
                    _ => return Err(wrong(name, "json or csv")),
                }
            }
        }
    }
    let now_ms = call.site.api.clock.now_ms();
    (question.from_ms, question.to_ms) = window(from, to, after.as_ref(), now_ms);
    if question.from_ms >= question.to_ms {
        return Err(parameters::invalid("`from` must lie before `to`"));
    }
    question.after = after.map(|cursor| cursor.place);
    Ok(Asked { question, limit, csv })
}

/// The window: as given, else as the page before had it, else the last day.
fn window(from: Option<i64>, to: Option<i64>, after: Option<&Cursor>, now_ms: i64) -> (i64, i64) {
    let end = to.or(after.map(|cursor| cursor.to_ms));
    let begin = from.or(after.map(|cursor| cursor.from_ms));
    (begin.unwrap_or_else(|| end.unwrap_or(now_ms).min(now_ms) - DAY_MS), end.unwrap_or(now_ms + AHEAD_MS))
}

fn severity(name: &str) -> Option<Severity> {
    let all = [Severity::None, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    all.into_iter().find(|severity| severity.as_str() == name)
}

/// RFC 3339, or digits: milliseconds since the epoch.
fn moment(text: &str) -> Option<i64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|ms| Timestamp::from_millisecond(*ms).is_ok());
    }
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// Where a page ended, and its window. Hex only so that nobody takes it for anything.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    from_ms: i64,
    to_ms: i64,
    place: Place,
}

impl Cursor {
    fn text(&self) -> String {
        let numbers = [self.from_ms, self.to_ms, self.place.event_time_ms];
        let bytes = numbers.iter().flat_map(|number| number.to_be_bytes()).chain(self.place.id.bytes());
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    fn read(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> = text.bytes().map(|c| char::from(c).to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let (from, rest) = bytes.split_first_chunk()?;
        let (to, rest) = rest.split_first_chunk()?;
        let (at, id) = rest.split_first_chunk()?;
        let id = String::from_utf8(id.to_vec()).ok().filter(|id| !id.is_empty())?;
        let [from_ms, to_ms, event_time_ms] = [from, to, at].map(|bytes| i64::from_be_bytes(*bytes));
        Some(Self { from_ms, to_ms, place: Place { event_time_ms, id } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_are_read_back(numbers in any::<[i64; 3]>(), id in "\\PC{1,40}") {
            let [from_ms, to_ms, event_time_ms] = numbers;
            let cursor = Cursor { from_ms, to_ms, place: Place { event_time_ms, id } };
            prop_assert_eq!(Cursor::read(&cursor.text()), Some(cursor));
        }

        #[test]
        fn other_texts_are_none(text in "\\PC{0,9}|[0-9a-f]{0,49}|([0-9a-f]{2}){0,24}") {
            prop_assert_eq!(Cursor::read(&text), None);
        }
    }

    #[test]
    fn the_window_is_a_day_unless_said_otherwise() {
        let now = 100 * DAY_MS;
        assert_eq!(window(None, None, None, now), (99 * DAY_MS, 101 * DAY_MS));
        assert_eq!(window(None, Some(50 * DAY_MS), None, now), (49 * DAY_MS, 50 * DAY_MS));
        assert_eq!(window(Some(7), None, None, now), (7, 101 * DAY_MS));
        let cursor = Cursor { from_ms: 5, to_ms: 9, place: Place { event_time_ms: 6, id: "x".into() } };
        assert_eq!(window(None, None, Some(&cursor), now), (5, 9), "pages fit together");
    }

    #[test]
    fn times_are_rfc_3339_or_milliseconds() {
        assert_eq!(moment("1700000000000"), Some(1_700_000_000_000));
        assert_eq!(moment("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        assert_eq!(moment("2023-11-14T23:13:20.5+01:00"), Some(1_700_000_000_500));
        for none in ["", "-1", "+1", "yesterday", "2023-11-14", "99999999999999999999", "9999999999999999"] {
            assert_eq!(moment(none), None, "{none}");
        }
    }
}
