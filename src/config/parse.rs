//! From a setting's text to its value.
//!
//! A parser says what it expects and what is wrong; it never says the value itself (the fault does, unless it is secret).
//! Invariant: no text whatsoever makes a parser panic; a property test tries.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::tiers::ServerUrl;

use super::values::{ApiToken, Choice, Role, Roles, Scope};

/// Reads one kind of value.
pub trait Parser {
    /// What comes out.
    type Value;

    /// What a right text looks like: completes "expected ...".
    fn expected() -> String;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong: completes "the value ...".
    fn read(text: &str) -> Result<Self::Value, String>;
}

/// A whole number within bounds.
pub struct Whole<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Parser for Whole<MIN, MAX> {
    type Value = u64;

    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn read(text: &str) -> Result<u64, String> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err("is not a whole number".to_owned());
        }
        match text.parse::<u64>() {
            Ok(number) if number < MIN => Err(format!("is below {MIN}")),
            Ok(number) if number <= MAX => Ok(number),
            // Digits that do not parse are too many of them.
            _ => Err(format!("is above {MAX}")),
        }
    }
}

/// A whole number within bounds that counts things.
pub struct Count<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> Parser for Count<MIN, MAX> {
    type Value = u32;

    fn expected() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn read(text: &str) -> Result<u32, String> {
        let number = Whole::<0, { u64::MAX }>::read(text)?;
        match u32::try_from(number) {
            Ok(number) if number < MIN => Err(format!("is below {MIN}")),
            Ok(number) if number <= MAX => Ok(number),
            _ => Err(format!("is above {MAX}")),
        }
    }
}

/// A score: from 0 to 1.
pub struct Score;

impl Parser for Score {
    type Value = f64;

    fn expected() -> String {
        "a number from 0 to 1".to_owned()
    }

    fn read(text: &str) -> Result<f64, String> {
        let number = finite(text)?;
        if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("is out of range".to_owned()) }
    }
}

/// The share of a training window that counts as anomalous: above 0, up to a half.
pub struct Contamination;

impl Parser for Contamination {
    type Value = f64;

    fn expected() -> String {
        "a number above 0 and up to 0.5".to_owned()
    }

    fn read(text: &str) -> Result<f64, String> {
        let number = finite(text)?;
        if number > 0.0 && number <= 0.5 { Ok(number) } else { Err("is out of range".to_owned()) }
    }
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| "is not a number".to_owned())
}

/// A number of bytes, with or without a unit. Too few are refused.
pub struct Bytes<const MIN: u64>;

/// Longer units first: `MiB` also ends in `B`.
const UNITS: [(&str, u64); 7] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("B", 1)];

impl<const MIN: u64> Parser for Bytes<MIN> {
    type Value = u64;

    fn expected() -> String {
        format!("at least {}MiB, as bytes or with KiB, MiB, GiB, KB, MB or GB", MIN >> 20)
    }

    fn read(text: &str) -> Result<u64, String> {
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits.trim_end(), *unit)))
            .unwrap_or((text, 1));
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err("is not a whole number of bytes".to_owned());
        }
        let bytes = digits.parse().ok().and_then(|number: u64| number.checked_mul(unit));
        let bytes = bytes.ok_or("is more than any machine has")?;
        if bytes < MIN { Err("is too little to work with".to_owned()) } else { Ok(bytes) }
    }
}

/// On or off.
pub struct Switch;

impl Parser for Switch {
    type Value = bool;

    fn expected() -> String {
        "true or false (on or off, yes or no, 1 or 0)".to_owned()
    }

    fn read(text: &str) -> Result<bool, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            _ => Err("is neither on nor off".to_owned()),
        }
    }
}

/// One word of a closed set.
pub struct OneOf<C>(PhantomData<C>);

impl<C: Choice> Parser for OneOf<C> {
    type Value = C;

    fn expected() -> String {
        words::<C>(" or ")
    }

    fn read(text: &str) -> Result<C, String> {
        choose(text).ok_or_else(|| "is not known".to_owned())
    }
}

fn choose<C: Choice>(word: &str) -> Option<C> {
    C::ALL.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
}

