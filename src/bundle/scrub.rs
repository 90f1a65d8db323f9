//! Takes secrets and user ids out of text.
//!
//! Three nets, since a log may hold what no rule foresees: secrets and ids that are known are masked wherever they stand; values behind
//! names that tell of secrets or persons are masked whatever they are; so are addresses of mail, and long numbers as cards have.

use std::collections::HashSet;

use crate::config::{MASK, mask_passwords};

/// Stands in for a person.
const SOMEBODY: &str = "[user]";
/// Names behind which a value tells of a person or a payment.
const PERSONAL: [&str; 12] =
    ["user", "user_id", "userid", "users", "key", "subject", "customer", "merchant", "tx_id", "email", "card", "account"];
/// Names behind which a value is a secret.
const SECRET: [&str; 8] = ["password", "passwd", "secret", "token", "tokens", "authorization", "bearer", "apikey"];
/// Digits of a number that may be a card's or an account's.
const CARD_DIGITS: usize = 14;
/// A known secret that is shorter would mask half of the text.
const SECRET_MIN: usize = 4;

/// What is known to be masked, beside the rules.
#[derive(Clone, Default)]
pub struct Scrub {
    secrets: Vec<String>,
    ids: HashSet<String>,
}

impl Scrub {
    /// With secrets and user ids that are known.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = String>, ids: impl IntoIterator<Item = String>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| secret.len() >= SECRET_MIN).collect();
        Self { secrets, ids: ids.into_iter().filter(|id| !id.is_empty()).collect() }
    }

    /// The text without them.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), MASK);
        }
        let text = mask_passwords(&text);
        let mut out = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            self.line(line, &mut out);
        }
        out
    }

    fn line(&self, line: &str, out: &mut String) {
        // The last name, and what stands between it and the present word.
        let (mut name, mut between) = (String::new(), String::new());
        let mut rest = line;
        while let Some(begin) = rest.find(is_word) {
            let (gap, after) = rest.split_at(begin);
            out.push_str(gap);
            between.push_str(gap);
            let end = after.find(|c| !is_word(c)).unwrap_or(after.len());
            // A sentence's full stop is not part of its last word.
            let word = after[..end].trim_end_matches('.');
            match self.judge(&name, &between, word) {
                None => {
                    out.push_str(word);
                    rest = &after[word.len()..];
                    name = word.to_ascii_lowercase();
                    between.clear();
                    // Dots of a shortened text, say.
                    let dots = rest.len() - rest.trim_start_matches('.').len();
                    out.push_str(&rest[..dots]);
                    rest = &rest[dots..];
                }
                Some(mask) => {
                    out.push_str(mask);
                    rest = &after[value_end(gap, &name, after, word.len())..];
                    // In a list all that follows belongs to the same name.
                    if !between.contains('[') {
                        name.clear();
                        between.clear();
                    }
                }
            }
        }
        out.push_str(rest);
    }

    fn judge(&self, name: &str, between: &str, word: &str) -> Option<&'static str> {
        let says =
            |names: &[&str]| names.contains(&name) || name.rsplit(['.', '_']).next().is_some_and(|end| names.contains(&end));
        let assigned = between.contains(['=', ':', '"']) && !between.contains([']', '}']);
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let next_to = digits > 0 && between.trim().is_empty();
        if word == "null" {
            None
        } else if says(&SECRET) && (assigned || name == "bearer") {
            Some(MASK)
        } else if self.ids.contains(word)
            || (says(&PERSONAL) && (assigned || next_to))
            || (word.contains('@') && word.contains('.'))
            || (digits >= CARD_DIGITS && digits == word.len())
        {
            Some(SOMEBODY)
        } else {
            None
        }
    }
}

/// Where a value ends: at its closing quote, for what authorises at the line's end, else with its word.
fn value_end(gap: &str, name: &str, after: &str, word: usize) -> usize {
    if let Some(quote) = gap.chars().next_back().filter(|c| ['"', '\''].contains(c)) {
        let mut escaped = false;
        for (at, c) in after.char_indices() {
            if c == quote && !escaped {
                return at;
            }
            escaped = c == '\\' && !escaped;
        }
        return after.len();
    }
    if name == "authorization" { after.trim_end().len() } else { word }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(text: &str) -> String {
        Scrub::new(["hunter22".to_owned(), "abc".to_owned()], ["alice".to_owned(), "u-7".to_owned()]).text(text)
    }

    #[test]
    fn known_secrets_and_ids_are_masked_wherever_they_stand() {
        assert_eq!(scrubbed("x=hunter22y for alice, and u-7."), format!("x={MASK}y for [user], and [user]."));
        assert_eq!(scrubbed("malice u-77"), "malice u-77", "whole words only");
        assert_eq!(scrubbed("abc"), "abc", "too short to be masked everywhere");
    }

    #[test]
    fn values_behind_telling_names_are_masked() {
        for (text, clean) in [
            (r#"{"level":"INFO","user_id":"bob","count":3}"#, r#"{"level":"INFO","user_id":"[user]","count":3}"#),
            ("user=bob did", "user=[user] did"),
            ("payment of user user-000123 failed", "payment of user [user] failed"),
            ("a user profile", "a user profile"),
            ("mail to bob@example.org now", "mail to [user] now"),
            ("card 4111111111111111", "card [user]"),
            ("offset 1700000000000", "offset 1700000000000"),
        ] {
            assert_eq!(scrubbed(text), clean);
        }
        assert_eq!(scrubbed(r#"{"users":["bob","eve"],"n":1}"#), r#"{"users":["[user]","[user]"],"n":1}"#);
        assert_eq!(scrubbed("Authorization: Basic Ym9iOmI= x\n"), format!("Authorization: {MASK}\n"));
        assert_eq!(scrubbed("password: s3cr"), format!("password: {MASK}"));
        assert_eq!(scrubbed("sasl.password=s3cr next"), format!("sasl.password={MASK} next"));
        assert_eq!(scrubbed("redis://me:pw@host/0"), format!("redis://me:{MASK}@host/0"));
    }

    #[test]
    fn a_value_of_several_words_is_masked_whole() {
        let clean = scrubbed(r#"{"user":"Jane \"Q\" Doe","n":1}"#);
        assert!(!clean.contains("Jane") && !clean.contains("Doe") && clean.contains(r#""n":1"#), "{clean}");
    }
}
