//! `mangrove notify`: targets tried out, and what did not arrive.

use std::sync::Arc;

use serde::Serialize;
use topology::broker::Broker;

use super::{Failure, Group, Output, table};
use crate::clock::RealClock;
use crate::config::{BrokerKind, Settings};
use crate::instance::{Blueprint, notification_sender, notification_targets, notifications_topic};
use crate::notify::book::Book;
use crate::notify::entry::{Delivery, Disabled, Order, State};
use crate::notify::message::Message;
use crate::notify::policy::Outcome;
use crate::service;

const EXAMPLES: &str = "\
Examples:
  mangrove notify test ops                   a signed test message, sent now; prints what came back
  mangrove notify list                       what waits, and what was given up
  mangrove notify resend msg_3f0c9a5d1e2b4c67...
  mangrove notify enable ops                 after a 410: send again, all that was given up too

list, resend and enable go straight to the broker; a running instance does what is ordered. The embedded broker belongs to one
process: while an instance runs on it, ask that one: GET /v1/notifications, POST /v1/notifications/{id}/resend.

Exit status: 0 done, 1 failed (test: the target did not take the message), 2 wrong settings or usage.";

/// The command's arguments.
pub type Args = Group<What>;

/// What to do about notifications.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum What {
    /// Send a test message to a target, and print what came back
    Test {
        /// The target's name in the file of NOTIFY_TARGETS
        target: String,
    },
    /// Deliveries that wait or were given up, and targets that are disabled
    List,
    /// Try a delivery again, now
    Resend {
        /// The delivery's id
        id: String,
    },
    /// Send to a target again that answered 410, and all that was given up
    Enable {
        /// The target's name
        target: String,
    },
}

/// Does it.
///
/// # Errors
/// Where the broker does not answer, the name is unknown, or a test message was not taken.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let mut output = Output::stdout();
    match &args.what {
        What::Test { target } => test(target, args.json, settings, &mut output),
        What::List => list(&book(settings)?, args.json, &mut output),
        What::Resend { id } => {
            let book = book(settings)?;
            if book.delivery(id).is_none() {
                return Err(
                    Failure::new("no delivery that waits or was given up has this id").hint("`mangrove notify list` shows all")
                );
            }
            order(&book, &Order::Resend { delivery: id.clone() }, args.json, &mut output)
        }
        What::Enable { target } => {
            known(settings, target)?;
            order(&book(settings)?, &Order::Enable { target: target.clone() }, args.json, &mut output)
        }
    }
}

fn known(settings: &Settings, name: &str) -> Result<crate::notify::targets::Targets, Failure> {
    let unset =
        || Failure::new("NOTIFY_TARGETS is not set: nobody is told of anomalies").hint("docs/operations.md shows the file");
    let targets = notification_targets(settings)?.ok_or_else(unset)?;
    if targets.find(name).is_none() {
        let names: Vec<&str> = targets.list.iter().map(|target| target.name.as_str()).collect();
        return Err(Failure::new(format!("no target is called `{name}`")).hint(format!("there are: {}", names.join(", "))));
    }
    Ok(targets)
}

#[derive(Serialize)]
struct Tested<'t> {
    target: &'t str,
    id: &'t str,
    delivered: bool,
    /// The status and the beginning of the answer.
    answer: &'t str,
    /// Why it did not arrive, where it did not.
    trouble: Option<String>,
}

fn test(target: &str, json: bool, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let sender = notification_sender(settings, known(settings, target)?);
    let now_ms = crate::clock::now_ms();
    let message = Message::test(now_ms);
    let id = message.id_for(target);
    let (state, trouble) = (State::Pending, None);
    let delivery =
        Delivery { id, target: target.to_owned(), state, made_ms: now_ms, next_ms: now_ms, attempts: 0, trouble, message };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| Failure::new("cannot start threads").caused_by(why))?;
    let answer = runtime.block_on(sender.attempt(&delivery, now_ms));
    let trouble = match answer.outcome {
        Outcome::Arrived => None,
        Outcome::Failed { why, .. } | Outcome::Gone { why } => Some(why),
    };
    if json {
        let delivered = trouble.is_none();
        output.json(&Tested { target, id: &delivery.id, delivered, answer: &answer.said, trouble: trouble.clone() })?;
    } else {
        output.line(&format!("target  {target}\nid      {}\nanswer  {}", delivery.id, answer.said))?;
    }
    match trouble {
        None => Ok(()),
        Some(why) => Err(Failure::new(format!("target `{target}` did not take the test message: {why}"))),
    }
}

/// The notifications topic of the settings' broker, read to its end.
fn book(settings: &Settings) -> Result<Book, Failure> {
    let blueprint = Blueprint::new(settings)?;
    match settings.broker {
        BrokerKind::Kafka => open(&blueprint, &service::kafka(settings, &blueprint)?),
        BrokerKind::Embedded => open(&blueprint, &service::embedded(settings, &blueprint)?),
    }
}

fn open<B: Broker>(blueprint: &Blueprint, broker: &Arc<B>) -> Result<Book, Failure> {
    let topic = notifications_topic(&blueprint.topology);
    let failed = |why| Failure::new("the notifications topic cannot be read").caused_by(why);
    if broker.describe(&[topic]).map_err(failed)?.first().is_none_or(Option::is_none) {
        let what = format!("the topic {} does not exist yet", blueprint.topology.topics().name(topic));
        return Err(Failure::new(what).hint("the first instance creates it: `mangrove run`"));
    }
    let book = Book::new(broker, topic, Arc::new(RealClock));
    book.catch_up().map_err(failed)?;
    Ok(book)
}

#[derive(Serialize)]
struct Listed {
    disabled: std::collections::BTreeMap<String, Disabled>,
    deliveries: Vec<Delivery>,
}

fn list(book: &Book, json: bool, output: &mut Output) -> Result<(), Failure> {
    let (disabled, deliveries) = (book.disabled(), book.deliveries());
    if json {
        return output.json(&Listed { disabled, deliveries });
    }
    for (name, disabled) in &disabled {
        output.line(&format!("target {name} is disabled since {}: {}", time(disabled.at_ms), disabled.why))?;
    }
    if deliveries.is_empty() {
        return output.line("nothing waits, and nothing was given up");
    }
    let rows: Vec<_> = deliveries
        .iter()
        .map(|delivery| {
            let (state, next) = match delivery.state {
                State::Pending => ("waits", time(delivery.next_ms)),
                State::Dead => ("given up", "-".to_owned()),
            };
            [
                delivery.id.clone(),
                delivery.target.clone(),
                state.to_owned(),
                time(delivery.made_ms),
                delivery.message.count.to_string(),
                delivery.attempts.to_string(),
                next,
                delivery.trouble.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    output.line(&table(["delivery", "target", "state", "made", "anomalies", "attempts", "next", "trouble"], &rows))
}

fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

fn order(book: &Book, order: &Order, json: bool, output: &mut Output) -> Result<(), Failure> {
    book.order(order).map_err(|why| Failure::new("the order was not written").caused_by(why))?;
    if json { output.json(order) } else { output.line("ordered: the instance that notifies does it within a second") }
}
