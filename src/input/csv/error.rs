//! What is wrong with a file, for the person who has to mend it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::shorten;

/// A file that cannot be read as payments.
#[derive(Debug)]
pub struct InputError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Debug)]
pub enum Problem {
    /// The bytes cannot be had, or are not what gzip makes.
    Unreadable(io::Error),
    /// The header has more columns than any table of payments.
    TooManyColumns {
        /// How many.
        count: usize,
    },
    /// No column holds these fields.
    MissingFields {
        /// All of them.
        fields: Vec<&'static str>,
        /// The header as found.
        header: Vec<String>,
    },
    /// A mapping names columns that are not there.
    NoSuchColumns {
        /// All of them.
        columns: Vec<String>,
        /// The header as found.
        header: Vec<String>,
    },
    /// Two mappings contradict each other.
    MappedTwice {
        /// The column of the first.
        column: String,
        /// Its field.
        field: &'static str,
    },
    /// A column that is used has another of the same name beside it.
    ColumnTwice {
        /// The name.
        column: String,
        /// The header as found.
        header: Vec<String>,
    },
    /// A row has more or fewer cells than the header.
    CellCount {
        /// The line it begins on.
        line: u64,
        /// How many it has.
        found: u64,
        /// How many the header has.
        expected: u64,
    },
    /// A cell does not hold what its field needs.
    Cell {
        /// The line its row begins on.
        line: u64,
        /// The column's name in the header.
        column: String,
        /// The start of what it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
}

impl InputError {
    pub(super) fn new(path: &Path, problem: Problem) -> Self {
        Self { path: path.to_owned(), problem }
    }

    pub(super) fn of_csv(path: &Path, error: csv::Error) -> Self {
        let line = error.position().map_or(1, csv::Position::line);
        let problem = match error.into_kind() {
            csv::ErrorKind::Io(error) => Problem::Unreadable(error),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                Problem::CellCount { line, found: len, expected: expected_len }
            }
            // Byte records are neither decoded nor deserialised nor sought in, so no other kind comes up.
            other => Problem::Unreadable(io::Error::other(format!("line {line}: {other:?}"))),
        };
        Self::new(path, problem)
    }

    /// What to try, where there is something to try.
    pub fn hint(&self) -> Option<String> {
        match &self.problem {
            Problem::MissingFields { fields, .. } => {
                let maps: Vec<String> = fields.iter().map(|field| format!("--map COLUMN={field}")).collect();
                Some(format!("say which columns hold them: {}", maps.join(" ")))
            }
            Problem::NoSuchColumns { .. } => Some("--map takes the column first: --map COLUMN=FIELD".to_owned()),
            _ => None,
        }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            Problem::Unreadable(error) => write!(f, "{path}: cannot be read: {error}"),
            Problem::TooManyColumns { count } => {
                write!(f, "{path}: the header has {count} columns; at most {} are read", super::COLUMNS_MAX)
            }
            Problem::MissingFields { fields, header } => {
                let fields = fields.join(", ");
                write!(f, "{path}: no column for {fields}; the header is: {}", Header(header))
            }
            Problem::NoSuchColumns { columns, header } => {
                write!(f, "{path}: no column is called {}; the header is: {}", Header(columns), Header(header))
            }
            Problem::MappedTwice { column, field } => {
                write!(f, "--map: the column `{}` or the field {field} is mapped twice", shorten(column))
            }
            Problem::ColumnTwice { column, header } => {
                write!(f, "{path}: two columns are called `{}`; the header is: {}", shorten(column), Header(header))
            }
            Problem::CellCount { line, found, expected } => {
                write!(f, "{path}:{line}: the row has {found} cells, the header {expected}")
            }
            Problem::Cell { line, column, found, expected } => {
                let column = shorten(column);
                write!(f, "{path}:{line}: column `{column}`: expected {expected}, found `{found}`")
            }
        }
    }
}

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}

/// Columns' names, not too many of them and each not too long.
struct Header<'a>(&'a [String]);

impl fmt::Display for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 40;
        let shown: Vec<String> = self.0.iter().take(SHOWN_MAX).map(|name| shorten(name)).collect();
        f.write_str(&shown.join(", "))?;
        if self.0.len() > SHOWN_MAX { write!(f, " and {} more", self.0.len() - SHOWN_MAX) } else { Ok(()) }
    }
}

/// One cell with what is needed to complain about it.
#[derive(Clone, Copy)]
pub(super) struct Cell<'text, 'column> {
    pub(super) text: &'text str,
    column: &'column str,
    line: u64,
}

impl<'text, 'column> Cell<'text, 'column> {
    pub(super) fn new(bytes: &'text [u8], column: &'column str, line: u64) -> Result<Self, Problem> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text: text.trim(), column, line }),
            Err(_) => {
                let lossy = String::from_utf8_lossy(bytes);
                Err(Cell { text: &lossy, column, line }.problem("text in UTF-8"))
            }
        }
    }

    pub(super) fn not_empty(self) -> Result<&'text str, Problem> {
        if self.text.is_empty() { Err(self.problem("something other than an empty cell")) } else { Ok(self.text) }
    }

    pub(super) fn parse<T>(self, expected: &'static str, read: fn(&str) -> Option<T>) -> Result<T, Problem> {
        read(self.text).ok_or_else(|| self.problem(expected))
    }

    #[cold]
    fn problem(self, expected: &'static str) -> Problem {
        Problem::Cell { line: self.line, column: self.column.to_owned(), found: shorten(self.text), expected }
    }
}
