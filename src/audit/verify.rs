//! I4: profile = fold of its changelog = fold of payments and decisions; and what is on disk is the changelog at its position.

use std::collections::BTreeMap;

use serde::Serialize;
use state::backend::Backend;
use topology::broker::Broker;

use super::compared::Compared;
use super::cursor::Cursor;
use super::difference::{Difference, Naming, first_field};
use super::fold::{Fold, Kept};
use super::outcomes::Outcomes;
use super::player::{Player, decoded, included};
use super::script::Script;
use super::{Audit, Result, Told};

const BETWEEN: &str = "changelog and transactions";

/// Users by what came of comparing the changelog with payments and decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Users {
    /// The very same bytes.
    pub same: u64,
    /// Another value, or none.
    pub differ: u64,
    /// Their profile began before the first payment or command that is retained: only how far it goes was compared.
    pub began_before: u64,
}

/// What was found in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// The partition.
    pub partition: u32,
    /// The first payment still retained, and the end of what was compared.
    pub payments: (u64, u64),
    /// The changelog that was folded.
    pub changelog: (u64, u64),
    /// Decisions read.
    pub decisions: u64,
    /// Changelog beside payments and decisions.
    pub users: Users,
    /// Verdicts and dead letters beside payments.
    pub outcomes: Compared,
    /// The store on disk beside the changelog, in users.
    pub store: Compared,
    /// The first difference of each kind.
    pub differences: Vec<Difference>,
}

impl PartitionReport {
    /// True where nothing differs.
    #[must_use]
    pub fn same(&self) -> bool {
        self.differences.is_empty()
    }
}

/// A profile's two sides, and what was found of them.
pub(super) enum Finding {
    Same,
    BeganBefore,
    Differ(Option<Difference>),
}

impl<B: Broker> Audit<B> {
    /// Compares one partition of everything; `store` is the state folder's, where there is one that nobody uses.
    ///
    /// # Errors
    /// What cannot be read. Differences are no errors.
    pub fn verify(
        &self,
        partition: u32,
        store: std::result::Result<&dyn Backend, &str>,
        naming: &Naming,
        told: &mut Told<'_>,
    ) -> Result<PartitionReport> {
        // The store first: while it is locked nobody moves it, and what the changelog gets later does no harm.
        let stand = store.ok().map(|backend| self.stand(partition, backend)).transpose()?.flatten();
        let fold = self.fold(partition, stand, told)?;
        let script = self.script(partition)?;
        let lead = self.lead(partition);
        let bounds = self.bounds(lead)?;
        let mut report = PartitionReport {
            partition,
            payments: (bounds.start, fold.sure.max(bounds.start)),
            changelog: (fold.start, fold.end),
            decisions: script.count,
            ..PartitionReport::default()
        };
        if fold.furthest > bounds.end {
            report.differences.push(Difference {
                between: BETWEEN,
                partition,
                user: None,
                field: "end".into(),
                left: format!("values include payments below offset {}", fold.furthest),
                right: format!("the topic ends at {}: it lost data or was re-created", bounds.end),
                at: vec![self.place(lead, bounds.end)],
            });
            return Ok(report);
        }
        let mut outcomes = Outcomes::new(self, partition, &script, bounds.start, fold.sure)?;
        let mut player = Player::new(self, partition, &script)?;
        let span = fold.sure.saturating_sub(bounds.start);
        let mut cursor = Cursor::open(self.broker.reader()?, lead, bounds.start, fold.sure)?;
        while cursor.fill()? {
            let (fetched, order) = cursor.batch();
            player.lead(fetched, order, &mut |record| outcomes.emitted(record))?;
            outcomes.settle()?;
            told("transactions", player.position().saturating_sub(bounds.start), span);
            cursor.pass();
        }
        player.rule(fold.sure.saturating_sub(1), &mut |_| {})?;
        player.settle()?;
        self.compare_users(&fold, &script, &mut player, bounds.start, naming, &mut report)?;
        (report.outcomes, outcomes) = outcomes.finish()?;
        report.differences.extend(outcomes.difference());
        report.store = match (store, stand) {
            (Err(why), _) => Compared::not(why),
            (Ok(_), None) => Compared::not("the state folder has no store of this partition"),
            (Ok(backend), Some(stand)) => {
                self.compare_store(partition, backend, stand, &fold, naming, &mut report.differences)?
            }
        };
        Ok(report)
    }

    fn compare_users(
        &self,
        fold: &Fold,
        script: &Script,
        player: &mut Player<'_>,
        start: u64,
        naming: &Naming,
        report: &mut PartitionReport,
    ) -> Result<()> {
        let mut open: BTreeMap<Box<[u8]>, Option<Vec<u8>>> = BTreeMap::new();
        player.scan(&mut |key, value| {
            let kept = fold.users.get(key).and_then(|kept| kept.value.as_deref());
            if kept == Some(value) {
                report.users.same += 1;
            } else {
                open.insert(key.into(), Some(value.to_vec()));
            }
        })?;
        for (key, _) in fold.users.iter().filter(|(_, kept)| kept.value.is_some()) {
            if player.value(key)?.is_none() {
                open.insert(key.clone(), None);
            }
        }
        report.users.same += self.follow(fold, player, &mut open, report.partition)?;
        let mut first = None;
        for (key, replayed) in open {
            let kept = fold.users.get(&key);
            match self.judge(report.partition, &key, kept, replayed.as_deref(), script, start, naming)? {
                Finding::Same => report.users.same += 1,
                Finding::BeganBefore => report.users.began_before += 1,
                Finding::Differ(difference) => {
                    report.users.differ += 1;
                    first = first.or(difference);
                }
            }
        }
        report.differences.extend(first);
        Ok(())
    }

