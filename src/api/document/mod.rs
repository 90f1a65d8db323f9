//! The interface as a document: `/openapi.json` (OpenAPI 3.1), the page at `/docs` that shows it, and the shapes on the wire as JSON
//! Schema at `/schemas/{name}.json`.
//!
//! All of it is made from the code: routes and their declarations from the table, schemas from the types, problems from their closed set.

mod openapi;
mod pages;
mod shapes;

pub(crate) use openapi::of;
#[cfg(test)]
pub(crate) use openapi::template;
pub(crate) use pages::{ASSET, PAGE, asset, page};
pub(crate) use shapes::{Payment, SCHEMA, Transaction, schema};
pub use shapes::{published, published_names};
