//! I3: each payment has one verdict or one dead letter; and where the whole history is retained, the logged features are those that the
//! payments give again (I6).

use std::collections::{BTreeMap, VecDeque};

use models::Verdict;
use models::features::GLOBAL_AMOUNT_FLAG;
use topology::broker::Broker;
use topology::record::{Outgoing, TopicId, TopicPartition};

use super::compared::Compared;
use super::cursor::Cursor;
use super::difference::Difference;
use super::find::{DEAD, id_of, text};
use super::script::Script;
use super::{Audit, AuditError, Place, Result};
use crate::scoring::Partitioning;

const BETWEEN: &str = "verdicts and transactions";

/// What the replay says of one payment.
enum Said {
    Verdict(Box<Verdict>),
    Dead { offset: u64, cause: String },
}

/// See the module's header.
pub(super) struct Outcomes<'a, B: Broker> {
    audit: &'a Audit<B>,
    partition: u32,
    script: &'a Script,
    verdicts: Option<Cursor<B::Reader>>,
    /// Verdicts before this payment are not retained, or their payments are not.
    from: u64,
    until: u64,
    whole: bool,
    said: VecDeque<Said>,
    /// Logged dead letters of these payments: by offset, how many, and where.
    dead: BTreeMap<u64, (u64, Place)>,
    dead_trimmed: bool,
    result: Compared,
    first: Option<Difference>,
    fault: Option<AuditError>,
}

impl<'a, B: Broker> Outcomes<'a, B> {
    pub(super) fn new(audit: &'a Audit<B>, partition: u32, script: &'a Script, start: u64, until: u64) -> Result<Self> {
        let mut outcomes = Self {
            audit,
            partition,
            script,
            verdicts: None,
            from: start,
            until,
            whole: start <= script.begins,
            said: VecDeque::new(),
            dead: BTreeMap::new(),
            dead_trimmed: false,
            result: Compared::default(),
            first: None,
            fault: None,
        };
        if audit.params.partitioning == Partitioning::Any {
            outcomes.result = Compared::not("not compared under INPUT_PARTITIONING=any: ids name records of other partitions");
        } else if audit.partitions_of(audit.verdicts()) != audit.partitions() {
            outcomes.result = Compared::not("not compared: the verdicts have another number of partitions than the payments");
        } else if script.begins > 0 || !audit.exactly_once {
            outcomes.result =
                Compared::not("not compared: payments may rightly have several verdicts (at-least-once, or begun anew)");
        } else {
            outcomes.open()?;
        }
        Ok(outcomes)
    }

    fn open(&mut self) -> Result<()> {
        let at = TopicPartition { topic: self.audit.verdicts(), partition: self.partition };
        let bounds = self.audit.bounds(at)?;
        let mut cursor = Cursor::open(self.audit.broker.reader()?, at, bounds.start, bounds.end)?;
        // Verdicts whose payments are no longer retained, and payments whose verdicts are not.
        while let Some(record) = cursor.peek()? {
            let offset = self.payment_of(record.value.unwrap_or_default());
            if bounds.start > 0 && offset.is_some_and(|offset| offset > self.from) {
                self.from = offset.unwrap_or(self.from);
            }
            if offset.is_none_or(|offset| offset >= self.from) {
                break;
            }
            cursor.step();
        }
        self.verdicts = Some(cursor);
        self.read_dead_letters()
    }

