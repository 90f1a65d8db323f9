//! Which column holds which field.

use std::fmt;
use std::str::FromStr;

use csv::ByteRecord;

use super::Row;
use super::error::{Cell, Problem};
use super::value;

/// More columns than any table of payments has.
pub const COLUMNS_MAX: usize = 4_096;

/// What a column can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// When: RFC 3339, or whole milliseconds since the Unix epoch.
    Timestamp,
    /// When: seconds since the Unix epoch, possibly with a fraction.
    TimestampSeconds,
    /// Who paid.
    UserId,
    /// Who was paid.
    Merchant,
    /// How much.
    Amount,
    /// In what currency.
    Currency,
    /// The payment's own id.
    TxId,
    /// 0 or 1: whether it was fraud.
    Fraud,
}

impl Field {
    /// Every field with its name and the second name that it is known by.
    const ALL: [(Self, &'static str, Option<&'static str>); 8] = [
        (Self::Timestamp, "timestamp", None),
        (Self::TimestampSeconds, "ts_s", None),
        (Self::UserId, "user_id", None),
        (Self::Merchant, "merchant", Some("merchant_id")),
        (Self::Amount, "amount", None),
        (Self::Currency, "currency", None),
        (Self::TxId, "tx_id", None),
        (Self::Fraud, "fraud", None),
    ];

    /// The field of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(field, _, _)| *field)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(field, _, _)| *field == self).map(|(_, name, _)| *name).expect("invariant: every field is listed")
    }

    /// All names, for people.
    pub fn names() -> String {
        Self::ALL.map(|(_, name, _)| name).join(", ")
    }

    fn second_name(self) -> Option<&'static str> {
        Self::ALL.iter().find(|(field, _, _)| *field == self).and_then(|(_, _, second)| *second)
    }
}

/// `column=field`: what a file calls something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The column's name in the header.
    pub column: String,
    /// What it holds.
    pub field: Field,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A column's name may hold `=`; a field's does not.
        let (column, field) = text.rsplit_once('=').ok_or("expected column=field")?;
        let field = Field::from_name(field)
            .ok_or_else(|| format!("there is no field of that name; the fields are {}", Field::names()))?;
        if column.is_empty() {
            return Err("the column has no name".to_owned());
        }
        Ok(Self { column: column.to_owned(), field })
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.column, self.field.name())
    }
}

/// A column: its place and its name in the header.
#[derive(Clone, Debug)]
struct Column {
    index: usize,
    name: String,
}

/// Where each field is.
#[derive(Debug)]
pub(super) struct Columns {
    timestamp: Column,
    timestamp_in_seconds: bool,
    user_id: Column,
    merchant: Column,
    amount: Column,
    currency: Option<Column>,
    tx_id: Option<Column>,
    fraud: Option<Column>,
}

/// Finds columns in one header, and gathers the fields that have none.
struct Search<'a> {
    header: Vec<String>,
    mappings: &'a [Mapping],
}

impl Search<'_> {
    fn named(&self, name: &str) -> Option<Column> {
        let index = self.header.iter().position(|column| column == name)?;
        Some(Column { index, name: name.to_owned() })
    }

    /// The mapped column, else the one of the field's own name, else the one of its second name. A column that was mapped
    /// to another field is no longer what its name says.
    fn field(&self, field: Field) -> Option<Column> {
        if let Some(mapped) = self.mapped(field) {
            return Some(mapped);
        }
        let names = [Some(field.name()), field.second_name()];
        let free = |name: &&str| !self.mappings.iter().any(|mapping| mapping.column == **name);
        names.into_iter().flatten().filter(free).find_map(|name| self.named(name))
    }

    fn mapped(&self, field: Field) -> Option<Column> {
        let mapping = self.mappings.iter().find(|mapping| mapping.field == field)?;
        self.named(&mapping.column)
    }

    /// The column of the time, and whether it is in seconds. Where both are there, a mapping decides, then `timestamp`.
    fn timestamp(&self) -> Option<(Column, bool)> {
        let mapped = |field| self.mapped(field).map(|column| (column, field == Field::TimestampSeconds));
        let named = |field| self.field(field).map(|column| (column, field == Field::TimestampSeconds));
        mapped(Field::Timestamp)
            .or_else(|| mapped(Field::TimestampSeconds))
            .or_else(|| named(Field::Timestamp))
            .or_else(|| named(Field::TimestampSeconds))
    }

    /// What is wrong with header and mappings before any field is looked for.
    fn check(&self) -> Result<(), Problem> {
        if self.header.len() > COLUMNS_MAX {
            return Err(Problem::TooManyColumns { count: self.header.len() });
        }
        let unknown: Vec<String> = self
            .mappings
            .iter()
            .filter(|mapping| !self.header.contains(&mapping.column))
            .map(|mapping| mapping.column.clone())
            .collect();
        if !unknown.is_empty() {
            return Err(Problem::NoSuchColumns { columns: unknown, header: self.header.clone() });
        }
        for (index, Mapping { column, field }) in self.mappings.iter().enumerate() {
            let rest = &self.mappings[index + 1..];
            if rest.iter().any(|other| other.field == *field || other.column == *column) {
                return Err(Problem::MappedTwice { column: column.clone(), field: field.name() });
            }
        }
        if self.mapped(Field::Timestamp).is_some() && self.mapped(Field::TimestampSeconds).is_some() {
            return Err(Problem::MappedTwice { column: "timestamp".to_owned(), field: "ts_s" });
        }
        Ok(())
    }

    /// A column that is used must be the only one of its name.
    fn check_unique(&self, used: &[&Column]) -> Result<(), Problem> {
        let twice = |column: &&&Column| self.header.iter().filter(|name| **name == column.name).count() > 1;
        match used.iter().find(twice) {
            Some(column) => Err(Problem::ColumnTwice { column: column.name.clone(), header: self.header.clone() }),
            None => Ok(()),
        }
    }
}

