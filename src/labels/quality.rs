//! How good verdicts were, by what people found out about them.

use std::collections::{BTreeMap, HashMap};

use models::metrics::{average_precision, card_precision};
use schemars::JsonSchema;
use serde::Serialize;

/// Cards looked at on a day.
const CARDS: usize = 100;
const DAY_MS: i64 = 86_400_000;

/// A labelled verdict: 32 bytes, since there may be a million.
#[derive(Clone, Debug, PartialEq)]
struct Judged {
    day: i64,
    score: f64,
    model: u32,
    card: u32,
    alerted: bool,
    fraud: bool,
}

/// Figures on labelled verdicts; none where nothing can be said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Figures {
    /// Labelled verdicts.
    pub labelled: u64,
    /// Of these, frauds.
    pub frauds: u64,
    /// Of these, at the threshold or above.
    pub alerts: u64,
    /// Share of the alerts that were frauds.
    pub precision: Option<f64>,
    /// Share of the frauds that were alerted.
    pub recall: Option<f64>,
    /// Precision over all thresholds.
    pub average_precision: Option<f64>,
    /// Frauds among the 100 cards with the highest scores, a day; those found on one day leave the following ones.
    pub card_precision_100: Option<f64>,
}

/// Of one day.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "quality_of_day")]
pub struct Day {
    /// Its date in UTC.
    pub day: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Of one model.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "quality_of_model")]
pub struct OfModel {
    /// Its id.
    pub model: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// How good verdicts were: all of a window, by day, by model.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "quality")]
pub struct Quality {
    /// When it was made, in milliseconds since the epoch.
    pub as_of_ms: i64,
    /// Verdicts of this event time and later.
    pub from_ms: i64,
    /// Verdicts read: labelled or not, from that time on.
    pub verdicts: u64,
    /// All labelled ones.
    #[serde(flatten)]
    pub figures: Figures,
    /// The earliest first.
    pub by_day: Vec<Day>,
    /// In order of their ids.
    pub by_model: Vec<OfModel>,
}

/// Numbers for texts, in the order in which they are met.
#[derive(Debug, Default)]
struct Numbers(HashMap<String, u32>);

impl Numbers {
    fn of(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.0.get(text) {
            return number;
        }
        let number = self.0.len() as u32;
        self.0.insert(text.to_owned(), number);
        number
    }
}

/// Collects labelled verdicts. Those that nobody labelled are counted only: what it holds grows with the labels, not with the verdicts.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) verdicts: u64,
    judged: Vec<Judged>,
    cards: Numbers,
    models: Numbers,
}

impl Collected {
    pub(super) fn push(&mut self, event_time: i64, model: &str, user: &str, score: f64, alerted: bool, fraud: bool) {
        let (card, model) = (self.cards.of(user), self.models.of(model));
        self.judged.push(Judged { day: event_time.div_euclid(DAY_MS), score, model, card, alerted, fraud });
    }

    pub(super) fn quality(mut self, as_of_ms: i64, from_ms: i64) -> Quality {
        // Polls mix partitions: the same verdicts must give the same figures.
        self.judged.sort_by(|a, b| (a.day, a.card).cmp(&(b.day, b.card)).then(a.score.total_cmp(&b.score)));
        let mut days: BTreeMap<i64, Vec<&Judged>> = BTreeMap::new();
        let names: HashMap<u32, &str> = self.models.0.iter().map(|(name, number)| (*number, name.as_str())).collect();
        let mut by_model: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
        for judged in &self.judged {
            days.entry(judged.day).or_default().push(judged);
            by_model.entry(names[&judged.model]).or_default().push(judged);
        }
        let date = |day: i64| {
            let at = jiff::Timestamp::from_millisecond(day * DAY_MS).ok();
            at.map_or_else(|| day.to_string(), |at| at.to_string().chars().take(10).collect())
        };
        Quality {
            as_of_ms,
            from_ms,
            verdicts: self.verdicts,
            figures: figures(&self.judged.iter().collect::<Vec<_>>()),
            by_day: days.into_iter().map(|(day, of)| Day { day: date(day), figures: figures(&of) }).collect(),
            by_model: by_model
                .into_iter()
                .map(|(model, of)| OfModel { model: model.to_owned(), figures: figures(&of) })
                .collect(),
        }
    }
}

fn figures(all: &[&Judged]) -> Figures {
    let count = |of: &dyn Fn(&Judged) -> bool| all.iter().filter(|judged| of(judged)).count() as u64;
    let (frauds, alerts) = (count(&|judged| judged.fraud), count(&|judged| judged.alerted));
    let found = count(&|judged| judged.fraud && judged.alerted);
    let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
    let scores: Vec<f64> = all.iter().map(|judged| judged.score).collect();
    let labels: Vec<bool> = all.iter().map(|judged| judged.fraud).collect();
    let (days, cards): (Vec<i64>, Vec<u32>) = all.iter().map(|judged| (judged.day, judged.card)).unzip();
    Figures {
        labelled: all.len() as u64,
        frauds,
        alerts,
        precision: share(found, alerts),
        recall: share(found, frauds),
        average_precision: average_precision(&labels, &scores),
        card_precision_100: card_precision(&days, &cards, &scores, &labels, CARDS),
    }
}
