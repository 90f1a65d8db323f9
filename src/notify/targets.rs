//! Who is told, as the file of `NOTIFY_TARGETS` says.
//!
//! ```json
//! { "dashboard": "https://mangrove.example.com",
//!   "targets": [
//!     { "name": "ops", "kind": "webhook", "url": "https://example.com/hook", "secrets": ["whsec_..."] },
//!     { "name": "chat", "kind": "slack", "url": "https://hooks.slack.com/services/...", "min_severity": "critical" },
//!     { "name": "mail", "kind": "email", "host": "smtp.example.com", "username": "m", "password": "...",
//!       "from": "mangrove@example.com", "to": ["fraud@example.com"] } ] }
//! ```
//!
//! Invariant: nothing that this module says of a file repeats a value that could be a secret; `Debug` shows no URL and no secret.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::message::Mailbox;
use models::Severity;
use reqwest::Url;
use serde_json::{Map, Value};

use super::guard;
use super::message::digest;
use super::policy::{Rule, Rules};

/// Messages a minute where a target says nothing: what a person can still read.
const RATE: u64 = 20;
/// The most that a target may ask for.
const RATE_MAX: u64 = 600;
/// Bytes of a file of targets.
const FILE_MAX: u64 = 1 << 20;
/// In front of a webhook's secret.
const SECRET_PREFIX: &str = "whsec_";

/// How mail is protected on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// TLS from the first byte, port 465.
    Implicit,
    /// TLS after STARTTLS, and no mail without it; port 587.
    Starttls,
    /// None, port 25; only where private targets are allowed.
    None,
}

/// A mailbox to write to, through a server.
#[derive(Clone)]
pub struct Mail {
    /// The server's name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: MailTls,
    /// User and password.
    pub login: Option<(String, String)>,
    /// Who writes.
    pub from: Mailbox,
    /// To whom.
    pub to: Vec<Mailbox>,
}

/// The way to a target.
#[derive(Clone)]
pub enum Way {
    /// Standard Webhooks.
    Webhook {
        /// Where to.
        url: Url,
        /// The keys that sign, each by itself, so that secrets can be rotated.
        secrets: Vec<Vec<u8>>,
    },
    /// Slack's incoming webhook.
    Slack {
        /// Where to; whoever knows it can write.
        url: Url,
    },
    /// SMTP.
    Email(Box<Mail>),
}

impl Way {
    /// Its word in the file.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Email(_) => "email",
        }
    }
}

/// One target.
#[derive(Clone)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// From this severity on.
    pub min_severity: Severity,
    /// Whether messages say whose payments they are about.
    pub include_user: bool,
    /// New messages in a minute.
    pub rate_per_minute: u32,
    /// The way to it.
    pub way: Way,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).field("kind", &self.way.kind()).finish_non_exhaustive()
    }
}

impl Target {
    fn address(&self) -> String {
        match &self.way {
            Way::Webhook { url, .. } | Way::Slack { url } => digest(&[url.as_str()]),
            Way::Email(mail) => digest(&[&mail.host, &mail.port.to_string()]),
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Where people find the dashboard, without a slash at the end.
    pub dashboard: Option<String>,
    /// In the order of the file.
    pub list: Vec<Target>,
}

impl Targets {
    /// Reads the file.
    ///
    /// # Errors
    /// All that is wrong, each with the target's name in front.
    pub fn read(path: &Path, allow_private: bool) -> Result<Self, Vec<String>> {
        let failed = |why: std::io::Error| vec![format!("cannot be read: {why}")];
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
            return Err(vec![format!("has more than {FILE_MAX} bytes")]);
        }
        Self::parse(&std::fs::read(path).map_err(failed)?, allow_private)
    }

    /// As [`Self::read`], from the file's bytes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(bytes: &[u8], allow_private: bool) -> Result<Self, Vec<String>> {
        // The parser's own words may repeat what it found: only the place is told.
        let file: Value = serde_json::from_slice(bytes)
            .map_err(|why| vec![format!("is no JSON: see line {}, column {}", why.line(), why.column())])?;
        let mut faults = Vec::new();
        let mut file = Fields::new("the file", &file, &mut faults);
        let dashboard = file.text("dashboard").and_then(|text| match url(&text, allow_private) {
            Ok(_) => Some(text.trim_end_matches('/').to_owned()),
            Err(why) => file.fault(&format!("`dashboard` {why}")),
        });
        let values = file.take("targets").and_then(|value| value.as_array().cloned());
        let values = values.filter(|values| !values.is_empty()).or_else(|| file.fault("`targets` must list at least one target"));
        file.end();
        let (mut list, mut names) = (Vec::new(), BTreeSet::new());
        for (at, value) in values.unwrap_or_default().iter().enumerate() {
            let name = value["name"].as_str().filter(|name| is_name(name));
            let known = name.map_or_else(|| format!("target {}", at + 1), |name| format!("target `{name}`"));
            if name.is_some_and(|name| !names.insert(name.to_owned())) {
                faults.push(format!("{known}: another target has this name"));
            }
            list.extend(target(&mut Fields::new(&known, value, &mut faults), allow_private));
        }
        if faults.is_empty() { Ok(Self { dashboard, list }) } else { Err(faults) }
    }

