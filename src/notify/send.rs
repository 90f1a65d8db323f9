//! One attempt at a delivery, and what came of it.
//!
//! A target's name is resolved and checked at each attempt, and only the checked addresses are connected to ([`super::guard`]). No
//! redirect is followed, no proxy asked; an attempt and an answer are bounded in time and bytes. What is told of a failure holds
//! no URL (Slack's are secret) and no credentials.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport as _};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url};

use super::entry::Delivery;
use super::policy::Outcome;
use super::render;
use super::targets::{Mail, MailTls, Target, Targets, Way};
use super::{guard, webhook};

/// For a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// For a whole attempt: the specification asks for 15 to 30 s.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);
/// Bytes read of an answer: its status says all, the rest is for people.
const ANSWER_MAX: usize = 2_048;
/// Outcomes that nobody has asked for yet: far more than attempts under way.
const OUTCOMES_MAX: usize = 10_000;

/// What came of an attempt, and what the target said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it means.
    pub outcome: Outcome,
    /// The beginning of what came back, for people.
    pub said: String,
}

impl Answer {
    fn failed(why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed { why: why.into(), pause_ms: None }, said: String::new() }
    }
}

/// Knows the ways to all targets.
#[derive(Debug)]
pub struct Sender {
    targets: Targets,
    dashboard: String,
    allow_private: bool,
    /// For a whole attempt.
    patience: Duration,
}

impl Sender {
    /// `dashboard` is where people find it, where the targets say nothing else.
    #[must_use]
    pub fn new(targets: Targets, dashboard: &str, allow_private: bool) -> Self {
        crate::registry::use_tls();
        let dashboard = targets.dashboard.clone().unwrap_or_else(|| dashboard.to_owned());
        Self { targets, dashboard, allow_private, patience: ATTEMPT_MAX }
    }

    /// Tries to deliver.
    pub async fn attempt(&self, delivery: &Delivery, now_ms: i64) -> Answer {
        let Some(target) = self.targets.find(&delivery.target) else {
            return Answer::failed("no target has this name");
        };
        let sent = tokio::time::timeout(self.patience, self.send(target, delivery, now_ms)).await;
        match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => Answer::failed(why),
            Err(_) => Answer::failed(format!("no answer within {} ms", self.patience.as_millis())),
        }
    }

    async fn send(&self, target: &Target, delivery: &Delivery, now_ms: i64) -> Result<Answer, String> {
        let link = render::link(&self.dashboard, &delivery.message);
        match &target.way {
            Way::Webhook { url, secrets } => {
                let body = webhook::body(delivery, link);
                let timestamp_s = now_ms / 1_000;
                let headers = [
                    ("webhook-id", delivery.id.clone()),
                    ("webhook-timestamp", timestamp_s.to_string()),
                    ("webhook-signature", webhook::signatures(secrets, &delivery.id, timestamp_s, &body)),
                ];
                self.post(url, &headers, body, now_ms).await
            }
            Way::Slack { url } => {
                let body = render::slack(delivery, &link).to_string().into_bytes();
                self.post(url, &[], body, now_ms).await
            }
            Way::Email(mail) => self.mail(mail, delivery, &link).await,
        }
    }

    async fn post(&self, url: &Url, headers: &[(&str, String)], body: Vec<u8>, now_ms: i64) -> Result<Answer, String> {
        let host = url.host_str().unwrap_or_default();
        let addresses = guard::resolve(host, url.port_or_known_default().unwrap_or(443), self.allow_private).await?;
        let client = Client::builder()
            .resolve_to_addrs(host, &addresses)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT_MAX)
            .timeout(ATTEMPT_MAX)
            .user_agent(concat!("mangrove/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|why| chain(&why.without_url()))?;
        let mut request = client.post(url.clone()).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.map_err(|why| chain(&why.without_url()))?;
        Ok(judge(response, now_ms).await)
    }

    async fn mail(&self, mail: &Mail, delivery: &Delivery, link: &str) -> Result<Answer, String> {
        let addresses = guard::resolve(&mail.host, mail.port, self.allow_private).await?;
        let message =
            render::email(delivery, link, &mail.from, &mail.to).map_err(|why| format!("the e-mail cannot be made: {why}"))?;
        let transports =
            addresses.iter().map(|address| transport(mail, &address.ip().to_string())).collect::<Result<Vec<_>, _>>()?;
        let sending = tokio::task::spawn_blocking(move || {
            let mut answer = Err("the mail server has no address".to_owned());
            for transport in transports {
                match transport.send(&message) {
                    Ok(response) => return Ok(response.message().collect::<Vec<_>>().join(" ")),
                    Err(why) => {
                        // One that answered would answer the same at another address.
                        let answered = why.status().is_some();
                        answer = Err(chain(&why));
                        if answered {
                            break;
                        }
                    }
                }
            }
            answer
        });
        let said = sending.await.map_err(|_| "sending mail did not come to its end".to_owned())??;
        Ok(Answer { outcome: Outcome::Arrived, said: printable(&said) })
    }
}

