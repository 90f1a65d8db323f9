//! Every answer that a test of the interface gets is one that the document has: its status, its type, and its body by the schema.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use hyper::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::client::Got;
use super::schema::misfit;
use super::world::{NOW_MS, World};
use crate::api::document::template;
use crate::api::route::Route;
use crate::api::routes::{ROUTES, document, find};
use crate::api::{published, published_names};
use crate::config::Scope;
use crate::scoring::ScoringParams;

/// Checks an answer to a request; a path that no route has, or a method that it does not take, is none of the document's.
pub(super) fn check(method: &str, target: &str, got: &Got) {
    let path = target.split('?').next().unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let Ok((route, _)) = find(&method, path) else { return };
    let declared = route.declared.unwrap_or_else(|| panic!("{method} {} has no declaration", route.path));
    let place = (template(route.path, declared), route.method.as_str().to_ascii_lowercase(), got.status);
    let response = &document()["paths"][&place.0][&place.1]["responses"][place.2.to_string()];
    assert!(response.is_object(), "{place:?} is not in the document: {}", got.text());
    let content_type = got.header("content-type").expect("every answer has a type");
    let media = &response["content"][content_type];
    assert!(media.is_object(), "{place:?} does not answer with {content_type} in the document");
    if let (Some(schema), false) = (media.get("schema"), got.body.is_empty()) {
        let body = got.json();
        assert_eq!(misfit(document(), schema, &body), None, "{place:?}: {body}");
    }
}

#[test]
fn every_route_is_declared() {
    for Route { method, path, declared, .. } in ROUTES {
        let declared = declared.unwrap_or_else(|| panic!("{method} {path} has no declaration: see the header of `routes`"));
        assert_eq!(declared.placeholder.is_some(), path.contains("{}"), "{method} {path}: its placeholder");
        assert!(!declared.summary.is_empty() && !declared.answers.is_empty(), "{method} {path}");
    }
}

#[test]
fn operations_have_names_of_their_own() {
    let paths = document()["paths"].as_object().expect("paths").values();
    let operations = paths.flat_map(|path| path.as_object().expect("methods").values());
    let ids: BTreeSet<&str> = operations.map(|operation| operation["operationId"].as_str().expect("a name")).collect();
    assert_eq!(ids.len(), ROUTES.len(), "{ids:?}");
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, each: &mut impl FnMut(&str)) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(to) if name == "$ref" => each(to),
                        value => walk(value, each),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, each)),
            _ => {}
        }
    }
    let mut seen = 0;
    walk(document(), &mut |to| {
        seen += 1;
        let pointer = to.strip_prefix('#').unwrap_or_else(|| panic!("{to} leads out of the document"));
        assert!(document().pointer(pointer).is_some(), "{to}");
    });
    assert!(seen > ROUTES.len());
}

#[test]
fn the_document_is_openapi_3_1_and_open_to_anyone() {
    let token = super::access::token("t", "secret", &[Scope::Query]);
    let world = World::idle(ScoringParams::default(), vec![token]);
    let got = world.get("/openapi.json");
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")));
    let document = got.json();
    assert_eq!(document["openapi"], "3.1.0");
    let operations = document["paths"].as_object().expect("paths").values().map(|path| path.as_object().expect("methods").len());
    assert_eq!(operations.sum::<usize>(), ROUTES.len());
    let profile = &document["paths"]["/v1/users/{user_id}/profile"]["get"];
    assert_eq!(profile["security"], json!([{"token": ["query"]}]));
    let names: Vec<&str> = profile["parameters"].as_array().expect("some").iter().filter_map(|at| at["name"].as_str()).collect();
    assert_eq!(names, ["user_id", "consistency", "min_position", "timeout"]);
    for status in ["200", "400", "401", "403", "404", "429", "500", "503"] {
        assert!(profile["responses"][status].is_object(), "{status}");
    }
    assert!(document["paths"]["/v1/inference"]["post"]["requestBody"]["content"]["application/json"]["schema"].is_object());
}