impl Columns {
    pub(super) fn find(header: &ByteRecord, mappings: &[Mapping]) -> Result<Self, Problem> {
        let name = |(index, bytes): (usize, &[u8])| {
            let text = String::from_utf8_lossy(bytes);
            let text = if index == 0 { text.trim_start_matches('\u{feff}') } else { &text };
            text.trim().to_owned()
        };
        let search = Search { header: header.iter().enumerate().map(name).collect(), mappings };
        search.check()?;
        let timestamp = search.timestamp();
        let [user_id, merchant, amount] = [Field::UserId, Field::Merchant, Field::Amount].map(|f| search.field(f));
        let required = [
            ("timestamp", timestamp.is_some()),
            ("user_id", user_id.is_some()),
            ("merchant", merchant.is_some()),
            ("amount", amount.is_some()),
        ];
        let (Some((timestamp, timestamp_in_seconds)), Some(user_id), Some(merchant), Some(amount)) =
            (timestamp, user_id, merchant, amount)
        else {
            let fields = required.iter().filter(|(_, found)| !found).map(|(name, _)| *name).collect();
            return Err(Problem::MissingFields { fields, header: search.header });
        };
        let [currency, tx_id, fraud] = [Field::Currency, Field::TxId, Field::Fraud].map(|field| search.field(field));
        let optional = [&currency, &tx_id, &fraud];
        let mut used = vec![&timestamp, &user_id, &merchant, &amount];
        used.extend(optional.into_iter().flatten());
        search.check_unique(&used)?;
        Ok(Self { timestamp, timestamp_in_seconds, user_id, merchant, amount, currency, tx_id, fraud })
    }

    /// Takes a row's fields from its record.
    pub(super) fn read<'a>(&self, record: &'a ByteRecord, line: u64) -> Result<Row<'a>, Problem> {
        let time = cell(record, &self.timestamp, line)?;
        let timestamp_ms = if self.timestamp_in_seconds {
            time.parse("seconds since 1970, such as 1700000000 or 1700000000.25", value::seconds)?
        } else {
            time.parse("RFC 3339, such as 2024-02-29T12:00:00Z, or whole milliseconds since 1970", value::timestamp)?
        };
        let fraud = optional(record, self.fraud.as_ref(), line)?;
        Ok(Row {
            line,
            timestamp_ms,
            user_id: cell(record, &self.user_id, line)?.not_empty()?,
            merchant: cell(record, &self.merchant, line)?.not_empty()?,
            amount: cell(record, &self.amount, line)?.parse("a number as in JSON, such as 12.5", value::amount)?,
            currency: optional(record, self.currency.as_ref(), line)?.map(|cell| cell.text),
            tx_id: optional(record, self.tx_id.as_ref(), line)?.map(|cell| cell.text),
            fraud: fraud.map(|cell| cell.parse("0 or 1", value::label)).transpose()?,
        })
    }
}

fn cell<'row, 'column>(record: &'row ByteRecord, column: &'column Column, line: u64) -> Result<Cell<'row, 'column>, Problem> {
    // The csv reader has refused rows that are shorter than the header.
    let bytes = record.get(column.index).unwrap_or_default();
    Cell::new(bytes, &column.name, line)
}

/// A field whose column may be absent and whose cell may be empty.
fn optional<'row, 'column>(
    record: &'row ByteRecord,
    column: Option<&'column Column>,
    line: u64,
) -> Result<Option<Cell<'row, 'column>>, Problem> {
    let Some(column) = column else { return Ok(None) };
    Ok(Some(cell(record, column, line)?).filter(|cell| !cell.text.is_empty()))
}
