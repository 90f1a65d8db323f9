//! The demo: synthetic payments with injected anomalies through a real instance on the embedded broker, and what becomes of them.
//!
//! It goes on where it was: its users keep their habits (same seed), and the next payments follow the last ones in event time.

mod feed;
mod tally;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use topology::broker::{Broker, BrokerError};
use tracing::info;

use crate::clock::{monotonic, since};
use crate::config::Settings;
use crate::failure::Failure;
use crate::instance::Instance;
use crate::load::{Control, Places, to_topic};
use crate::output::Output;
use crate::service::Attendant;

use feed::Feed;
use tally::Tally;

/// How often the line of figures is drawn.
const DRAW: Duration = Duration::from_secs(1);
/// Anomalies shown a second, the worst first; the others are counted.
const SHOWN_A_SECOND: usize = 3;

/// The demo's attendant: feeds payments, follows verdicts, shows both.
pub struct Show<B: Broker = crate::broker::embedded::EmbeddedBroker> {
    records: Option<u64>,
    rate: Option<u32>,
    names: (String, String),
    auto_train: bool,
    http: String,
    bar: ProgressBar,
    feed: Option<Feed>,
    tally: Option<Tally<B>>,
    began: Duration,
    drawn: Duration,
    seen_then: u64,
    model: Option<String>,
    /// Load that is started and stopped over HTTP.
    load: Arc<OnceLock<Control>>,
}

impl<B: Broker> Show<B> {
    /// Shows so many payments (or goes on until it is stopped), so many a second (or as fast as they go).
    #[must_use]
    pub fn new(records: Option<u64>, rate: Option<u32>, settings: &Settings) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("invariant: the template is valid");
        Self {
            records,
            rate,
            names: (settings.transactions_topic.clone(), settings.verdicts_topic.clone()),
            auto_train: settings.auto_train,
            http: crate::instance::url(settings.http_addr),
            bar: ProgressBar::new_spinner().with_style(style),
            feed: None,
            tally: None,
            began: monotonic(),
            drawn: monotonic(),
            seen_then: 0,
            model: None,
            load: Arc::default(),
        }
    }

    fn draw(&mut self, instance: &Instance) {
        let Some(tally) = &mut self.tally else { return };
        let elapsed = since(self.drawn).as_secs_f64();
        let rate = (tally.seen() - self.seen_then) as f64 / elapsed.max(1e-3);
        (self.seen_then, self.drawn) = (tally.seen(), monotonic());
        let model = instance.model.get().map(|model| model.id.clone());
        if model != self.model {
            if let Some(id) = &model {
                self.bar.println(format!("model {id} scores from here on"));
            }
            self.model = model;
        }
        for line in tally.worst(SHOWN_A_SECOND) {
            self.bar.println(line);
        }
        let waiting = if self.model.is_none() { ", no model yet: trained at 1,000 payments" } else { "" };
        let message = format!("{rate:.0} payments/s, {}{waiting}", tally.line());
        self.bar.set_message(message.clone());
        self.bar.tick();
        if self.bar.is_hidden() {
            info!(rate = rate.round(), verdicts = tally.seen(), anomalies = tally.anomalies(), "scoring");
        }
    }
}

fn failed(why: BrokerError) -> Failure {
    Failure::new("the demo cannot go on").caused_by(why)
}

impl<B: Broker> Attendant<B> for Show<B> {
    fn begin(&mut self, instance: &Instance, broker: &Arc<B>) -> Result<(), Failure> {
        let topics = instance.topology.topics();
        let find = |name: &str| topics.find(name).expect("invariant: the scoring topology has its topics");
        let (transactions, verdicts) = (find(&self.names.0), find(&self.names.1));
        let partitions = instance.partitions[usize::from(transactions.0)];
        let mut output = Output::stdout();
        output.line(&format!("Mangrove demo: the dashboard is at {}", self.http))?;
        output.line(
            "  a profile: GET /v1/users/{id}/profile   metrics: GET /metrics   stop with Ctrl-C, go on with the same command",
        )?;
        let tally = Tally::follow(&**broker, verdicts).map_err(failed)?;
        let feed = Feed::start(&**broker, transactions, partitions, self.records, self.rate, tally.injected())?;
        if let Some(dead_letters) = instance.topology.dead_letters() {
            let (taken_over, event_ms) = feed.handles();
            let (places, broker) = (Places { transactions, verdicts, dead_letters }, Arc::clone(broker));
            let control =
                Control::new(taken_over, event_ms, move |params, shared| to_topic(&*broker, &places, true, params, shared));
            // One that was put there before goes on: there is one demo in a process.
            let _there_already = instance.load.set(control);
            self.load = Arc::clone(&instance.load);
        }
        self.feed = Some(feed);
        self.tally = Some(tally);
        self.began = monotonic();
        Ok(())
    }

    fn tend(&mut self, instance: &Instance) -> Result<bool, Failure> {
        let (Some(feed), Some(tally)) = (&mut self.feed, &mut self.tally) else { return Ok(false) };
        feed.check()?;
        tally.read().map_err(failed)?;
        if instance.model.get().is_some() || !self.auto_train {
            feed.go_on();
        }
        let done = feed.sent_all().is_some_and(|sent| tally.seen() >= sent);
        if done || since(self.drawn) >= DRAW {
            self.draw(instance);
        }
        Ok(!done)
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        if let Some(load) = self.load.get() {
            load.end();
        }
        let (Some(feed), Some(tally)) = (self.feed.take(), self.tally.take()) else { return Ok(()) };
        let sent = feed.stop()?;
        let seconds = since(self.began).as_secs_f64();
        let mut output = Output::stdout();
        output.line(&format!("{sent} payments sent, {} verdicts in {seconds:.1} s", tally.seen()))?;
        output.line(&format!("model {}", self.model.as_deref().unwrap_or("none yet")))?;
        for line in tally.summary() {
            output.line(&line)?;
        }
        Ok(())
    }
}