    /// What the changelog's end has beyond [`Fold::sure`]: goes on record by record for the users that still differ, and takes away those
    /// that come to be the same. Of the others it leaves the value that includes as many payments. Returns how many were taken away.
    fn follow(
        &self,
        fold: &Fold,
        player: &mut Player<'_>,
        open: &mut BTreeMap<Box<[u8]>, Option<Vec<u8>>>,
        partition: u32,
    ) -> Result<u64> {
        let mut same = 0;
        let mut look = |player: &mut Player<'_>, key: &[u8], open: &mut BTreeMap<Box<[u8]>, Option<Vec<u8>>>| -> Result<()> {
            let Some(best) = open.get_mut(key) else { return Ok(()) };
            player.settle()?;
            let value = player.value(key)?;
            let kept = fold.users.get(key);
            if value.as_deref() == kept.and_then(|kept| kept.value.as_deref()) {
                same += u64::from(value.is_some());
                open.remove(key);
            } else if value.as_deref().map(included) == kept.map(|kept| kept.marks.0[0]) {
                *best = value;
            }
            Ok(())
        };
        let limits = self.params.limits();
        let mut cursor = Cursor::open(self.broker.reader()?, self.lead(partition), fold.sure, fold.furthest)?;
        while !open.is_empty() && cursor.fill()? {
            let (fetched, order) = cursor.batch();
            for &at in order {
                let record = fetched.get(at as usize);
                while player.next_after().is_some_and(|after| after <= record.offset) {
                    let mut key = None;
                    player.rule_one(&mut |decided| key = key.take().or_else(|| decided.key.map(<[u8]>::to_vec)))?;
                    if let Some(key) = key {
                        look(player, &key, open)?;
                    }
                }
                let payment =
                    record.value.and_then(|value| models::Transaction::from_json(value, record.timestamp, &limits).ok());
                let Some(payment) = payment.filter(|payment| open.contains_key(payment.user_id.as_bytes())) else { continue };
                player.lead(fetched, &[at], &mut |_| {})?;
                look(player, payment.user_id.as_bytes(), open)?;
            }
            cursor.pass();
        }
        while !open.is_empty() && player.next_after().is_some() {
            let mut key = None;
            player.rule_one(&mut |decided| key = key.take().or_else(|| decided.key.map(<[u8]>::to_vec)))?;
            if let Some(key) = key {
                look(player, &key, open)?;
            }
        }
        Ok(same)
    }

    /// What it means that a user's kept value is not what was replayed.
    #[expect(clippy::too_many_arguments, reason = "both sides, and what is known beside them")]
    pub(super) fn judge(
        &self,
        partition: u32,
        key: &[u8],
        kept: Option<&Kept>,
        replayed: Option<&[u8]>,
        script: &Script,
        start: u64,
        naming: &Naming,
    ) -> Result<Finding> {
        let value = kept.and_then(|kept| kept.value.as_deref());
        let incomplete = start > script.begins;
        let left = value.map(decoded).transpose()?;
        let right = replayed.map(decoded).transpose()?;
        let mut at: Vec<_> = kept.iter().map(|kept| self.place(self.changelog(partition), kept.offset)).collect();
        let last = |marks: &state::store::Marks| marks.0[0].checked_sub(1).map(|offset| self.place(self.lead(partition), offset));
        let (field, left, right) = match (&left, &right) {
            (None, None) => return Ok(Finding::Same),
            (Some(left), Some(right)) => {
                let lost = |kept: u64| kept.checked_sub(1).is_some_and(|offset| script.lost.contains(&offset));
                let older = incomplete && left.0.0[0] == right.0.0[0] && left.1.0.seen() > right.1.0.seen();
                if older || lost(left.0.0[1]) {
                    return Ok(Finding::BeganBefore);
                }
                let Some(found) = first_field(left, right) else { return Ok(Finding::Same) };
                at.extend(last(&left.0));
                at.extend(last(&right.0).filter(|_| left.0.0[0] != right.0.0[0]));
                self.undecided(partition, left.0.0[1], script).unwrap_or(found)
            }
            (Some(left), None) => {
                if (incomplete && left.0.0[0] <= start) || script.lost.contains(&left.0.0[1].wrapping_sub(1)) {
                    return Ok(Finding::BeganBefore);
                }
                at.extend(last(&left.0));
                let is = format!("a profile that includes payments below offset {}", left.0.0[0]);
                let found = ("profile".to_owned(), is, "no payment or decision leads to one".to_owned());
                self.undecided(partition, left.0.0[1], script).unwrap_or(found)
            }
            (None, Some(right)) => {
                if script.lost_erasure() {
                    return Ok(Finding::BeganBefore);
                }
                at.extend(last(&right.0));
                let none = if kept.is_some() { "erased" } else { "no record of this user" };
                let is = format!("a profile of {} payments, included below offset {}", right.1.0.seen(), right.0.0[0]);
                let why = if kept.is_some() { ", and no decision erases it" } else { "" };
                ("profile".to_owned(), none.to_owned(), is + why)
            }
        };
        let user = Some(naming.of(key));
        Ok(Finding::Differ(Some(Difference { between: BETWEEN, partition, user, field, left, right, at })))
    }

    /// A value that includes a command which no decision names.
    fn undecided(&self, partition: u32, next: u64, script: &Script) -> Option<(String, String, String)> {
        let offset = next.checked_sub(1)?;
        if script.about(offset).is_some() {
            return None;
        }
        let command = self.place(self.commands(partition), offset);
        let decisions = self.name(self.decisions(partition).topic);
        Some(("decision".into(), format!("the profile includes {command}"), format!("{decisions} has no decision about it")))
    }
}
