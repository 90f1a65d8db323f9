//! The document of a table of routes: what `GET /openapi.json` gives.

use std::collections::BTreeMap;

use hyper::Method;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::api::auth::Access;
use crate::api::declare::{self, Declared, Given, Parameter, TIMEOUT, Takes, parameter};
use crate::api::problem::{self, Kind};
use crate::api::route::{Route, Run};
use crate::query::Wish;

/// Parameters of routes about one user.
const WISH: [Parameter; 3] = [
    parameter(
        Wish::PARAMETERS[0],
        Takes::OneOf(&["owner", "any"]),
        "`owner` (default): the partition's owner answers, or nobody does. `any`: a standby may where the owner gives no answer.",
    ),
    parameter(
        Wish::PARAMETERS[1],
        Takes::Pattern("^[0-9]{1,9}:[0-9]{1,15}(,[0-9]{1,9}:[0-9]{1,15})*$"),
        "`partition:offset`, with commas between several: the answer includes every input record of the partition before that offset. \
         Entries of other partitions are passed over.",
    ),
    parameter(
        Wish::PARAMETERS[2],
        Takes::Pattern(TIMEOUT),
        "For the position to be reached and others to answer: `250ms` or `2s`, 30 s at most; 5 s unless given.",
    ),
];

/// The document of these routes.
pub(crate) fn of(routes: &[Route]) -> Value {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut written = settings.clone().into_generator();
    // What is read may be given in more ways than it is written: it stays beside its route, and names mean what is written.
    let mut read = settings.for_deserialize().with(|settings| settings.inline_subschemas = true).into_generator();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in routes {
        let Some(declared) = route.declared else { continue };
        let operation = operation(route, declared, &mut read, &mut written);
        paths.entry(template(route.path, declared)).or_default().insert(route.method.as_str().to_ascii_lowercase(), operation);
    }
    let schemas = written.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mangrove",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Scores every payment as it happens.",
            "description": "Errors are problems (RFC 9457); each kind is explained at its `type`. Every answer about a user says \
                which committed state it is about: `position`, `source` and `age_ms`. Every answer bears `x-request-id`, which the log has.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of API_TOKENS; `mangrove token new` makes one. Its scopes are query, write, erase and admin. An \
                    instance without tokens answers its own machine only, and needs none.",
            }},
        },
    })
}

/// The path with its placeholder's name.
pub(crate) fn template(path: &str, declared: &Declared) -> String {
    match declared.placeholder {
        Some(Parameter { name, .. }) => path.replace("{}", &format!("{{{name}}}")),
        None => path.to_owned(),
    }
}

fn operation(route: &Route, declared: &Declared, read: &mut SchemaGenerator, written: &mut SchemaGenerator) -> Value {
    let anywhere = matches!(route.run, Run::Anywhere(_) | Run::AnywhereOf(_));
    let of_query = declared.query.iter().chain(WISH.iter().filter(|_| anywhere));
    let parameters: Vec<Value> = declared
        .placeholder
        .iter()
        .map(|placeholder| shown(placeholder, "path"))
        .chain(of_query.map(|parameter| shown(parameter, "query")))
        .collect();
    let mut operation = json!({
        "tags": [declared.tag],
        "summary": declared.summary,
        "operationId": operation_id(route),
        "parameters": parameters,
        "responses": responses(route, declared, written),
    });
    if !declared.details.is_empty() {
        operation["description"] = declared.details.into();
    }
    if !declared.body.is_empty() {
        let content = declared.body.iter().map(|(content_type, shape)| {
            let schema = shape.map_or_else(|| json!({"type": "string"}), |shape| shape(read).to_value());
            ((*content_type).to_owned(), json!({"schema": schema}))
        });
        operation["requestBody"] = json!({"required": !route.bodiless, "content": content.collect::<Map<_, _>>()});
    }
    operation["security"] = match route.access {
        Access::Open => json!([]),
        Access::Needs(scope) => json!([{"token": [scope.to_string()]}]),
    };
    operation
}

