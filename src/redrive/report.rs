//! What was found and done, for people and scripts.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::fate::{Fate, Skip};
use crate::output::table;

/// Letters of one cause from one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "dead_letter_group")]
pub struct Group {
    /// What went wrong.
    pub cause: String,
    /// Where the records came from.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// How many.
    pub records: u64,
    /// Bytes of keys, values and headers.
    pub bytes: u64,
}

/// What was found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether anything was done; otherwise it was only counted.
    pub executed: bool,
    /// Letters read.
    pub letters: u64,
    /// Records that went back.
    pub redriven: u64,
    /// Of the letters to be redriven, those that were redriven before and failed again.
    pub again: u64,
    groups: BTreeMap<(String, String, u32), (u64, u64)>,
    skipped: BTreeMap<Skip, u64>,
}

impl Report {
    pub(super) fn new(executed: bool) -> Self {
        Self { executed, ..Self::default() }
    }

    pub(super) fn count(&mut self, fate: &Fate<'_>) {
        self.letters += 1;
        match fate {
            Fate::Skipped(why) => *self.skipped.entry(*why).or_default() += 1,
            Fate::Going(letter) => {
                self.again += u64::from(letter.redrives > 1);
                let group = (letter.cause.to_owned(), letter.topic.to_owned(), letter.partition);
                let (records, bytes) = self.groups.entry(group).or_default();
                *records += 1;
                *bytes += letter.bytes();
            }
        }
    }

    /// What is to be redriven, or was, by cause, topic and partition.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let group = |((cause, topic, partition), (records, bytes)): (&(String, String, u32), &(u64, u64))| Group {
            cause: cause.clone(),
            topic: topic.clone(),
            partition: *partition,
            records: *records,
            bytes: *bytes,
        };
        self.groups.iter().map(group).collect()
    }

    /// How many letters stay for this reason.
    #[must_use]
    pub fn skipped(&self, why: Skip) -> u64 {
        self.skipped.get(&why).copied().unwrap_or(0)
    }

    /// Letters to be redriven.
    #[must_use]
    pub fn matching(&self) -> u64 {
        self.groups.values().map(|(records, _)| records).sum()
    }

    /// Letters that are larger than their topic takes now.
    #[must_use]
    pub fn too_large(&self) -> u64 {
        if self.executed { self.matching() - self.redriven } else { 0 }
    }
}

/// As [`Report`] is written.
#[derive(JsonSchema)]
#[schemars(rename = "redrive_report")]
#[allow(dead_code, reason = "the shape of what Serialize writes")]
struct Written {
    executed: bool,
    letters: u64,
    matching: u64,
    redriven: u64,
    again: u64,
    too_large: u64,
    skipped: BTreeMap<String, u64>,
    groups: Vec<Group>,
}

impl JsonSchema for Report {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Written::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            executed: bool,
            letters: u64,
            matching: u64,
            redriven: u64,
            again: u64,
            too_large: u64,
            skipped: &'a BTreeMap<Skip, u64>,
            groups: Vec<Group>,
        }
        let Self { executed, letters, redriven, again, .. } = *self;
        let (matching, too_large, groups) = (self.matching(), self.too_large(), self.groups());
        Shape { executed, letters, matching, redriven, again, too_large, skipped: &self.skipped, groups }.serialize(serializer)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |group: Group| {
            let Group { cause, topic, partition, records, bytes } = group;
            [cause, topic, partition.to_string(), records.to_string(), bytes.to_string()]
        };
        let rows: Vec<_> = self.groups().into_iter().map(row).collect();
        writeln!(f, "{}", table(["CAUSE", "TOPIC", "PARTITION", "RECORDS", "BYTES"], &rows))?;
        writeln!(f)?;
        writeln!(f, "{} dead letters, {} to be redriven ({} of them failed again)", self.letters, self.matching(), self.again)?;
        let reasons = [
            (self.skipped(Skip::Already), "redriven before"),
            (self.skipped(Skip::Filtered), "left aside by the filters"),
            (self.skipped(Skip::Truncated), "cut to fit when they were put aside: not whole, never redriven"),
            (self.skipped(Skip::TooOften), "redriven as often as --max-redrives allows: mend them first"),
            (self.skipped(Skip::Foreign), "not from a topic that this application reads"),
            (self.too_large(), "larger than their topic takes now"),
        ];
        for (count, why) in reasons.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "{count} {why}")?;
        }
        if self.executed {
            write!(f, "{} redriven", self.redriven)
        } else {
            write!(f, "Nothing was written. To redrive: the same command with --execute")
        }
    }
}