    /// One by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Target> {
        self.list.iter().find(|target| target.name == name)
    }

    /// What the policy needs to know of them.
    #[must_use]
    pub fn rules(&self, window_ms: i64, memory_bytes: usize) -> Rules {
        let rule = |target: &Target| Rule {
            min_severity: target.min_severity,
            include_user: target.include_user,
            rate_per_minute: target.rate_per_minute,
            address: target.address(),
        };
        let targets = self.list.iter().map(|target| (target.name.clone(), rule(target))).collect();
        Rules { window_ms, targets, memory_bytes }
    }
}

/// Part of keys and labels.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

fn target(fields: &mut Fields<'_>, allow_private: bool) -> Option<Target> {
    let name = fields.text("name").filter(|name| is_name(name));
    let name = name.or_else(|| fields.fault("`name` must be 1 to 64 of a-z, 0-9, - and _"));
    let min_severity = match fields.text("min_severity").as_deref() {
        None | Some("high") => Some(Severity::High),
        Some("low") => Some(Severity::Low),
        Some("medium") => Some(Severity::Medium),
        Some("critical") => Some(Severity::Critical),
        Some(_) => fields.fault("`min_severity` must be low, medium, high or critical"),
    };
    let include_user = match fields.take("include_user") {
        None => Some(false),
        Some(Value::Bool(include)) => Some(include),
        Some(_) => fields.fault("`include_user` must be true or false"),
    };
    let rate = match fields.take("rate_per_minute") {
        None => Some(RATE),
        Some(value) => value
            .as_u64()
            .filter(|rate| (1..=RATE_MAX).contains(rate))
            .or_else(|| fields.fault(&format!("`rate_per_minute` must be a whole number from 1 to {RATE_MAX}"))),
    };
    let way = match fields.text("kind").as_deref() {
        Some("webhook") => webhook(fields, allow_private),
        Some("slack") => fields.url(allow_private).map(|url| Way::Slack { url }),
        Some("email") => email(fields, allow_private).map(|mail| Way::Email(Box::new(mail))),
        _ => return fields.fault("`kind` must be webhook, slack or email"),
    };
    fields.end();
    Some(Target {
        name: name?,
        min_severity: min_severity?,
        include_user: include_user?,
        rate_per_minute: rate? as u32,
        way: way?,
    })
}

fn webhook(fields: &mut Fields<'_>, allow_private: bool) -> Option<Way> {
    let url = fields.url(allow_private);
    let texts = fields.texts("secrets").filter(|secrets| !secrets.is_empty() && secrets.len() <= 8);
    let Some(texts) = texts else { return fields.fault("`secrets` must list one to eight secrets, the newest first") };
    let keys: Vec<_> = texts.iter().filter_map(|text| STANDARD.decode(text.strip_prefix(SECRET_PREFIX)?).ok()).collect();
    if keys.len() != texts.len() || keys.iter().any(|key| !(24..=64).contains(&key.len())) {
        return fields.fault("each of `secrets` must be whsec_ and 24 to 64 bytes in base64: try `openssl rand -base64 32`");
    }
    Some(Way::Webhook { url: url?, secrets: keys })
}

