//! The shapes on the wire as JSON Schema: `GET /schemas/{name}.json` and `mangrove schema NAME`.

use models::transaction::{CURRENCY_BYTES_MAX, NAME_BYTES_MAX};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::api::call::{Answer, Call};
use crate::api::declare::{Declared, Parameter, Shape, Takes, gives_other, of, parameter};
use crate::api::problem::{self, Kind, Problem};
use crate::api::reply::Reply;
use crate::labels::Written;
use crate::scoring::Command;

/// Bounds that more than one shape has. JSON Schema counts characters where the readers count bytes: a text beyond ASCII may be refused
/// though its schema lets it through.
const NAME: usize = NAME_BYTES_MAX;

/// A payment, as `transactions` has it.
#[derive(JsonSchema)]
#[schemars(rename = "transaction")]
#[allow(dead_code, reason = "the shape of what models::Transaction reads without a type of its own on the way")]
pub(crate) struct Transaction {
    /// Who pays.
    #[schemars(length(min = 1, max = NAME))]
    user_id: String,
    #[schemars(flatten)]
    payment: Payment,
}

/// A payment without who pays: as `POST /v1/inference` takes it.
#[derive(JsonSchema)]
#[schemars(rename = "payment")]
#[allow(dead_code, reason = "see Transaction")]
pub(crate) struct Payment {
    /// How much, in the currency's units.
    #[schemars(range(min = 0.0, max = 1e12))]
    amount: f64,
    /// Who is paid.
    #[schemars(length(min = 1, max = NAME))]
    merchant: String,
    /// The sender's own id of the payment; the verdict's id where it is absent.
    #[schemars(length(min = 1, max = NAME))]
    tx_id: Option<String>,
    /// Code of the currency.
    #[schemars(length(min = 1, max = CURRENCY_BYTES_MAX))]
    currency: Option<String>,
    timestamp: Option<Timestamp>,
}

/// When it happened: RFC 3339, or milliseconds since the epoch. Absent, it is the record's time.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[allow(dead_code, reason = "see Transaction")]
enum Timestamp {
    /// RFC 3339.
    Text(#[schemars(extend("format" = "date-time"))] String),
    /// Milliseconds since the epoch, before the year 10000.
    Milliseconds(#[schemars(range(min = 0, max = 253_402_300_799_999_i64))] i64),
}

/// Every published shape.
const PUBLISHED: [(&str, Shape); 5] = [
    ("transaction", of::<Transaction>),
    ("verdict", of::<models::Verdict>),
    ("label", of::<Written>),
    ("command", of::<Command>),
    ("problem", of::<problem::Body<'static>>),
];

/// Names of the published shapes.
pub fn published_names() -> impl Iterator<Item = &'static str> {
    PUBLISHED.iter().map(|(name, _)| *name)
}

/// The JSON Schema (2020-12) of a shape on the wire; none where no shape has this name.
#[must_use]
pub fn published(name: &str) -> Option<Value> {
    let (_, shape) = PUBLISHED.iter().find(|(known, _)| *known == name)?;
    // As read where senders are others, which is where it is wider.
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let root: Schema = shape(&mut generator);
    let definitions = generator.take_definitions(true);
    let mut schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": format!("/schemas/{name}.json")});
    let of_root = root.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/$defs/"));
    let own = of_root.and_then(|own| definitions.get(own)).unwrap_or(root.as_value());
    let others = definitions.iter().filter(|(known, _)| Some(known.as_str()) != of_root);
    let others: serde_json::Map<_, _> = others.map(|(name, schema)| (name.clone(), schema.clone())).collect();
    if let (Some(into), Some(own)) = (schema.as_object_mut(), own.as_object()) {
        into.extend(own.clone());
        if !others.is_empty() {
            into.insert("$defs".to_owned(), others.into());
        }
    }
    Some(schema)
}

const NAME_OF: Parameter = parameter(
    "name",
    Takes::OneOf(&["transaction.json", "verdict.json", "label.json", "command.json", "problem.json"]),
    "The shape's name.",
);

/// The route's declaration.
pub(crate) const SCHEMA: Declared = Declared::new(
    "Interface",
    "The JSON Schema of a shape on the wire",
    &[gives_other(200, "application/schema+json", "The schema.")],
)
.about(NAME_OF)
.problems(&[Kind::NoSuchRoute]);

/// Answers the route.
pub(crate) fn schema(call: &Call) -> Answer {
    let schema = call.name.strip_suffix(".json").and_then(published);
    let schema = schema.ok_or_else(|| Problem::new(Kind::NoSuchRoute, "no shape has this name"))?;
    Ok(Reply::json(hyper::StatusCode::OK, &schema).of_type("application/schema+json"))
}
