//! What is remembered of rows: days, and numbers for names.

use std::collections::HashMap;

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 86_400_000;

/// Small numbers for names, in the order of first use.
#[derive(Debug, Default)]
pub(super) struct Numbers(HashMap<String, u32>);

impl Numbers {
    pub(super) fn of(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.0.get(name) {
            return number;
        }
        let number = self.0.len() as u32;
        self.0.insert(name.to_owned(), number);
        number
    }
}