fn words<C: Choice>(between: &str) -> String {
    C::ALL.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(between)
}

/// A value that may be absent: an empty text is none.
pub struct Optional<P>(PhantomData<P>);

impl<P: Parser> Parser for Optional<P> {
    type Value = Option<P::Value>;

    fn expected() -> String {
        format!("{}, or nothing", P::expected())
    }

    fn read(text: &str) -> Result<Self::Value, String> {
        if text.is_empty() { Ok(None) } else { P::read(text).map(Some) }
    }
}

/// A path of the local file system.
pub struct FilePath;

impl Parser for FilePath {
    type Value = PathBuf;

    fn expected() -> String {
        "a path on this machine".to_owned()
    }

    fn read(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            Err("is empty".to_owned())
        } else if text.contains('\0') {
            Err("holds a NUL character".to_owned())
        } else if text.contains("://") {
            Err("is a URL, which this version does not read".to_owned())
        } else {
            Ok(PathBuf::from(text))
        }
    }
}

/// Where artifacts are kept: a folder, or a bucket's URL.
pub struct StorePlace;

impl Parser for StorePlace {
    type Value = String;

    fn expected() -> String {
        "a folder, s3://bucket/prefix or gs://bucket/prefix".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return FilePath::read(text).map(|_| text.to_owned());
        };
        match (scheme, rest.split('/').next().unwrap_or_default()) {
            (_, _) if text.contains('\0') => Err("holds a NUL character".to_owned()),
            ("s3" | "gs", "") => Err("names no bucket".to_owned()),
            ("s3" | "gs", _) => Ok(text.to_owned()),
            _ => Err("is a URL of a kind that is not known".to_owned()),
        }
    }
}

/// A server of Redis.
pub struct RedisUrl;

impl Parser for RedisUrl {
    type Value = ServerUrl;

    fn expected() -> String {
        "redis://host:port/number, or rediss:// for TLS".to_owned()
    }

    fn read(text: &str) -> Result<ServerUrl, String> {
        // What the library says of it may repeat a password.
        redis::Client::open(text).map(|_| ServerUrl::new(text)).map_err(|_| "is no URL of a Redis".to_owned())
    }
}

/// A Postgres database.
pub struct PostgresUrl;

impl Parser for PostgresUrl {
    type Value = ServerUrl;

    fn expected() -> String {
        "postgres://user:password@host:port/database".to_owned()
    }

    fn read(text: &str) -> Result<ServerUrl, String> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("is no URL of a Postgres database".to_owned());
        }
        let config = text.parse::<tokio_postgres::Config>();
        config.map(|_| ServerUrl::new(text)).map_err(|_| "is no URL of a Postgres database".to_owned())
    }
}

/// When to retrain: cron's five fields, in UTC, or six with seconds in front.
pub struct Cron;

impl Parser for Cron {
    type Value = String;

    fn expected() -> String {
        "minute, hour, day of month, month and day of week in UTC as cron has them, seconds in front if need be, such as `0 3 * * *`; or off".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        if text == "off" {
            return Ok(text.to_owned());
        }
        match text.split_ascii_whitespace().count() {
            5 | 6 => {}
            count => return Err(format!("has {count} fields")),
        }
        crate::schedule::parse(text).map(|_| text.to_owned()).map_err(|why| format!("is no schedule: {why}"))
    }
}

/// The longest name that Kafka takes for a topic.
pub(super) const TOPIC_NAME_MAX: usize = 249;
/// The longest `APPLICATION_ID` and `TOPIC_PREFIX`: together with our own endings they must stay a topic's name.
const NAME_PART_MAX: usize = 100;

