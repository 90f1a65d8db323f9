//! Whether a value fits a JSON Schema: as much of 2020-12 as our own schemas use. A keyword that it does not know ends the test, so that
//! nothing is let through unlooked at. A whole validator checks the same answers in `scripts/contract.sh`.

use serde_json::Value;

/// What says something about the schema and nothing about the value.
const WORDS: [&str; 6] = ["$schema", "$id", "$defs", "title", "description", "format"];

/// Why the value does not fit; none where it does. References are looked up in `root`.
pub(super) fn misfit(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let fields = match schema {
        Value::Bool(true) => return None,
        Value::Bool(false) => return Some("nothing fits".to_owned()),
        Value::Object(fields) => fields,
        other => panic!("{other} is no schema"),
    };
    fields.iter().find_map(|(keyword, says)| {
        let why = misfits(root, fields, keyword, says, value)?;
        Some(format!("{keyword}: {why}"))
    })
}

fn misfits(root: &Value, schema: &serde_json::Map<String, Value>, keyword: &str, says: &Value, value: &Value) -> Option<String> {
    let unless = |fits: bool| (!fits).then(|| format!("{value} is not {says}"));
    let within = |name: &str, value: &Value, schema: &Value| misfit(root, schema, value).map(|why| format!("{name}/{why}"));
    let list = || says.as_array().expect("a list");
    let fitting = || list().iter().filter(|schema| misfit(root, schema, value).is_none()).count();
    let bound = || says.as_f64().expect("a number");
    match keyword {
        "$ref" => {
            let pointer = says.as_str().and_then(|to| to.strip_prefix('#')).expect("a reference within the document");
            misfit(root, root.pointer(pointer).unwrap_or_else(|| panic!("{says} leads nowhere")), value)
        }
        "type" => unless(match says {
            Value::Array(types) => types.iter().any(|of| is(of.as_str(), value)),
            of => is(of.as_str(), value),
        }),
        "const" => unless(value == says),
        "enum" => unless(list().contains(value)),
        "allOf" => list().iter().find_map(|schema| misfit(root, schema, value)),
        "anyOf" => unless(fitting() > 0),
        "oneOf" => unless(fitting() == 1),
        "required" => {
            let object = value.as_object()?;
            list()
                .iter()
                .find(|name| !object.contains_key(name.as_str().expect("a name")))
                .map(|name| format!("{name} in {value}"))
        }
        "properties" => {
            let known = says.as_object().expect("schemas by name");
            value.as_object()?.iter().find_map(|(name, value)| within(name, value, known.get(name)?))
        }
        "additionalProperties" => {
            let known = schema.get("properties").and_then(Value::as_object);
            let others = value.as_object()?.iter().filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)));
            others.map(|(name, value)| within(name, value, says)).find_map(|why| why)
        }
        "items" => value.as_array()?.iter().enumerate().find_map(|(at, value)| within(&at.to_string(), value, says)),
        "minItems" => unless(value.as_array()?.len() as f64 >= bound()),
        "maxItems" => unless(value.as_array()?.len() as f64 <= bound()),
        "minLength" => unless(value.as_str()?.chars().count() as f64 >= bound()),
        "maxLength" => unless(value.as_str()?.chars().count() as f64 <= bound()),
        "minimum" => unless(value.as_f64()? >= bound()),
        "maximum" => unless(value.as_f64()? <= bound()),
        "default" => None,
        known if WORDS.contains(&known) => None,
        other => panic!("{other} is a keyword that this does not know"),
    }
}

fn is(of: Option<&str>, value: &Value) -> bool {
    match of.expect("a type's name") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}