/// `get_v1_users_profile`: stable as long as the path is.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let method = route.method.as_str().to_ascii_lowercase();
    let named = if route.path.ends_with("{}") { Some("one") } else { None };
    std::iter::once(method.as_str()).chain(words).chain(named).collect::<Vec<_>>().join("_")
}

fn shown(parameter: &Parameter, place: &str) -> Value {
    let schema = match parameter.takes {
        Takes::Text(bytes) => json!({"type": "string", "minLength": 1, "maxLength": bytes}),
        Takes::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
        Takes::Number(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        Takes::OneOf(words) => json!({"type": "string", "enum": words}),
    };
    json!({
        "name": parameter.name,
        "in": place,
        "required": place == "path",
        "description": parameter.what,
        "schema": schema,
    })
}

fn responses(route: &Route, declared: &Declared, written: &mut SchemaGenerator) -> Value {
    let mut by_status: BTreeMap<String, Value> = BTreeMap::new();
    for Given { status, what, content_type, shape } in declared.answers {
        let schema = shape.map(|shape| shape(written).to_value());
        let media = schema.map_or_else(|| json!({}), |schema| json!({"schema": schema}));
        let response = by_status.entry(status.to_string()).or_insert_with(|| json!({"description": what, "content": {}}));
        response["content"][*content_type] = media;
    }
    let problem = declare::of::<problem::Body<'static>>(written).to_value();
    let mut kinds: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
    for kind in declared.problems.iter().copied().chain(common(route, declared)) {
        let of_status = kinds.entry(kind.status().as_u16().to_string()).or_default();
        if !of_status.contains(&kind) {
            of_status.push(kind);
        }
    }
    for (status, kinds) in kinds {
        let words: Vec<String> = kinds.iter().map(|kind| format!("`{}`: {}.", kind.name(), kind.title())).collect();
        let response = by_status.entry(status).or_insert_with(|| json!({"description": "", "content": {}}));
        let before = response["description"].as_str().unwrap_or_default();
        let description = [before, &words.join(" ")].join(" ");
        response["description"] = description.trim_start().into();
        response["content"]["application/problem+json"] = json!({"schema": problem});
    }
    by_status.into_iter().collect::<Map<_, _>>().into()
}

/// Problems that any route of the kind may have.
fn common(route: &Route, declared: &Declared) -> Vec<Kind> {
    let mut kinds = Vec::new();
    if declared.placeholder.is_some() {
        kinds.push(Kind::BadPath);
    }
    if !declared.query.is_empty() {
        kinds.push(Kind::InvalidParameter);
    }
    if route.access != Access::Open {
        kinds.extend([Kind::Unauthorized, Kind::Forbidden, Kind::NotLocal, Kind::RateLimited]);
    }
    if !route.method.is_safe() {
        kinds.extend([Kind::CrossSite, Kind::RateLimited, Kind::AuditUnavailable]);
    }
    if route.method == Method::POST {
        kinds.extend([Kind::BrokenBody, Kind::RequestTimeout, Kind::BodyTooLarge, Kind::UnsupportedMediaType]);
    }
    if !declared.body.is_empty() {
        kinds.extend([Kind::NotJson, Kind::InvalidRequest]);
    }
    if !matches!(route.run, Run::Here(_)) {
        kinds.extend([Kind::TooManyRequests, Kind::Internal, Kind::TooSlow]);
    }
    if matches!(route.run, Run::Anywhere(_)) {
        kinds.push(Kind::InvalidUserId);
    }
    if matches!(route.run, Run::Anywhere(_) | Run::AnywhereOf(_)) {
        kinds.extend([Kind::InvalidParameter, Kind::NotHere, Kind::Moving, Kind::OwnerUnreachable]);
        kinds.extend([Kind::PositionNotReached, Kind::Restoring, Kind::StateUnavailable]);
    }
    kinds
}