#[test]
fn the_page_runs_under_a_policy_without_anything_in_line() {
    let world = World::idle(ScoringParams::default(), Vec::new());
    let page = world.get("/docs");
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("script-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let text = page.text();
    assert!(!text.contains("style=") && !text.contains("<style") && !text.contains("onload"), "{text}");
    let sources: Vec<&str> = text.split('"').filter(|part| part.starts_with('/') || part.contains("//")).collect();
    assert_eq!(sources, ["/docs/docs.css", "/docs/docs.js", "/openapi.json"], "nothing of another host");
    for (part, content_type) in [("docs.js", "text/javascript; charset=utf-8"), ("docs.css", "text/css; charset=utf-8")] {
        let got = world.get(&format!("/docs/{part}"));
        assert_eq!((got.status, got.header("content-type")), (200, Some(content_type)));
    }
    world.get("/docs/other.js").problem(404, "no-such-route");
}

#[test]
fn shapes_on_the_wire_are_published() {
    let world = World::idle(ScoringParams::default(), Vec::new());
    let mut names = 0;
    for name in published_names() {
        let got = world.get(&format!("/schemas/{name}.json"));
        assert_eq!((got.status, got.header("content-type")), (200, Some("application/schema+json")));
        assert_eq!(got.json()["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(misfit(&got.json(), &got.json(), &json!(7)).is_some(), "{name}: a number is none");
        names += 1;
    }
    assert_eq!(names, 5);
    world.get("/schemas/other.json").problem(404, "no-such-route");
    world.get("/schemas/verdict").problem(404, "no-such-route");
}

#[test]
fn a_verdict_of_the_stream_fits_its_published_schema() {
    let mut world = World::running(ScoringParams { reasons_for_all: true, ..ScoringParams::default() });
    for at in 0..80 {
        let json =
            format!(r#"{{"user_id":"u","amount":{},"merchant":"m{}","timestamp":{}}}"#, 1 + at % 7, at % 3, NOW_MS - 90_000 + at);
        world.pay("u", &json, NOW_MS);
    }
    world.run();
    world.model.set(Some(world.train()));
    world.pay("u", r#"{"user_id":"u","amount":9999,"merchant":"casino","currency":"EUR","tx_id":"t"}"#, NOW_MS);
    world.run();
    let schema = published("verdict").expect("published");
    let verdicts = world.verdicts();
    assert!(verdicts.iter().any(|verdict| verdict.score.is_some() && !verdict.reasons.is_empty()));
    for verdict in verdicts {
        let verdict = serde_json::to_value(verdict).expect("a verdict");
        assert_eq!(misfit(&schema, &schema, &verdict), None, "{verdict}");
        let mut without = verdict.clone();
        without.as_object_mut().expect("an object").remove("severity");
        assert!(misfit(&schema, &schema, &without).is_some(), "it says what has to be there");
    }
}

/// What a payment may hold, right or nearly so.
fn payments() -> impl Strategy<Value = Value> {
    let value = || {
        prop_oneof![
            Just(Value::Null),
            Just(json!("")),
            "[a-z]{1,20}".prop_map(Value::from),
            "[a-z]{255,258}".prop_map(Value::from),
            (-2_i64..2_000_000_000_000).prop_map(Value::from),
            Just(json!(1e12)),
            Just(json!(1.0001e12)),
            Just(json!(true)),
            Just(json!("2023-11-14T22:13:20Z")),
        ]
    };
    let field = prop::sample::select(vec!["user_id", "amount", "merchant", "tx_id", "currency", "timestamp", "other"]);
    prop::collection::vec((field, prop::option::of(value())), 0..3).prop_map(|changes| {
        let mut payment = json!({"user_id": "u", "amount": 1.5, "merchant": "m"});
        for (field, value) in changes {
            match value {
                Some(value) => payment[field] = value,
                None => drop(payment.as_object_mut().expect("an object").remove(field)),
            }
        }
        payment
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The published schema and the stream's reader agree on what a payment is (of ASCII: see the schema's own words on bytes). Only a
    /// text of a timestamp is looked at by the reader alone, and so is a whole number written with a fraction.
    #[test]
    fn the_schema_of_a_transaction_is_what_its_reader_takes(payment in payments()) {
        static SCHEMA: LazyLock<Value> = LazyLock::new(|| published("transaction").expect("published"));
        let (text, limits) = (payment.to_string(), models::Limits { max_future_ms: i64::MAX, ..Default::default() });
        let read = models::Transaction::from_json(text.as_bytes(), NOW_MS, &limits);
        let time = &payment["timestamp"];
        let unlike_a_time = time.is_f64() || time.as_str().is_some_and(|text| !text.contains('T'));
        prop_assert_eq!(misfit(&SCHEMA, &SCHEMA, &payment).is_none() && !unlike_a_time, read.is_ok(), "{} {:?}", payment, read);
    }
}

#[test]
fn methods_of_the_table_are_those_of_the_document() {
    for route in ROUTES {
        assert!([Method::GET, Method::POST, Method::DELETE].contains(&route.method), "{}: is it shown right?", route.path);
    }
}
