//! Picks the text of one setting after another from the sources and has it parsed.
//!
//! Invariant: for each declared setting there is exactly one row (it was read) or at least one fault (it was not).

use super::declare::{Declaration, Fallback};
use super::describe::Row;
use super::fault::Fault;
use super::origin::Origin;
use super::parse::Parser;
use super::source::Texts;

/// Reads settings and gathers what is wrong.
pub(super) struct Reader<'a> {
    declarations: &'static [Declaration],
    texts: &'a Texts,
    faults: &'a mut Vec<Fault>,
    rows: Vec<Row>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(declarations: &'static [Declaration], texts: &'a Texts, faults: &'a mut Vec<Fault>) -> Self {
        Self { declarations, texts, faults, rows: Vec::with_capacity(declarations.len()) }
    }

    /// Reads one setting; none where it is wrong, which is noted.
    pub(super) fn read<P: Parser>(&mut self, variable: &'static str) -> Option<P::Value> {
        let declaration = self
            .declarations
            .iter()
            .find(|declaration| declaration.variable == variable)
            .expect("invariant: the macro that calls this wrote the declaration");
        let (text, origin) = match self.text(declaration) {
            Ok(found) => found,
            Err(problem) => {
                self.faults.push(Fault::hidden(variable, Origin::Default, problem, P::expected()));
                return None;
            }
        };
        match P::read(&text) {
            Ok(value) => {
                self.rows.push(Row::of_setting(declaration, &text, origin));
                Some(value)
            }
            Err(problem) => {
                self.faults.push(if declaration.secret {
                    Fault::hidden(variable, origin, problem, P::expected())
                } else {
                    Fault::of_value(variable, origin, &text, problem, P::expected())
                });
                None
            }
        }
    }

    /// The text in force and where it is from, or why its default is not known; an unset setting's text is empty.
    fn text(&self, declaration: &Declaration) -> Result<(String, Origin), String> {
        if let Some(found) = self.texts.get(declaration.variable) {
            return Ok(found.clone());
        }
        let text = match declaration.fallback {
            Fallback::Text(text) => text.to_owned(),
            Fallback::Unset { .. } => String::new(),
            Fallback::Prefixed(name) => {
                let prefix = self.texts.get("TOPIC_PREFIX").map_or("", |(prefix, _)| prefix.as_str());
                // A wrong prefix is one fault of its own, not one more for each topic.
                let usable = super::parse::NamePart::<0>::read(prefix).is_ok();
                format!("{}{name}", if usable { prefix } else { "" })
            }
            Fallback::Found { words, find } => find().map_err(|problem| format!("cannot be derived from {words} ({problem})"))?,
        };
        Ok((text, Origin::Default))
    }

    /// The rows read so far.
    pub(super) fn take_rows(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }
}
