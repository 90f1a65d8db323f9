//! What somebody who tries again and again says of a trouble: that it begins, that it becomes another one, not each attempt.

use std::fmt::Display;

/// The trouble that was told last, as long as it lasts.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Option<String>);

impl Trouble {
    /// True where this is not what was told last; from now on it is.
    pub(crate) fn is_news(&mut self, why: &dyn Display) -> bool {
        let why = why.to_string();
        let is_news = self.0.as_ref() != Some(&why);
        self.0 = Some(why);
        is_news
    }

    /// The next one is news, whatever it is.
    pub(crate) fn is_over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_when_it_begins_and_when_it_becomes_another() {
        let mut trouble = Trouble::default();
        let told: Vec<bool> = ["a", "a", "b", "b", "a"].iter().map(|why| trouble.is_news(why)).collect();
        assert_eq!(told, [true, false, true, false, true]);
        trouble.is_over();
        assert!(trouble.is_news(&"a"));
    }
}