fn is_topic_text(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The name of a topic.
pub struct TopicName;

impl Parser for TopicName {
    type Value = String;

    fn expected() -> String {
        format!("1 to {TOPIC_NAME_MAX} letters, digits, dots, underscores and hyphens")
    }

    fn read(text: &str) -> Result<String, String> {
        if text.is_empty() {
            Err("is empty".to_owned())
        } else if text.len() > TOPIC_NAME_MAX {
            Err("is too long".to_owned())
        } else if !is_topic_text(text) || text == "." || text == ".." {
            Err("is not a topic's name".to_owned())
        } else {
            Ok(text.to_owned())
        }
    }
}

/// A part of topics' names, at least `MIN` characters long.
pub struct NamePart<const MIN: usize>;

impl<const MIN: usize> Parser for NamePart<MIN> {
    type Value = String;

    fn expected() -> String {
        format!("{MIN} to {NAME_PART_MAX} letters, digits, dots, underscores and hyphens")
    }

    fn read(text: &str) -> Result<String, String> {
        if text.len() < MIN {
            Err("is empty".to_owned())
        } else if text.len() > NAME_PART_MAX {
            Err("is too long".to_owned())
        } else if !is_topic_text(text) {
            Err("holds a character that topics' names cannot have".to_owned())
        } else {
            Ok(text.to_owned())
        }
    }
}

/// A currency's ISO 4217 code.
pub struct Currency;

impl Parser for Currency {
    type Value = String;

    fn expected() -> String {
        "three capital letters such as USD".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        if text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            Ok(text.to_owned())
        } else {
            Err("is not a currency's code".to_owned())
        }
    }
}

/// Where to find the first brokers.
pub struct Servers;

impl Parser for Servers {
    type Value = String;

    fn expected() -> String {
        "`host:port`, several with commas between".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        let mut servers = Vec::new();
        for server in text.split(',').map(str::trim) {
            // librdkafka takes `SSL://host:port` too.
            let address = server.split_once("://").map_or(server, |(_, address)| address);
            let (host, port) = address.rsplit_once(':').ok_or("names a server without a port")?;
            if host.is_empty() || host.contains(char::is_whitespace) {
                return Err("names a server without a host".to_owned());
            }
            if port.parse::<u16>().is_err() || port.starts_with('+') || port == "0" {
                return Err("names a server whose port is not a number from 1 to 65535".to_owned());
            }
            servers.push(server);
        }
        Ok(servers.join(","))
    }
}

/// Where to listen.
pub struct Address;

impl Parser for Address {
    type Value = SocketAddr;

    fn expected() -> String {
        "`address:port` such as 127.0.0.1:8000 or [::1]:8000".to_owned()
    }

    fn read(text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| "is not an address with a port (a host's name will not do)".to_owned())
    }
}

/// Where others reach this instance.
pub struct HostPort;

impl Parser for HostPort {
    type Value = String;

    fn expected() -> String {
        "`host:port` as other instances reach it, such as 10.0.0.7:8000 or scorer-1.scorers:8000".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        if !crate::membership::is_endpoint(text) {
            Err("is not a host with a port".to_owned())
        } else if text.parse().is_ok_and(|address: SocketAddr| address.ip().is_unspecified()) {
            Err("is every address and none: nobody can call it".to_owned())
        } else {
            Ok(text.to_owned())
        }
    }
}

/// A comma-separated list of roles.
pub struct RoleList;

impl Parser for RoleList {
    type Value = Roles;

    fn expected() -> String {
        format!("some of {}, with commas between", words::<Role>(", "))
    }

    fn read(text: &str) -> Result<Roles, String> {
        let roles: Option<BTreeSet<Role>> = text.split(',').map(|word| choose(word.trim())).collect();
        roles.map(Roles).ok_or_else(|| "names a role that is not known".to_owned())
    }
}

/// Which log lines to keep.
pub struct LogFilter;

impl Parser for LogFilter {
    type Value = String;

    fn expected() -> String {
        "error, warn, info, debug or trace, or `target=level` pairs with commas between".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        match tracing_subscriber::EnvFilter::builder().parse(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err("is not a filter".to_owned()),
        }
    }
}

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

/// A secret that people make up: 16 to 256 bytes.
pub struct Passphrase;

impl Parser for Passphrase {
    type Value = String;

    fn expected() -> String {
        "a text of 16 to 256 bytes that nobody can guess".to_owned()
    }

    fn read(text: &str) -> Result<String, String> {
        match text.len() {
            16..=256 => Ok(text.to_owned()),
            0..16 => Err("is too short".to_owned()),
            _ => Err("is too long".to_owned()),
        }
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
