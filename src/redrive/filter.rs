//! Which dead letters: by what went wrong and where the record came from.

use std::str::FromStr;

/// A half-open range, either end of which may be open: `100..200`, `100..`, `..200`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first number within.
    pub from: Option<u64>,
    /// The first number beyond.
    pub to: Option<u64>,
}

impl Span {
    fn holds(self, number: u64) -> bool {
        self.from.is_none_or(|from| number >= from) && self.to.is_none_or(|to| number < to)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected FROM..TO with whole numbers, such as 100..200, 100.. or ..200; TO is exclusive".to_owned();
        let (from, to) = text.split_once("..").ok_or_else(expected)?;
        let end = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| expected()) };
        Ok(Self { from: end(from)?, to: end(to)? })
    }
}

/// What a letter must be like; empty lists and open ends let everything through. All but the time speak of the record as it was in
/// its own topic, as the letter's headers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these causes (`__streams.errors.exception`).
    pub causes: Vec<String>,
    /// From one of these topics.
    pub topics: Vec<String>,
    /// From one of these partitions.
    pub partitions: Vec<u32>,
    /// At these offsets.
    pub offsets: Span,
    /// The record's own time, in milliseconds since the epoch: from here on.
    pub since_ms: Option<i64>,
    /// Before this time.
    pub until_ms: Option<i64>,
}

impl Filter {
    /// True where a letter of this origin is meant.
    #[must_use]
    pub fn takes(&self, cause: &str, topic: &str, partition: u32, offset: u64, timestamp_ms: i64) -> bool {
        let among = |list: &[String], text: &str| list.is_empty() || list.iter().any(|one| one == text);
        among(&self.causes, cause)
            && among(&self.topics, topic)
            && (self.partitions.is_empty() || self.partitions.contains(&partition))
            && self.offsets.holds(offset)
            && self.since_ms.is_none_or(|since| timestamp_ms >= since)
            && self.until_ms.is_none_or(|until| timestamp_ms < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_half_open() {
        let span: Span = "5..7".parse().expect("a span");
        assert_eq!([4, 5, 6, 7].map(|number| span.holds(number)), [false, true, true, false]);
        assert!("..".parse::<Span>().expect("all").holds(u64::MAX));
        assert_eq!("3..".parse(), Ok(Span { from: Some(3), to: None }));
        for wrong in ["", "3", "a..b", "-1..2", "1..2..3"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_condition_narrows() {
        let filter = Filter {
            causes: vec!["not_json".into(), "misplaced".into()],
            topics: vec!["t".into()],
            partitions: vec![1, 2],
            offsets: Span { from: Some(10), to: None },
            since_ms: Some(100),
            until_ms: Some(200),
        };
        assert!(filter.takes("misplaced", "t", 2, 10, 100));
        for (cause, topic, partition, offset, at) in [
            ("other", "t", 2, 10, 100),
            ("misplaced", "u", 2, 10, 100),
            ("misplaced", "t", 0, 10, 100),
            ("misplaced", "t", 2, 9, 100),
            ("misplaced", "t", 2, 10, 99),
            ("misplaced", "t", 2, 10, 200),
        ] {
            assert!(!filter.takes(cause, topic, partition, offset, at), "{cause} {topic} {partition} {offset} {at}");
        }
        assert!(Filter::default().takes("", "", 0, 0, i64::MIN));
    }
}