fn email(fields: &mut Fields<'_>, allow_private: bool) -> Option<Mail> {
    let tls = match fields.text("tls").as_deref() {
        None | Some("starttls") => Some(MailTls::Starttls),
        Some("implicit") => Some(MailTls::Implicit),
        Some("none") if allow_private => Some(MailTls::None),
        Some("none") => fields.fault("`tls` may be none only with NOTIFY_ALLOW_PRIVATE"),
        Some(_) => fields.fault("`tls` must be starttls, implicit or none"),
    };
    let host = fields.text("host").filter(|host| !host.is_empty() && !host.contains(['/', '@', ' ']));
    let host = host.or_else(|| fields.fault("`host` must name the mail server"));
    if !allow_private && host.as_deref().and_then(guard::literal).is_some_and(|ip| !guard::is_public(ip)) {
        fields.fault::<()>("`host` is a private address: set NOTIFY_ALLOW_PRIVATE=true if it is meant");
    }
    let standard = match tls {
        Some(MailTls::Implicit) => 465,
        Some(MailTls::None) => 25,
        _ => 587,
    };
    let port = match fields.take("port") {
        None => Some(standard),
        Some(value) => value
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .or_else(|| fields.fault("`port` must be a port's number")),
    };
    let login = match (fields.text("username"), fields.text("password")) {
        (None, None) => Some(None),
        (Some(_), Some(_)) if tls == Some(MailTls::None) => {
            fields.fault("`password` would be sent in clear: `tls` must not be none")
        }
        (Some(user), Some(password)) => Some(Some((user, password))),
        _ => fields.fault("`username` and `password` go together"),
    };
    let mailbox = |text: &String| text.parse::<Mailbox>().ok();
    let from = fields.text("from").as_ref().and_then(mailbox).or_else(|| fields.fault("`from` must be an e-mail address"));
    let to = fields.texts("to").filter(|to| !to.is_empty()).and_then(|to| to.iter().map(mailbox).collect::<Option<Vec<_>>>());
    let to = to.or_else(|| fields.fault("`to` must list e-mail addresses"));
    Some(Mail { host: host?, port: port?, tls: tls?, login: login?, from: from?, to: to? })
}

fn url(text: &str, allow_private: bool) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is no URL")?;
    let host = url.host_str().ok_or("names no host")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user and no password");
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        "http" => return Err("must be https: http is for private targets, with NOTIFY_ALLOW_PRIVATE"),
        _ => return Err("must be an https URL"),
    }
    if !allow_private && guard::literal(host).is_some_and(|ip| !guard::is_public(ip)) {
        return Err("is a private address: set NOTIFY_ALLOW_PRIVATE=true if it is meant");
    }
    Ok(url)
}

/// The fields of an object, each taken once; what is left over was misspelled.
struct Fields<'f> {
    of: String,
    fields: Map<String, Value>,
    faults: &'f mut Vec<String>,
}

impl<'f> Fields<'f> {
    fn new(of: &str, value: &Value, faults: &'f mut Vec<String>) -> Self {
        let mut fields = Self { of: of.to_owned(), fields: value.as_object().cloned().unwrap_or_default(), faults };
        if !value.is_object() {
            fields.fault::<()>("must be an object");
        }
        fields
    }