    fn read_dead_letters(&mut self) -> Result<()> {
        let topic = self.audit.dead_letters();
        let at = TopicPartition { topic, partition: self.partition % self.audit.partitions_of(topic) };
        let bounds = self.audit.bounds(at)?;
        self.dead_trimmed = bounds.start > 0;
        let lead = self.audit.name(self.audit.sub().lead());
        let cursor = Cursor::open(self.audit.broker.reader()?, at, bounds.start, bounds.end)?;
        cursor.each(&mut |batch| {
            for record in batch.iter() {
                let [topic, partition, offset, ..] = DEAD.map(|name| text(&record, name));
                if topic == Some(lead) && partition.and_then(|text| text.parse().ok()) == Some(self.partition) {
                    let Some(offset) = offset.and_then(|text| text.parse().ok()) else { continue };
                    let place = self.audit.place(at, record.offset);
                    self.dead.entry(offset).or_insert((0, place)).0 += 1;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The payment that a verdict's id names, where it is one of this partition.
    fn payment_of(&self, verdict: &[u8]) -> Option<u64> {
        let id: Place = id_of(verdict)?.parse().ok()?;
        let lead = self.audit.lead(self.partition);
        (id.topic == self.audit.name(lead.topic) && id.partition == lead.partition).then_some(id.offset)
    }

    /// Hears what the replay emits.
    pub(super) fn emitted(&mut self, record: &Outgoing<'_>) {
        if self.verdicts.is_none() {
            return;
        }
        let is = |topic: TopicId| record.to.topic == topic;
        if is(self.audit.verdicts()) {
            match serde_json::from_slice(record.value.unwrap_or_default()) {
                Ok(verdict) => self.said.push_back(Said::Verdict(Box::new(verdict))),
                Err(why) => self.fault = Some(AuditError(format!("a verdict cannot be read back: {why}"))),
            }
        } else if is(self.audit.dead_letters()) {
            let header = |name: &str| {
                let found = record.headers.iter().rfind(|header| header.name == name);
                found.and_then(|header| header.value).and_then(|value| std::str::from_utf8(value).ok())
            };
            if header(DEAD[0]) == Some(self.audit.name(self.audit.sub().lead())) {
                let offset = header(DEAD[2]).and_then(|text| text.parse().ok()).unwrap_or_default();
                self.said.push_back(Said::Dead { offset, cause: header(DEAD[3]).unwrap_or_default().to_owned() });
            }
        }
    }

    /// Compares what was emitted since the last call with what is logged.
    pub(super) fn settle(&mut self) -> Result<()> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        // Dead letters of a batch come before its verdicts.
        let mut said: Vec<(u64, Said)> = Vec::with_capacity(self.said.len());
        for one in self.said.drain(..).collect::<Vec<_>>() {
            let offset = match &one {
                Said::Verdict(verdict) => verdict.id.parse::<Place>().map_or(0, |place| place.offset),
                Said::Dead { offset, .. } => *offset,
            };
            said.push((offset, one));
        }
        said.sort_by_key(|(offset, _)| *offset);
        for (offset, said) in said {
            if offset < self.from {
                continue;
            }
            self.result.compared += 1;
            self.before(offset)?;
            match said {
                Said::Verdict(verdict) => self.verdict(offset, &verdict)?,
                Said::Dead { cause, .. } => self.dead(offset, &cause)?,
            }
        }
        Ok(())
    }

    /// Verdicts that no payment asked for, below an offset.
    fn before(&mut self, offset: u64) -> Result<()> {
        while let Some((found, place)) = self.logged()? {
            if found.is_some_and(|found| found >= offset) {
                break;
            }
            let named = found.map_or("another id".to_owned(), |found| format!("of payment {found}"));
            self.differ("verdict", format!("one more {named}"), "no payment that it belongs to".into(), vec![place]);
            self.step();
        }
        Ok(())
    }

    fn verdict(&mut self, offset: u64, again: &Verdict) -> Result<()> {
        let payment = self.audit.place(self.audit.lead(self.partition), offset);
        let dead = self.dead.remove(&offset);
        match self.logged()? {
            Some((Some(found), place)) if found == offset => {
                let verdict = self.logged_verdict()?;
                self.step();
                if let Some((_, letter)) = dead {
                    self.differ("outcome", "a verdict and a dead letter".into(), "one payment".into(), vec![place, letter]);
                } else if let Some(verdict) = verdict {
                    self.content(&verdict, again, place, payment);
                }
            }
            _ => match dead {
                Some((_, letter)) => {
                    self.differ(
                        "outcome",
                        "a dead letter".into(),
                        "can be scored under these settings".into(),
                        vec![letter, payment],
                    );
                }
                None => self.differ("verdict", "none, and no dead letter".into(), "a payment".into(), vec![payment]),
            },
        }
        // The same id again.
        while let Some((Some(found), place)) = self.logged()? {
            if found != offset {
                break;
            }
            let payment = self.audit.place(self.audit.lead(self.partition), offset);
            self.differ("verdict", "one more of the same payment".into(), "one payment".into(), vec![place, payment]);
            self.step();
        }
        Ok(())
    }

    fn content(&mut self, logged: &Verdict, again: &Verdict, place: Place, payment: Place) {
        let model = self.script.model_at(payment.offset);
        if let Some(ruling) = model
            && logged.model_id.is_some()
            && ruling.decision.subject != logged.model_id
        {
            let decided = ruling.decision.subject.clone().unwrap_or_else(|| "none".into());
            let at = vec![place, self.audit.place(self.audit.decisions(self.partition), ruling.offset)];
            let scored = logged.model_id.clone().unwrap_or_default();
            return self.differ("model", scored, format!("{decided} was decided last"), at);
        }
        if model.is_none() && logged.model_id.is_some() && self.script.start == 0 {
            let scored = logged.model_id.clone().unwrap_or_default();
            return self.differ("model", scored, "no decision about a model".into(), vec![place]);
        }
        if !self.whole {
            return;
        }
        for at in 0..GLOBAL_AMOUNT_FLAG {
            if logged.features[at].to_bits() != again.features[at].to_bits() {
                let name = models::FEATURE_NAMES[at];
                let (left, right) = (logged.features[at].to_string(), again.features[at].to_string());
                return self.differ(&format!("feature {name}"), left, right, vec![place, payment]);
            }
        }
    }

    fn dead(&mut self, offset: u64, cause: &str) -> Result<()> {
        let payment = self.audit.place(self.audit.lead(self.partition), offset);
        let letter = self.dead.remove(&offset);
        match self.logged()? {
            Some((Some(found), place)) if found == offset => {
                self.step();
                let at = vec![place, payment];
                self.differ("outcome", "a verdict".into(), format!("cannot be scored under these settings ({cause})"), at);
            }
            _ => match letter {
                None if self.dead_trimmed => {}
                None => self.differ("dead letter", "none, and no verdict".into(), format!("a payment ({cause})"), vec![payment]),
                Some((1, _)) => {}
                Some((count, place)) => self.differ("dead letter", format!("{count} of them"), "one payment".into(), vec![place]),
            },
        }
        Ok(())
    }

    /// The logged verdict at hand: its payment and its place.
    fn logged(&mut self) -> Result<Option<(Option<u64>, Place)>> {
        let Some(mut cursor) = self.verdicts.take() else { return Ok(None) };
        let at = TopicPartition { topic: self.audit.verdicts(), partition: self.partition };
        let found =
            cursor.peek()?.map(|record| (self.payment_of(record.value.unwrap_or_default()), self.audit.place(at, record.offset)));
        self.verdicts = Some(cursor);
        Ok(found)
    }

    /// The logged verdict at hand itself; none where it cannot be read.
    fn logged_verdict(&mut self) -> Result<Option<Verdict>> {
        let Some(cursor) = &mut self.verdicts else { return Ok(None) };
        Ok(cursor.peek()?.and_then(|record| serde_json::from_slice(record.value.unwrap_or_default()).ok()))
    }

    fn step(&mut self) {
        if let Some(cursor) = &mut self.verdicts {
            cursor.step();
        }
    }

    fn differ(&mut self, field: &str, left: String, right: String, at: Vec<Place>) {
        self.result.differ += 1;
        let (partition, field) = (self.partition, field.to_owned());
        self.first.get_or_insert(Difference { between: BETWEEN, partition, user: None, field, left, right, at });
    }

    /// What is logged below the end and was not asked for.
    pub(super) fn finish(mut self) -> Result<(Compared, Self)> {
        self.settle()?;
        if self.verdicts.is_some() {
            self.before(self.until)?;
        }
        let extra = self.dead.range(self.from..self.until).next().map(|(offset, (_, place))| (*offset, place.clone()));
        if let Some((offset, place)) = extra {
            let text = format!("of offset {offset}, where no payment is");
            self.differ("dead letter", text, "no record".into(), vec![place]);
        }
        Ok((self.result.clone(), self))
    }

    pub(super) fn difference(self) -> Option<Difference> {
        self.first
    }
}