/// A connection to this very address that expects the certificate of the server's name.
fn transport(mail: &Mail, address: &str) -> Result<SmtpTransport, String> {
    let tls = || TlsParameters::new_rustls(mail.host.clone()).map_err(|why| chain(&why));
    let tls = match mail.tls {
        MailTls::None => Tls::None,
        MailTls::Starttls => Tls::Required(tls()?),
        MailTls::Implicit => Tls::Wrapper(tls()?),
    };
    let hello = ClientId::Domain(mail.from.email.domain().to_owned());
    let mut builder =
        SmtpTransport::builder_dangerous(address).port(mail.port).tls(tls).hello_name(hello).timeout(Some(CONNECT_MAX));
    if let Some((user, password)) = &mail.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
    }
    Ok(builder.build())
}

/// What an answer's status means.
async fn judge(mut response: Response, now_ms: i64) -> Answer {
    let status = response.status();
    let pause_ms = response.headers().get(RETRY_AFTER).and_then(|value| pause_ms(value.to_str().ok()?, now_ms));
    let mut body = Vec::new();
    // The status is known: what goes wrong with the rest of the answer changes nothing.
    while body.len() < ANSWER_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - body.len())]);
    }
    let said = printable(&String::from_utf8_lossy(&body));
    let answered = format!("it answered {}", status.as_u16());
    let outcome = match status {
        _ if status.is_success() => Outcome::Arrived,
        StatusCode::GONE => Outcome::Gone { why: answered },
        _ if status.is_redirection() => Outcome::Failed { why: format!("{answered}: redirects are not followed"), pause_ms },
        _ => Outcome::Failed { why: answered, pause_ms },
    };
    Answer { outcome, said: format!("{} {said}", status.as_u16()).trim_end().to_owned() }
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn pause_ms(value: &str, now_ms: i64) -> Option<i64> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(i64::from(seconds) * 1_000);
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some((date.as_millisecond() - now_ms).max(0))
}

/// One line that cannot speak to a terminal.
fn printable(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An error with its causes: reqwest's and lettre's first line alone says nothing.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    printable(&text)
}

/// Takes deliveries away and tells later what came of them.
pub trait Courier: Send {
    /// Begins an attempt.
    fn send(&mut self, delivery: Delivery, now_ms: i64);

    /// What came of attempts since the last call.
    fn outcomes(&mut self) -> Vec<(String, Outcome)>;
}

/// Attempts beside each other, on a thread of their own.
pub struct Couriers {
    sender: Arc<Sender>,
    /// None once dropped.
    runtime: Option<tokio::runtime::Runtime>,
    tell: SyncSender<(String, Outcome)>,
    told: Receiver<(String, Outcome)>,
}

impl Couriers {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system gives none.
    pub fn new(sender: Arc<Sender>) -> std::io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("couriers").enable_all().build()?;
        let (tell, told) = sync_channel(OUTCOMES_MAX);
        Ok(Self { sender, runtime: Some(runtime), tell, told })
    }
}

impl Courier for Couriers {
    fn send(&mut self, delivery: Delivery, now_ms: i64) {
        let (sender, tell) = (Arc::clone(&self.sender), self.tell.clone());
        let runtime = self.runtime.as_ref().expect("invariant: taken in drop only");
        runtime.spawn(async move {
            let answer = sender.attempt(&delivery, now_ms).await;
            // Nobody listens at the end any more: the delivery is tried again by whoever comes next. Full it is never: the policy has
            // few deliveries under way.
            let _ = tell.try_send((delivery.id, answer.outcome));
        });
    }

    fn outcomes(&mut self) -> Vec<(String, Outcome)> {
        self.told.try_iter().collect()
    }
}

impl Drop for Couriers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
