//! Past payments from a CSV file, possibly compressed by gzip, one row at a time.
//!
//! The first line is the header. A field is found by its own name, by a second name it is known by (`merchant_id`,
//! `ts_s`), or by a mapping; a mapping wins over the field's own name, which wins over the second name. Columns that hold
//! no field are not looked at.
//!
//! Limits: a header of at most [`COLUMNS_MAX`] columns; rows are as long as memory allows, since the file is the user's own.
//! Invariants: an amount is the double nearest to its text, as in JSON; a row borrows the reader's one buffer, so reading
//! allocates nothing per row; errors name file, line and column and repeat at most 40 characters of a value. After an
//! error in a row the reader stands at the next one.

mod columns;
mod error;
mod value;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use csv::ByteRecord;
use flate2::bufread::MultiGzDecoder;

pub use columns::{COLUMNS_MAX, Field, Mapping};
pub use error::{InputError, Problem};

use columns::Columns;

/// Enough that reading costs few system calls.
const BUFFER_BYTES: usize = 256 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// One payment of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    /// The line it begins on, from 1; the header is line 1.
    pub line: u64,
    /// When it happened, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Who paid.
    pub user_id: &'a str,
    /// Who was paid.
    pub merchant: &'a str,
    /// How much.
    pub amount: f64,
    /// In what currency, where the file says.
    pub currency: Option<&'a str>,
    /// The payment's own id, where the file says.
    pub tx_id: Option<&'a str>,
    /// Whether it was found to be fraud, where the file says.
    pub fraud: Option<bool>,
}

impl Row<'_> {
    /// Appends the payment as JSON, as a producer would have sent it. Numbers keep their shortest form, so the amount is the very same
    /// f64 after decoding.
    pub(crate) fn write_json(&self, json: &mut Vec<u8>) {
        let text = |json: &mut Vec<u8>, name: &str, value: &str| {
            let _ = write!(json, ",\"{name}\":");
            serde_json::to_writer(&mut *json, value).expect("invariant: writing to memory does not fail");
        };
        json.extend_from_slice(b"{\"amount\":");
        serde_json::to_writer(&mut *json, &self.amount).expect("invariant: writing to memory does not fail");
        let _ = write!(json, ",\"timestamp\":{}", self.timestamp_ms);
        text(json, "user_id", self.user_id);
        text(json, "merchant", self.merchant);
        for (name, value) in [("currency", self.currency), ("tx_id", self.tx_id)] {
            if let Some(value) = value {
                text(json, name, value);
            }
        }
        json.push(b'}');
    }
}

/// Reads rows.
pub struct Reader {
    path: PathBuf,
    rows: csv::Reader<Box<dyn Read + Send>>,
    columns: Columns,
    record: ByteRecord,
}

impl Reader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When the file cannot be opened, or its header lacks a field, names one twice, or lacks a mapped column.
    pub fn open(path: &Path, mappings: &[Mapping]) -> Result<Self, InputError> {
        let failed = |error| InputError::new(path, Problem::Unreadable(error));
        let file = File::open(path).map_err(failed)?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        // The content decides, not the name: a renamed file is still what it is.
        let compressed = file.fill_buf().map_err(failed)?.starts_with(&GZIP_MAGIC);
        let bytes: Box<dyn Read + Send> = if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Self::new(path, bytes, mappings)
    }

    /// Reads rows from anything; `path` is only its name in errors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(path: &Path, bytes: Box<dyn Read + Send>, mappings: &[Mapping]) -> Result<Self, InputError> {
        let mut rows = csv::ReaderBuilder::new().has_headers(true).buffer_capacity(BUFFER_BYTES).from_reader(bytes);
        let header = rows.byte_headers().map_err(|error| InputError::of_csv(path, error))?;
        let columns = Columns::find(header, mappings).map_err(|problem| InputError::new(path, problem))?;
        Ok(Self { path: path.to_owned(), rows, columns, record: ByteRecord::new() })
    }

    /// The next row; none at the end of the file.
    ///
    /// # Errors
    /// When the row is not CSV or one of its fields is not what it should be. Reading may go on with the next row, except
    /// after [`Problem::Unreadable`].
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>, InputError> {
        let more = self.rows.read_byte_record(&mut self.record);
        if !more.map_err(|error| InputError::of_csv(&self.path, error))? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line);
        match self.columns.read(&self.record, line) {
            Ok(row) => Ok(Some(row)),
            Err(problem) => Err(InputError::new(&self.path, problem)),
        }
    }
}

#[cfg(test)]
mod tests;
