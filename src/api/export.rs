//! A question's verdicts as CSV (RFC 4180), sent as they are read: what a person opens in a spreadsheet.
//!
//! Rows are read a thousand at a time, each going on behind the last: a reader that takes its time holds up nothing but itself, and
//! memory holds few pages. A file that a failure cut short says so in its last line, so that half of one is not taken for the whole.

use hyper::body::Bytes;
use hyper::header::{CONTENT_DISPOSITION, HeaderValue};
use models::Verdict;
use tokio::sync::mpsc;
use tracing::warn;

use super::call::Call;
use super::reply::Reply;
use crate::history::{self, LIMIT_MAX, Place, Question};
use crate::portrait::rfc3339;
use crate::tiers::{Cold, Unreachable};

/// Its type.
pub(crate) const CSV: &str = "text/csv; charset=utf-8";
/// Rows of one file: about what a spreadsheet takes.
const ROWS_MAX: usize = 1_000_000;
/// Pages on their way to the reader.
const AHEAD: usize = 2;

const HEAD: &[u8] = b"id,event_time,tx_id,user_id,merchant,amount,currency,score,severity,is_anomaly,model_id,explanation\r\n";
/// What ends a file that is not whole: no id begins like this.
const BROKEN: &str = "INCOMPLETE: the export broke off here; ask again\r\n";

/// An answer with everything that the question finds; an error where the tier gives not even the first page.
pub(super) async fn csv(call: &Call, cold: Cold, mut question: Question) -> Result<Reply, Unreachable> {
    // The first page before the answer begins: what fails now still has a status of its own.
    let first = history::verdicts(&cold, &question, LIMIT_MAX).await?;
    let name =
        format!("attachment; filename=\"verdicts-{}.csv\"", rfc3339(question.from_ms).unwrap_or_default().replace(':', ""));
    let (sender, body) = mpsc::channel(AHEAD);
    let request = call.request.clone();
    tokio::spawn(async move {
        let (mut page, mut rows) = (first, 0);
        let mut text = Vec::from(HEAD);
        loop {
            page.iter().for_each(|verdict| row(verdict, &mut text));
            rows += page.len();
            if sender.send(Bytes::from(std::mem::take(&mut text))).await.is_err() {
                return; // Nobody reads any more.
            }
            if page.len() < LIMIT_MAX || rows >= ROWS_MAX {
                return;
            }
            question.after = page.last().map(Place::of);
            page = match history::verdicts(&cold, &question, LIMIT_MAX).await {
                Ok(page) => page,
                Err(why) => {
                    warn!(request, %why, "an export broke off");
                    let _unheard = sender.send(Bytes::from_static(BROKEN.as_bytes())).await;
                    return;
                }
            };
        }
    });
    let reply = Reply::pieces(CSV, body);
    Ok(match HeaderValue::from_str(&name) {
        Ok(name) => reply.with(CONTENT_DISPOSITION, name),
        Err(_) => reply,
    })
}

fn row(verdict: &Verdict, into: &mut Vec<u8>) {
    let number = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
    let cells = [
        verdict.id.as_str(),
        &rfc3339(verdict.event_time).unwrap_or_default(),
        &verdict.tx_id,
        &verdict.user_id,
        &verdict.merchant,
        &number(Some(verdict.amount)),
        verdict.currency.as_deref().unwrap_or_default(),
        &number(verdict.score),
        verdict.severity.as_str(),
        if verdict.is_anomaly { "true" } else { "false" },
        verdict.model_id.as_deref().unwrap_or_default(),
        &verdict.explanation,
    ];
    for (at, text) in cells.into_iter().enumerate() {
        if at > 0 {
            into.push(b',');
        }
        cell(text, into);
    }
    into.extend_from_slice(b"\r\n");
}

/// One cell. What a spreadsheet would take for a formula gets an apostrophe in front, which it shows nothing of (OWASP, CSV injection).
fn cell(text: &str, into: &mut Vec<u8>) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']);
    let quoted = formula || text.contains([',', '"', '\r', '\n', ';', '\t']) || text.starts_with(' ') || text.ends_with(' ');
    if !quoted {
        into.extend_from_slice(text.as_bytes());
        return;
    }
    into.push(b'"');
    if formula {
        into.push(b'\'');
    }
    into.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    into.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> String {
        let mut cells = Vec::new();
        cell(text, &mut cells);
        String::from_utf8(cells).expect("text")
    }

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "\u{ff1d}1"] {
            assert!(written(text).starts_with("\"'"), "{text:?}: {}", written(text));
        }
        assert_eq!(written("bakery"), "bakery");
        assert_eq!(written("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    proptest! {
        #[test]
        fn a_reader_of_csv_gets_the_text_back(texts in prop::collection::vec("\\PC{0,12}|[=+@,\";\r\n\t -]{0,6}", 2..5)) {
            let line = texts.iter().map(|text| written(text)).collect::<Vec<_>>().join(",") + "\r\n";
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
            let record = reader.records().next().expect("a line").expect("well-formed");
            let read: Vec<String> = record.iter().map(|cell| cell.strip_prefix('\'').unwrap_or(cell).to_owned()).collect();
            let plain: Vec<String> = texts.iter().map(|text| text.strip_prefix('\'').unwrap_or(text).to_owned()).collect();
            prop_assert_eq!(read, plain);
        }
    }
}
