//! How good the verdicts were, by the file's labels.

use models::{Severity, Verdict, metrics};

use super::{Pending, Report};

/// Cards investigated a day, as in the Fraud Detection Handbook.
const CARDS_A_DAY: usize = 100;

/// Verdicts of the judged days, column by column.
#[derive(Debug, Default)]
pub struct Judgement {
    days: Vec<i64>,
    cards: Vec<u32>,
    scores: Vec<f64>,
    labels: Vec<bool>,
    severities: [u64; 5],
    judged: u64,
    /// By partition: the input offset of the first row still pending.
    first: Vec<u64>,
}

impl Judgement {
    /// The row that a verdict is about: its id ends in `:partition:offset`.
    pub(super) fn row_of(&mut self, verdict: &Verdict, pending: &[Vec<Pending>]) -> Pending {
        self.first.resize(pending.len(), 0);
        let mut parts = verdict.id.rsplit(':').map_while(|part| part.parse::<u64>().ok());
        let (offset, partition) = parts.next().zip(parts.next()).expect("invariant: an id is topic:partition:offset");
        pending[partition as usize][(offset - self.first[partition as usize]) as usize]
    }

    /// Everything pending has been judged.
    pub(super) fn advance(&mut self, pending: &mut [Vec<Pending>]) {
        self.first.resize(pending.len(), 0);
        for (first, rows) in self.first.iter_mut().zip(pending) {
            *first += rows.len() as u64;
            rows.clear();
        }
    }

    pub(super) fn push(&mut self, day: u32, card: u32, score: f64, severity: Severity, fraud: Option<bool>) {
        self.judged += 1;
        self.severities[severity as usize] += 1;
        if let Some(fraud) = fraud {
            self.days.push(i64::from(day));
            self.cards.push(card);
            self.scores.push(score);
            self.labels.push(fraud);
        }
    }

    pub(super) fn finish(&self, report: &mut Report) {
        report.judged_rows = self.judged;
        report.frauds = self.labels.iter().filter(|&&fraud| fraud).count() as u64;
        report.severities = self.severities;
        if report.frauds > 0 {
            report.auroc = metrics::auroc(&self.labels, &self.scores);
            report.average_precision = metrics::average_precision(&self.labels, &self.scores);
            report.card_precision_100 = metrics::card_precision(&self.days, &self.cards, &self.scores, &self.labels, CARDS_A_DAY);
        }
    }
}