    fn fault<T>(&mut self, what: &str) -> Option<T> {
        self.faults.push(format!("{}: {what}", self.of));
        None
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => self.fault(&format!("`{name}` must be a text")),
        }
    }

    fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let list = self.take(name)?;
        list.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
    }

    fn url(&mut self, allow_private: bool) -> Option<Url> {
        let Some(text) = self.text("url") else { return self.fault("`url` is needed") };
        match url(&text, allow_private) {
            Ok(url) => Some(url),
            Err(why) => self.fault(&format!("`url` {why}")),
        }
    }

    fn end(&mut self) {
        let unknown: Vec<String> = self.fields.keys().map(|name| format!("`{name}` is no field of it")).collect();
        for fault in unknown {
            self.fault::<()>(&fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn faults(json: &str) -> Vec<String> {
        Targets::parse(json.as_bytes(), false).expect_err("faults")
    }

    #[test]
    fn the_example_of_the_header_is_read() {
        let json = format!(
            r#"{{"dashboard": "https://mangrove.example.com/", "targets": [
                {{"name": "ops", "kind": "webhook", "url": "https://example.com/hook", "secrets": ["{SECRET}"]}},
                {{"name": "chat", "kind": "slack", "url": "https://hooks.slack.com/services/x", "min_severity": "critical"}},
                {{"name": "mail", "kind": "email", "host": "smtp.example.com", "username": "m", "password": "p",
                  "from": "Mangrove <mangrove@example.com>", "to": ["fraud@example.com"], "include_user": true}}]}}"#
        );
        let targets = Targets::parse(json.as_bytes(), false).expect("right");
        assert_eq!(targets.dashboard.as_deref(), Some("https://mangrove.example.com"));
        let severities: Vec<_> = targets.list.iter().map(|target| target.min_severity).collect();
        assert_eq!(severities, [Severity::High, Severity::Critical, Severity::High]);
        let Way::Email(mail) = &targets.list[2].way else { panic!("an e-mail target") };
        assert_eq!((mail.port, mail.tls, targets.list[2].include_user), (587, MailTls::Starttls, true));
        let shown = format!("{targets:?}");
        assert!(!shown.contains("services") && !shown.contains("whsec") && !shown.contains("\"p\""), "{shown}");
    }

    #[test]
    fn every_wrong_target_is_named_at_once_and_no_secret_is() {
        let json = r#"{"targets": [
            {"name": "a", "kind": "webhook", "url": "http://example.com/", "secrets": ["hush-hush"]},
            {"name": "a", "kind": "slack", "url": "https://127.0.0.1/hush-hush", "colour": "hush-hush"},
            {"name": "B", "kind": "email", "host": "10.0.0.1", "tls": "none", "password": "hush-hush", "to": "hush-hush"},
            {"name": "d", "kind": "pager"},
            {"name": "e", "kind": "slack", "url": "https://u:hush-hush@example.com/", "rate_per_minute": 0, "min_severity": 4},
            17]}"#;
        let faults = faults(json);
        for expected in [
            "target `a`: `url` must be https",
            "target `a`: each of `secrets`",
            "target `a`: another target",
            "target `a`: `url` is a private address",
            "target `a`: `colour` is no field",
            "target 3: `name`",
            "target 3: `host` is a private",
            "target 3: `tls` may be none only",
            "target 3: `username` and `password`",
            "target 3: `from`",
            "target 3: `to`",
            "target `d`: `kind`",
            "target `e`: `url` must hold no user",
            "target `e`: `rate_per_minute`",
            "target `e`: `min_severity` must be a text",
            "target 6: must be an object",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected}: {faults:#?}");
        }
        assert!(!faults.iter().any(|fault| fault.contains("hush")), "{faults:#?}");
    }

    #[test]
    fn spellings_of_private_addresses_are_seen_through() {
        for host in ["2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:10.0.0.1]", "169.254.169.254", "0", "017700000001"] {
            let json = format!(r#"{{"targets": [{{"name": "a", "kind": "slack", "url": "https://{host}/"}}]}}"#);
            assert!(faults(&json)[0].contains("private"), "{host}: {:?}", faults(&json));
            assert!(Targets::parse(json.as_bytes(), true).is_ok(), "{host} where allowed");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Targets::parse(&bytes, true).is_err());
        }

        #[test]
        fn no_fields_make_it_panic(name in ".{0,9}", kind in "webhook|slack|email", url in "https?://.{0,20}", more in ".{0,9}") {
            let json = serde_json::json!({"targets": [{"name": name, "kind": kind, "url": url, "host": more, "secrets": [more], "to": [more]}]});
            let parsed = Targets::parse(json.to_string().as_bytes(), false);
            prop_assert!(parsed.is_err() || kind == "slack");
        }
    }
}
