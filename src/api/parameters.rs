//! The parameters of a request's query.

use std::borrow::Cow;

use super::call::decode;
use super::problem::{Kind, Problem};

/// The parameters by name, decoded, in the order given. Only `known` ones, each once: a misspelled one is not passed over.
pub(crate) fn read<'q>(query: &'q str, known: &[&'static str]) -> Result<Vec<(&'static str, Cow<'q, str>)>, Problem> {
    let mut read: Vec<(&'static str, Cow<'q, str>)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(&name) = known.iter().find(|known| **known == name) else {
            return Err(invalid(format!("a parameter is not known; expected {}", known.join(", "))));
        };
        if read.iter().any(|(other, _)| *other == name) {
            return Err(invalid(format!("`{name}` is given twice")));
        }
        let value = decode(value).map_err(|_| invalid(format!("`{name}` has a broken escape")))?;
        read.push((name, value));
    }
    Ok(read)
}

/// A parameter that is wrong.
pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Kind::InvalidParameter, detail)
}
