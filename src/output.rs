//! Results on standard output.
//!
//! A reader that closes the pipe (`mangrove config | head -1`) is not a failure: what is left is not written.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Where a command's result goes.
pub struct Output<W = io::StdoutLock<'static>> {
    writer: W,
    closed: bool,
}

impl Output {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::new(io::stdout().lock())
    }
}

impl<W: Write> Output<W> {
    /// Any writer, for tests.
    pub fn new(writer: W) -> Self {
        Self { writer, closed: false }
    }

    /// True once the reader has closed the pipe: nothing that is written arrives any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes a text and the end of its line.
    ///
    /// # Errors
    /// When the output fails other than by being closed.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        match writeln!(self.writer, "{text}").and_then(|()| self.writer.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::new("cannot write to standard output").caused_by(error)),
        }
    }

    /// Writes one JSON value over several lines.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new("cannot make JSON of the result").caused_by(error))?;
        self.line(&text)
    }
}

/// Lines up columns under their headings, two blanks apart.
pub fn table<const COLUMNS: usize>(headings: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; COLUMNS]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        line.truncate(line.trim_end().len());
        line
    };
    let heading = std::iter::once(line(headings));
    let body = rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    heading.chain(body).collect::<Vec<_>>().join("\n")
}
