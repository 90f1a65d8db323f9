//! The models topic, folded.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::record::{Activation, Entry, HISTORY_MAX, LastRetrain, Request, Shadowing, Tally, Version};

/// What a version is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It scores.
    Active,
    /// It scored, and can again.
    Retired,
    /// It scores beside the active one, without effect.
    Shadow,
    /// It has not scored yet.
    Candidate,
}

/// What the topic says up to a position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    versions: BTreeMap<String, Version>,
    active: Option<Activation>,
    shadows: BTreeMap<String, Shadowing>,
    tallies: BTreeMap<String, Tally>,
    request: Option<Request>,
    last_retrain: Option<LastRetrain>,
    position: u64,
}

impl View {
    /// Takes the next record. Returns what is wrong with one that cannot be used; it changes nothing.
    pub(super) fn apply(&mut self, offset: u64, key: &[u8], value: Option<&[u8]>) -> Option<String> {
        self.position = self.position.max(offset + 1);
        match Entry::decode(key, value)? {
            Err(why) => return Some(why),
            Ok(Entry::Version(version)) => drop(self.versions.insert(version.id.clone(), *version)),
            Ok(Entry::Gone(id)) => drop(self.versions.remove(&id)),
            Ok(Entry::Active(activation)) => self.active = Some(activation),
            Ok(Entry::Shadow(shadow)) => drop(self.shadows.insert(shadow.model.clone(), shadow)),
            Ok(Entry::Tally(tally)) => drop(self.tallies.insert(tally.model.clone(), *tally)),
            Ok(Entry::Request(request)) => self.request = Some(request),
            Ok(Entry::Last(last)) => self.last_retrain = Some(last),
        }
        None
    }

    /// Everything below was taken in.
    pub(super) fn advance(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// The next offset to take in.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// True where nothing was ever registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty() && self.active.is_none()
    }

    /// The activation in force.
    #[must_use]
    pub fn active(&self) -> Option<&Activation> {
        self.active.as_ref()
    }

    /// The request for a retraining that nothing has answered yet.
    #[must_use]
    pub fn open_request(&self) -> Option<&Request> {
        let answered = self.last_retrain.as_ref().and_then(|last| last.request.as_ref());
        self.request.as_ref().filter(|request| Some(&request.id) != answered)
    }

    /// The last retraining.
    #[must_use]
    pub fn last_retrain(&self) -> Option<&LastRetrain> {
        self.last_retrain.as_ref()
    }

    /// A version by its id.
    #[must_use]
    pub fn version(&self, id: &str) -> Option<&Version> {
        self.versions.get(id)
    }

    /// All versions, the latest first.
    #[must_use]
    pub fn versions(&self) -> Vec<&Version> {
        let mut versions: Vec<&Version> = self.versions.values().collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version.created_ms));
        versions
    }

    /// What a version is at the moment.
    #[must_use]
    pub fn state(&self, id: &str) -> State {
        match &self.active {
            Some(active) if active.model == id => State::Active,
            _ if self.shadow(id).is_some_and(Shadowing::is_running) => State::Shadow,
            Some(active) if active.previous.iter().any(|previous| previous == id) => State::Retired,
            _ => State::Candidate,
        }
    }

    /// A version's shadow, running or ended.
    #[must_use]
    pub fn shadow(&self, id: &str) -> Option<&Shadowing> {
        self.shadows.get(id)
    }

    /// Those that run, by their models' ids.
    pub fn running_shadows(&self) -> impl Iterator<Item = &Shadowing> {
        self.shadows.values().filter(|shadow| shadow.is_running())
    }

    /// What a shadow was found to do; none before anything was.
    #[must_use]
    pub fn tally(&self, shadow: &Shadowing) -> Option<&Tally> {
        self.tallies.get(&shadow.model).filter(|tally| tally.began_ms == shadow.began_ms)
    }

    /// The activation that makes this version the active one: what scored until now can be rolled back to.
    pub(super) fn promotion(&self, model: &str, why: &str, instance: &str, at_ms: i64) -> Activation {
        let mut previous = Vec::new();
        if let Some(active) = &self.active {
            previous.extend(std::iter::once(&active.model).chain(&active.previous).filter(|id| *id != model).cloned());
            previous.truncate(HISTORY_MAX);
        }
        Activation { model: model.to_owned(), previous, at_ms, why: why.to_owned(), instance: instance.to_owned() }
    }

    /// The activation that goes back to the version before; rolling back again goes on to the one before that.
    pub(super) fn rollback(&self, instance: &str, at_ms: i64) -> Option<Activation> {
        let (model, earlier) = self.active.as_ref()?.previous.split_first()?;
        let (why, instance) = ("rolled back".to_owned(), instance.to_owned());
        Some(Activation { model: model.clone(), previous: earlier.to_vec(), at_ms, why, instance })
    }
}
