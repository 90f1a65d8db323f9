//! The demo: synthetic payments with injected anomalies through a real instance on the embedded broker, and what becomes of them.
//!
//! It goes on where it was: its users keep their habits (same seed), and the next payments follow the last ones in event time, up to now.

mod feed;
mod plan;
mod tally;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use topology::broker::{Broker, BrokerError};
use tracing::info;

use crate::clock::{monotonic, now_ms, since};
use crate::config::{Origin, Settings};
use crate::failure::Failure;
use crate::instance::{Instance, first_order};
use crate::load::{Control, Places, to_topic};
use crate::output::Output;
use crate::service::Attendant;
use crate::training::ROWS_MIN;
use crate::training::jobs::Order;

use feed::Feed;
pub use plan::{RATE, Wish};
use tally::Tally;

/// The command's name, as settings tell where they are from.
pub const COMMAND: &str = "demo";
/// How often the line of figures is drawn.
const DRAW: Duration = Duration::from_secs(1);
/// Anomalies shown a second, the worst first; the others are counted.
const SHOWN_A_SECOND: usize = 3;

/// The demo's attendant: feeds payments, follows verdicts, shows both.
pub struct Show<B: Broker = crate::broker::embedded::EmbeddedBroker> {
    wish: Wish,
    names: (String, String),
    auto_train: bool,
    /// The training that makes the first model, where the demo orders it: once there are enough habits to learn.
    first: Option<Order>,
    ordered: Option<String>,
    /// The past is over.
    live: bool,
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
    /// Shows what is asked for.
    #[must_use]
    pub fn new(wish: Wish, settings: &Settings) -> Self {
        let ours = settings.origin("AUTO_TRAIN") == Some(&Origin::Command(COMMAND));
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("invariant: the template is valid");
        Self {
            wish,
            names: (settings.transactions_topic.clone(), settings.verdicts_topic.clone()),
            auto_train: settings.auto_train,
            first: ours.then(|| first_order(settings)),
            ordered: None,
            live: false,
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

    fn waits(&self) -> bool {
        self.auto_train || self.first.is_some()
    }

    fn draw(&mut self, instance: &Instance) {
        let waits = self.waits();
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
        let waiting = if self.model.is_none() && waits { ", no model yet: habits are learned first" } else { "" };
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
    fn begin(&mut self, instance: &Instance, broker: &Arc<B>, url: &str) -> Result<(), Failure> {
        let topics = instance.topology.topics();
        let find = |name: &str| topics.find(name).expect("invariant: the scoring topology has its topics");
        let (transactions, verdicts) = (find(&self.names.0), find(&self.names.1));
        let partitions = instance.partitions[usize::from(transactions.0)];
        let mut output = Output::stdout();
        output.line(&format!("Mangrove demo: the dashboard is at {url}"))?;
        output.line(
            "  a profile: GET /v1/users/{id}/profile   metrics: GET /metrics   stop with Ctrl-C, go on with the same command",
        )?;
        let tally = Tally::follow(&**broker, verdicts).map_err(failed)?;
        let feed = Feed::start(&**broker, transactions, partitions, self.wish, tally.injected())?;
        if let Some(dead_letters) = instance.topology.dead_letters() {
            let taken_over = feed.taken_over();
            let (places, broker) = (Places { transactions, verdicts, dead_letters }, Arc::clone(broker));
            let control = Control::new(taken_over, move |params, shared| to_topic(&*broker, &places, true, params, shared));
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
        let waits = self.waits();
        let (Some(feed), Some(tally)) = (&mut self.feed, &mut self.tally) else { return Ok(false) };
        feed.check()?;
        tally.read().map_err(failed)?;
        feed.saw(tally.seen());
        if instance.model.get().is_some() || !waits {
            feed.go_on();
        } else if let Some(order) = &self.first {
            let learned = if feed.plan().learn == u64::MAX { ROWS_MIN as u64 } else { feed.plan().learn };
            let waits =
                self.ordered.as_ref().and_then(|id| instance.training.jobs.get(id)).is_some_and(|job| !job.phase.has_ended());
            if tally.seen() >= learned && !waits {
                // A full queue is one that trains: the next look finds out what came of it.
                self.ordered = instance.training.jobs.submit(order.clone(), now_ms()).ok();
            }
        }
        if !self.live && feed.is_live() {
            self.live = true;
            let rate = self.wish.rate.unwrap_or(RATE);
            self.bar
                .println(format!("the past is made up for; from here on payments come as they are made, about {rate} a second"));
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
