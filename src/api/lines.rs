//! Payments as lines (`application/x-ndjson`): read as they come, answered line by line in their order while more are read.
//!
//! Bounded: one chunk is what one read of the connection brought, [`ON_THEIR_WAY`] chunks wait for the broker, and a caller that does not
//! read its answers is not read from. So read while you write: a client that sends everything first may wait for itself. A line that is
//! wrong gets its problem under its number, and the others go on; blank lines are passed over, and counted.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::call::{Answer, Call};
use super::intake::{self, Done, Pending};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::trail::{self, About};

/// Bytes of a line: those of a payment's record.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Chunks that wait for the broker.
const ON_THEIR_WAY: usize = 16;
/// For the next part of the body: somebody who sends payments as they happen may have none for a while.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// Answers that wait to be taken.
const UNTAKEN: usize = 16;
/// For room among the payments that wait for the broker.
const ROOM_MAX: Duration = Duration::from_secs(5);

/// Lines on their way, with their numbers.
type Chunk = (Vec<u64>, Pending);

/// Begins to answer. The trail gets a record now, and one with the count of payments taken before the answer ends.
pub(super) async fn stream(call: Call, body: Incoming) -> Answer {
    trail::write(&call, About { status: 200, ..About::default() }).await?;
    let (answer, answered) = mpsc::channel(UNTAKEN);
    let (begun, under_way) = mpsc::channel(ON_THEIR_WAY);
    tokio::spawn(tell(call.clone(), under_way, answer));
    tokio::spawn(take(call, body, begun));
    Ok(Reply::pieces("application/x-ndjson", answered))
}

/// Reads to the end, or to where nobody listens any more.
async fn take(call: Call, mut body: Incoming, begun: mpsc::Sender<Chunk>) {
    let mut lines = Lines::default();
    loop {
        let mut found = Vec::new();
        let frame = timeout(QUIET_MAX, body.frame()).await;
        let more = match frame {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    lines.feed(&data, &mut found);
                }
                true
            }
            Ok(None) => {
                lines.finish(&mut found);
                false
            }
            Ok(Some(Err(_))) => {
                found.push((lines.number + 1, Err(Problem::new(Kind::BrokenBody, "the body broke off here"))));
                false
            }
            Err(_) => {
                let detail = format!("nothing came for {} s", QUIET_MAX.as_secs());
                found.push((lines.number + 1, Err(Problem::new(Kind::RequestTimeout, detail))));
                false
            }
        };
        if !found.is_empty() {
            let (numbers, read) = found.into_iter().map(|(n, line)| (n, line.and_then(|line| intake::read(&call, line)))).unzip();
            let pending = intake::begin(&call, read, ROOM_MAX).await;
            if begun.send((numbers, pending)).await.is_err() {
                return;
            }
        }
        if !more {
            return;
        }
    }
}

/// Tells what became of each, in their order.
async fn tell(call: Call, mut under_way: mpsc::Receiver<Chunk>, answer: mpsc::Sender<Bytes>) {
    let mut taken = 0;
    let mut text = Vec::new();
    while let Some((numbers, pending)) = under_way.recv().await {
        let done: Vec<Done> = pending.finish(&call).await;
        text.reserve(done.len() * 96);
        taken += done.iter().filter(|done| done.is_written()).count();
        for (number, done) in numbers.into_iter().zip(&done) {
            write_line(number, done, &mut text);
        }
        if answer.send(std::mem::take(&mut text).into()).await.is_err() {
            break;
        }
    }
    // A problem here is logged; the lines have been answered.
    let _logged = trail::write(&call, About { status: 200, user: None, payments: Some(taken) }).await;
}

/// The line of an answer in lines.
fn write_line(line: u64, done: &Done, into: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Numbered<'d> {
        line: u64,
        #[serde(flatten)]
        done: &'d Done,
    }
    let numbered = Numbered { line, done };
    serde_json::to_writer(&mut *into, &numbered).expect("invariant: our own shapes have text keys and plain values");
    into.push(b'\n');
}

/// Cuts what comes into lines.
#[derive(Debug, Default)]
struct Lines {
    /// The lines that ended so far.
    number: u64,
    /// A line's beginning.
    begun: Vec<u8>,
    /// The line that has begun is too long: what is left of it is passed over.
    too_long: bool,
}

type Line = (u64, Result<Bytes, Problem>);

impl Lines {
    fn feed(&mut self, data: &Bytes, found: &mut Vec<Line>) {
        let mut from = 0;
        while let Some(length) = data[from..].iter().position(|&byte| byte == b'\n') {
            let end = from + length;
            if self.begun.is_empty() && !self.too_long && length <= LINE_BYTES_MAX {
                self.number += 1;
                self.push(data.slice(from..end), found);
            } else {
                self.extend(&data[from..end]);
                self.end(found);
            }
            from = end + 1;
        }
        self.extend(&data[from..]);
    }

    /// The last line may lack its end.
    fn finish(&mut self, found: &mut Vec<Line>) {
        if self.too_long || !self.begun.is_empty() {
            self.end(found);
        }
    }

    fn extend(&mut self, part: &[u8]) {
        if self.too_long || self.begun.len() + part.len() > LINE_BYTES_MAX {
            self.too_long = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn end(&mut self, found: &mut Vec<Line>) {
        self.number += 1;
        let line = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.too_long) {
            let detail = format!("the line has more than {LINE_BYTES_MAX} bytes");
            found.push((self.number, Err(Problem::new(Kind::BodyTooLarge, detail))));
        } else {
            self.push(line.into(), found);
        }
    }

    fn push(&self, line: Bytes, found: &mut Vec<Line>) {
        let text = line.trim_ascii();
        if !text.is_empty() {
            found.push((self.number, Ok(line.slice_ref(text))));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(parts: &[&[u8]]) -> Vec<(u64, Option<Vec<u8>>)> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for part in parts {
            lines.feed(&Bytes::copy_from_slice(part), &mut found);
        }
        lines.finish(&mut found);
        found.into_iter().map(|(n, line)| (n, line.ok().map(|line| line.to_vec()))).collect()
    }

    #[test]
    fn blank_lines_are_counted_and_a_long_one_is_refused_alone() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(cut(&[b"a\n\n b \r\nc"]), [(1, text("a")), (3, text("b")), (4, text("c"))]);
        let long = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(cut(&[&long, b"y\nz\n"]), [(1, None), (2, text("z"))]);
        assert_eq!(cut(&[b"a\n", &long, b"y"]), [(1, text("a")), (2, None)]);
        assert_eq!(cut(&[]), []);
    }

    proptest! {
        /// However the bytes arrive, the lines are the same.
        #[test]
        fn cuts_do_not_depend_on_the_parts(bytes in prop::collection::vec(prop::sample::select(b"ab \n\r".to_vec()), 0..200), at in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let mut at: Vec<usize> = at.iter().map(|at| at.index(bytes.len() + 1)).collect();
            at.sort_unstable();
            let (mut parts, mut from) = (Vec::new(), 0);
            for to in at.into_iter().chain([bytes.len()]) {
                parts.push(&bytes[from..to]);
                from = to;
            }
            prop_assert_eq!(cut(&parts), cut(&[&bytes]));
        }
    }
}
