//! `/v1/notifications`.

use models::Severity;
use serde_json::json;

use super::world::{NOW_MS, World};
use crate::notify::entry::{Delivery, Disabled, Key, Order, Standing, State};
use crate::notify::message::Message;
use crate::scoring::ScoringParams;

const TOPIC: &str = "test-notifications";

#[test]
fn what_did_not_arrive_is_listed_and_resent_by_order() {
    let mut world = World::idle(ScoringParams::default(), Vec::new());
    let empty = world.get("/v1/notifications").json();
    assert_eq!((&empty["deliveries"], &empty["targets"][0]["name"]), (&json!([]), &json!("ops")));
    world.client().post("/v1/notifications/msg_1/resend", b"").problem(404, "no-such-delivery");

    let message = Message { severity: Severity::High, ..Message::test(NOW_MS) };
    let delivery = Delivery {
        id: "msg_1".into(),
        target: "ops".into(),
        state: State::Dead,
        made_ms: NOW_MS,
        next_ms: NOW_MS,
        attempts: 10,
        trouble: Some("it answered 410".into()),
        message,
    };
    let disabled = Some(Disabled { at_ms: NOW_MS, why: "it answered 410".into(), address: "a".into() });
    let standing = Standing { disabled, ..Standing::default() };
    world.write(TOPIC, &Key::Delivery("msg_1".into()).encode(), &serde_json::to_vec(&delivery).expect("JSON"));
    world.write(TOPIC, &Key::Target("ops".into()).encode(), &serde_json::to_vec(&standing).expect("JSON"));
    world.book.catch_up().expect("read");
    let list = world.get("/v1/notifications").json();
    let listed = &list["deliveries"][0];
    assert_eq!((&listed["id"], &listed["state"], &listed["attempts"]), (&json!("msg_1"), &json!("dead"), &json!(10)));
    assert_eq!(list["targets"][0]["disabled"]["why"], "it answered 410");

    let got = world.client().post("/v1/notifications/msg_1/resend", b"");
    assert_eq!((got.status, got.json()), (202, json!({"id": "msg_1", "state": "ordered"})));
    let order = Order::Resend { delivery: "msg_1".into() };
    let written = world.read(TOPIC);
    let (key, value) = written.last().expect("an order");
    assert_eq!(*key, order.key().encode());
    assert_eq!(serde_json::from_slice::<Order>(value).expect("an order"), order);
}
