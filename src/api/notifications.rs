//! `/v1/notifications`: what did not arrive yet or at all, and sending it again.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::error;

use super::call::{Answer, Call};
use super::declare::{Declared, Takes, gives, parameter};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use crate::notify::entry::{Delivery, Disabled, Order};

/// Deliveries of one answer, the latest first.
const LIST_MAX: usize = 1_000;
/// Seconds after which to try again when the broker did not answer.
const RETRY_S: u16 = 1;

/// What the list says of itself.
pub(crate) const LIST: Declared =
    Declared::new("Operations", "Notifications that wait or were given up", &[gives::<List>(200, "The latest thousand.")]);

/// What sending again says of itself.
pub(crate) const RESEND: Declared =
    Declared::new("Operations", "Sends a notification again", &[gives::<Ordered<'static>>(202, "It is tried again.")])
        .about(parameter("id", Takes::Text(256), "The delivery's id."))
        .problems(&[Kind::NoSuchDelivery, Kind::BrokerUnavailable]);

#[derive(Serialize, JsonSchema)]
struct Target {
    name: String,
    kind: &'static str,
    min_severity: &'static str,
    /// Why it gets nothing, where it does not.
    disabled: Option<Disabled>,
}

#[derive(Serialize, JsonSchema)]
struct List {
    targets: Vec<Target>,
    /// How many there are, listed or not.
    count: usize,
    deliveries: Vec<Delivery>,
}

#[derive(Serialize, JsonSchema)]
struct Ordered<'o> {
    id: &'o str,
    state: &'static str,
}

/// Deliveries that wait or were given up, and the targets.
pub(crate) fn list(call: &Call) -> Answer {
    let mut list = List { targets: Vec::new(), count: 0, deliveries: Vec::new() };
    if let Some(notifications) = &call.site.api.notifications {
        let disabled = notifications.book.disabled();
        let target = |(name, kind, min): &(String, &'static str, models::Severity)| Target {
            name: name.clone(),
            kind,
            min_severity: min.as_str(),
            disabled: disabled.get(name).cloned(),
        };
        list.targets = notifications.targets.iter().map(target).collect();
        list.deliveries = notifications.book.deliveries();
        list.count = list.deliveries.len();
        list.deliveries.truncate(LIST_MAX);
    }
    Ok(Reply::json(StatusCode::OK, &list))
}

/// Orders a delivery to be tried again: whichever instance notifies does it.
pub(crate) fn resend(call: &Call) -> Answer {
    let unknown = || Problem::new(Kind::NoSuchDelivery, "no delivery that waits or was given up has this id");
    let notifications = call.site.api.notifications.as_ref().ok_or_else(unknown)?;
    let delivery = notifications.book.delivery(&call.name).ok_or_else(unknown)?;
    notifications.book.order(&Order::Resend { delivery: delivery.id.clone() }).map_err(|why| {
        error!(request = call.request, %why, "the notifications topic did not take an order");
        Problem::new(Kind::BrokerUnavailable, "the order was not written to the notifications topic, or is not known to be there")
            .retry_after(RETRY_S)
    })?;
    Ok(Reply::json(StatusCode::ACCEPTED, &Ordered { id: &delivery.id, state: "ordered" }))
}
