//! `mangrove config`: what is in force and from where.

use serde::Serialize;

use super::{Failure, Output, table};
use crate::config::{Row, Settings};

const EXAMPLES: &str = "\
Examples:
  mangrove config                         as a table
  mangrove config --json | jq '.settings[] | select(.source != \"default\")'
  mangrove config --workers 4             what a flag would change

Secrets are masked.";

/// How to show them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    settings: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    variable: &'a str,
    value: Option<&'a str>,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn of(row: &'a Row) -> Self {
        Self { variable: &row.variable, value: row.value.as_deref(), source: row.origin.to_string(), note: row.note.as_deref() }
    }
}

/// Prints every setting with its source.
///
/// # Errors
/// When standard output fails.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let rows = settings.describe();
    if args.json { Output::stdout().json(&report(&rows)) } else { Output::stdout().line(&human(&rows)) }
}

/// The table, for others to show.
pub(super) fn text(settings: &Settings) -> String {
    human(&settings.describe())
}

fn report(rows: &[Row]) -> Report<'_> {
    Report { settings: rows.iter().map(Entry::of).collect() }
}

fn human(rows: &[Row]) -> String {
    let cells: Vec<[String; 3]> = rows
        .iter()
        .map(|row| {
            let value = row.value.as_deref().unwrap_or("-");
            let value = match &row.note {
                Some(note) => format!("{value} ({note})"),
                None => value.to_owned(),
            };
            [row.variable.clone(), row.origin.to_string(), value]
        })
        .collect();
    table(["SETTING", "FROM", "VALUE"], &cells)
}
