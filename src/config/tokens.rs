//! The tokens of `API_TOKENS`.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::parse::{Parser, choose, is_topic_text, words};
use super::values::{ApiToken, Scope};

/// Who may use the HTTP interface: `name:scope+scope:sha256`, with commas between. Problems name the entry by its
/// number only.
pub struct Tokens;

impl Parser for Tokens {
    type Value = Vec<ApiToken>;

    fn expected() -> String {
        format!(
            "`name:scope+scope:sha256` with commas between; scopes {}; sha256 the token's digest in 64 hex digits",
            words::<Scope>(", ")
        )
    }

    fn read(text: &str) -> Result<Vec<ApiToken>, String> {
        let mut tokens: Vec<ApiToken> = Vec::new();
        for (index, entry) in text.split(',').map(str::trim).enumerate().filter(|(_, entry)| !entry.is_empty()) {
            let token = token(entry).map_err(|problem| format!("is wrong in entry {}: {problem}", index + 1))?;
            if tokens.iter().any(|other| other.name == token.name) {
                return Err(format!("is wrong in entry {}: the name was given before", index + 1));
            }
            tokens.push(token);
        }
        Ok(tokens)
    }
}

/// The entry of `API_TOKENS` for a token.
///
/// # Errors
/// A name or scopes that could not be read back.
pub fn token_entry(name: &str, scopes: &str, text: &str) -> Result<String, &'static str> {
    let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    let entry = format!("{name}:{scopes}:{digest}");
    if entry.contains(',') {
        return Err("neither the name nor the scopes have commas");
    }
    token(&entry).map(|_| entry)
}

fn token(entry: &str) -> Result<ApiToken, &'static str> {
    let mut parts = entry.split(':');
    let (Some(name), Some(scopes), Some(digest), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("it does not have three parts");
    };
    if name.is_empty() || name.len() > 64 || !is_topic_text(name) {
        return Err("the name is not 1 to 64 letters, digits, dots, underscores and hyphens");
    }
    let scopes: Option<BTreeSet<Scope>> = scopes.split('+').map(choose).collect();
    let scopes = scopes.ok_or("a scope is not known")?;
    let sha256 = hex_digest(digest).ok_or("the digest is not 64 hex digits")?;
    Ok(ApiToken { name: name.to_owned(), scopes, sha256 })
}

fn hex_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let (high, low) = (char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(digest)
}
