//! Rates of exchange: a fixed table, read at start.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use models::verdict::Fx;

/// Units of the base currency per unit of each currency.
#[derive(Clone, Debug, PartialEq)]
pub struct FxTable {
    base: String,
    rates: BTreeMap<String, f64>,
}

/// Why a file is no table of rates.
#[derive(Debug, thiserror::Error)]
pub enum FxError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// It is not a JSON object of numbers.
    #[error("it is not a JSON object of currency codes and rates: {0}")]
    Shape(#[from] serde_json::Error),
    /// A rate that no money has.
    #[error("the rate of {0} must be a finite number above 0")]
    Rate(String),
}

impl FxTable {
    /// Reads a JSON object, currency code -> units of `base`. The base itself is 1 where the file does not say.
    ///
    /// # Errors
    /// [`FxError`] says what is wrong with the file.
    pub fn read(path: &Path, base: &str) -> Result<Self, FxError> {
        Self::parse(&std::fs::read(path)?, base)
    }

    /// As [`Self::read`], from bytes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(json: &[u8], base: &str) -> Result<Self, FxError> {
        let mut rates: BTreeMap<String, f64> = serde_json::from_slice(json)?;
        if let Some((code, _)) = rates.iter().find(|(_, rate)| !(rate.is_finite() && **rate > 0.0)) {
            return Err(FxError::Rate(code.clone()));
        }
        rates.entry(base.to_owned()).or_insert(1.0);
        Ok(Self { base: base.to_owned(), rates })
    }

    /// The amount in the base currency; none where the table lacks the currency. A payment that names none is in the base currency.
    #[must_use]
    pub fn convert(&self, amount: f64, currency: Option<&str>) -> Option<Fx> {
        let rate = *self.rates.get(currency.unwrap_or(&self.base))?;
        Some(Fx { base: self.base.clone(), rate, amount: amount * rate })
    }

    /// The table that a label names; none where it is none.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        let mut words = label.split(' ');
        let base = words.next().filter(|base| !base.is_empty())?.to_owned();
        let rate = |word: &str| {
            // A code may hold a '=', a number may not.
            let (code, rate) = word.rsplit_once('=')?;
            let rate = rate.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0)?;
            Some((code.to_owned(), rate))
        };
        let rates = words.map(rate).collect::<Option<BTreeMap<String, f64>>>()?;
        Some(Self { base, rates })
    }

    /// Names this very table in decisions: base and rates, in order.
    #[must_use]
    pub fn label(&self) -> String {
        let mut label = self.base.clone();
        for (code, rate) in &self.rates {
            let _ = write!(label, " {code}={rate}");
        }
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_known_currencies_only() {
        let table = FxTable::parse(br#"{"EUR":1.25,"JPY":0.0066}"#, "USD").expect("a table");
        assert_eq!(table.convert(10.0, Some("EUR")).map(|fx| fx.amount), Some(12.5));
        assert_eq!(table.convert(10.0, None).map(|fx| fx.amount), Some(10.0));
        assert_eq!(table.convert(10.0, Some("GBP")), None);
        assert_eq!(table.label(), "USD EUR=1.25 JPY=0.0066 USD=1");
        assert_eq!(FxTable::from_label(&table.label()), Some(table), "a decision brings the very table back");
        assert!([" EUR=1", "USD EUR", "USD EUR=x", "USD EUR=0"].iter().all(|label| FxTable::from_label(label).is_none()));
    }

    #[test]
    fn refuses_rates_that_no_money_has() {
        for json in [r#"{"EUR":0}"#, r#"{"EUR":-1}"#, r#"{"EUR":"1"}"#, "[]", "{"] {
            assert!(FxTable::parse(json.as_bytes(), "USD").is_err(), "{json}");
        }
    }
}
