//! A message as people read it: Slack's blocks and an e-mail.

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use serde_json::{Value, json};

use super::entry::Delivery;
use super::message::{Kind, Message, Payment};

/// Characters of a section of Slack's; its own limit is 3,000.
const SECTION_MAX: usize = 2_900;

/// A time as people and programs read it.
pub(super) fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

/// Where a message's subject is shown.
#[must_use]
pub fn link(dashboard: &str, message: &Message) -> String {
    match message.kind {
        Kind::Test => format!("{dashboard}/"),
        _ => format!("{dashboard}/#/verdict/{}", message.look_at()),
    }
}

/// Lines of name and value.
fn facts(message: &Message) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(user) = &message.user_id {
        facts.push(("User", user.clone()));
    }
    if let Some(Payment { verdict_id, score, amount, currency, merchant, explanation }) = &message.worst {
        let currency = currency.as_ref().map_or_else(String::new, |currency| format!(" {currency}"));
        facts.push(("Worst payment", format!("{amount:.2}{currency} to {merchant}")));
        if let Some(score) = score {
            facts.push(("Score", format!("{score:.2}")));
        }
        if !explanation.is_empty() {
            facts.push(("Why", explanation.clone()));
        }
        facts.push(("Verdict", verdict_id.clone()));
    }
    if message.count > 1 {
        facts.push(("Payments from", time(message.first_ms)));
        facts.push(("to", time(message.last_ms)));
    } else if message.count == 1 {
        facts.push(("Time", time(message.first_ms)));
    }
    facts
}

/// Slack's three characters with a meaning.
fn escape(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The body for an incoming webhook of Slack's: blocks, and a text for where blocks are not shown.
#[must_use]
pub fn slack(delivery: &Delivery, link: &str) -> Value {
    let message = &delivery.message;
    let title = message.title();
    let lines: Vec<String> = facts(message).iter().map(|(name, value)| format!("*{name}:* {}", escape(value))).collect();
    let mut section: String = lines.join("\n").chars().take(SECTION_MAX).collect();
    if section.is_empty() {
        section = escape(&title);
    }
    json!({
        "text": format!("{}: {link}", escape(&title)),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": title.chars().take(150).collect::<String>()}},
            {"type": "section", "text": {"type": "mrkdwn", "text": section}},
            {"type": "context", "elements": [
                {"type": "mrkdwn", "text": format!("<{}|Open in Mangrove>  {}", escape(link), delivery.id)}
            ]}
        ]
    })
}

/// An e-mail. Its Message-ID is the delivery's id: mail programs show the same one once.
///
/// # Errors
/// Where the parts make no message.
pub fn email(delivery: &Delivery, link: &str, from: &Mailbox, to: &[Mailbox]) -> Result<lettre::Message, lettre::error::Error> {
    let message = &delivery.message;
    let mut text: String =
        facts(message).iter().map(|(name, value)| format!("{name}: {}\n", value.replace(['\r', '\n'], " "))).collect();
    text.push_str(&format!("\n{link}\n\n{}\n", delivery.id));
    let domain = from.email.domain();
    let mut builder = lettre::Message::builder()
        .from(from.clone())
        .subject(format!("[Mangrove] {}", message.title()))
        .message_id(Some(format!("<{}@{domain}>", delivery.id)))
        .date(std::time::UNIX_EPOCH + std::time::Duration::from_millis(delivery.made_ms.max(0).unsigned_abs()))
        .header(ContentType::TEXT_PLAIN);
    for mailbox in to {
        builder = builder.to(mailbox.clone());
    }
    builder.body(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::entry::State;
    use crate::notify::policy::tests::verdict;
    use models::Severity;

    fn delivery(include_user: bool) -> Delivery {
        let mut verdict = verdict(7, "carla<b>", Severity::Critical);
        verdict.merchant = "Shop & <!channel>\n*Sons*".into();
        let mut message = Message::new(&verdict, include_user);
        message.add(&super::super::policy::tests::verdict(8, "carla<b>", Severity::High));
        let id = message.id_for("ops");
        Delivery { id, target: "ops".into(), state: State::Pending, made_ms: 0, next_ms: 0, attempts: 0, trouble: None, message }
    }

    #[test]
    fn slack_gets_blocks_with_a_plain_text_and_nothing_that_a_payment_says_is_markup() {
        let link = link("https://m.example.com", &delivery(false).message);
        assert_eq!(link, "https://m.example.com/#/verdict/transactions:0:7");
        let body = slack(&delivery(false), &link);
        assert_eq!(body["text"], format!("2 anomalies of one user, critical at worst: {link}"));
        let section = body["blocks"][1]["text"]["text"].as_str().expect("a text");
        assert!(section.contains("7.00 EUR to Shop &amp; &lt;!channel&gt; *Sons*"), "{section}");
        assert!(!body.to_string().contains("carla"), "{body}");
        assert!(slack(&delivery(true), &link).to_string().contains("carla&lt;b&gt;"));
    }

    #[test]
    fn an_email_says_the_same_and_keeps_its_id() {
        let from: Mailbox = "Mangrove <m@example.com>".parse().expect("an address");
        let to = ["a@example.com".parse().expect("an address")];
        let mail = email(&delivery(false), "https://m/", &from, &to).expect("a message").formatted();
        let mail = String::from_utf8_lossy(&mail);
        assert!(mail.contains(&format!("Message-ID: <{}@example.com>", delivery(false).id)), "{mail}");
        assert!(mail.contains("Subject: [Mangrove] 2 anomalies of one user, critical at worst"), "{mail}");
        assert!(!mail.contains("carla"), "{mail}");
    }
}
