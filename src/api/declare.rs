//! What a route says of itself: the words, parameters, body and answers that `/openapi.json` is made of.
//!
//! A declaration is a constant beside its handler, joined to it in the table of routes. Shapes come from the types that are written and
//! read, so that what is said is what is sent; `tests/contract.rs` holds every answer of every test of the interface against it.

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::problem::Kind;

/// Makes the schema of a type.
pub(crate) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type of ours.
pub(crate) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A parameter of a path or a query.
#[derive(Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// What it is, for a person.
    pub(crate) what: &'static str,
    pub(crate) takes: Takes,
}

/// What a parameter may be.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// Text of so many bytes at most, and at least one.
    Text(usize),
    /// Text of a pattern.
    Pattern(&'static str),
    /// A whole number from one bound to the other.
    Number(i64, i64),
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// Declares a parameter.
pub(crate) const fn parameter(name: &'static str, takes: Takes, what: &'static str) -> Parameter {
    Parameter { name, what, takes }
}

/// One answer that is no problem.
#[derive(Clone, Copy)]
pub(crate) struct Given {
    pub(crate) status: u16,
    /// What it is, for a person.
    pub(crate) what: &'static str,
    pub(crate) content_type: &'static str,
    /// None for what is not JSON.
    pub(crate) shape: Option<Shape>,
}

/// A JSON answer of this type.
pub(crate) const fn gives<T: JsonSchema>(status: u16, what: &'static str) -> Given {
    Given { status, what, content_type: "application/json", shape: Some(of::<T>) }
}

/// An answer of another type than JSON.
pub(crate) const fn gives_other(status: u16, content_type: &'static str, what: &'static str) -> Given {
    Given { status, what, content_type, shape: None }
}

/// See the module's header.
#[derive(Clone, Copy)]
pub(crate) struct Declared {
    /// The part of the interface it belongs to.
    pub(crate) tag: &'static str,
    /// What it does, in one line.
    pub(crate) summary: &'static str,
    /// The rest that a caller has to know.
    pub(crate) details: &'static str,
    /// What the path's placeholder stands for.
    pub(crate) placeholder: Option<Parameter>,
    /// What its query may hold. The three of a wish are added where any instance answers for any user.
    pub(crate) query: &'static [Parameter],
    /// Types of the body, and its shape where it is JSON; none where it is not looked at.
    pub(crate) body: &'static [(&'static str, Option<Shape>)],
    pub(crate) answers: &'static [Given],
    /// Problems of its own. What any route of its kind may say (tokens, bodies, time) is added.
    pub(crate) problems: &'static [Kind],
}

impl Declared {
    /// A route that takes nothing and answers with this.
    pub(crate) const fn new(tag: &'static str, summary: &'static str, answers: &'static [Given]) -> Self {
        Self { tag, summary, details: "", placeholder: None, query: &[], body: &[], answers, problems: &[] }
    }

    /// The rest that a caller has to know.
    pub(crate) const fn details(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    /// What the path's placeholder stands for.
    pub(crate) const fn about(self, placeholder: Parameter) -> Self {
        Self { placeholder: Some(placeholder), ..self }
    }

    /// What its query may hold.
    pub(crate) const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    /// What its body may be.
    pub(crate) const fn body(self, body: &'static [(&'static str, Option<Shape>)]) -> Self {
        Self { body, ..self }
    }

    /// Problems of its own.
    pub(crate) const fn problems(self, problems: &'static [Kind]) -> Self {
        Self { problems, ..self }
    }
}

/// A JSON body of this type.
pub(crate) const fn json<T: JsonSchema>() -> (&'static str, Option<Shape>) {
    ("application/json", Some(of::<T>))
}

/// A time limit of a query, as [`crate::query::Wish`] reads it.
pub(crate) const TIMEOUT: &str = "^([1-9][0-9]{0,3}ms|[12]?[1-9]s)$";

/// A user, in a path.
pub(crate) const USER: Parameter = parameter("user_id", Takes::Text(256), "The user's id, as payments have it.");
