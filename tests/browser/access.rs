//! For everybody: no serious fault that axe finds, keys, small screens, both colours.

use std::process::Command;

use serde_json::Value;

use crate::common::{skip, until};
use crate::driver::Browser;
use crate::stage::{Page, started};

const AXE: &str = include_str!("vendor/axe.min.js");
const SHOWN: &str = "#anomalies [data-id]";

/// Faults that axe calls serious or critical, with where they are.
fn faults(page: &Page) -> Vec<String> {
    // Colours that are still on their way to others are none to judge.
    page.browser.run("document.getAnimations().forEach((animation) => animation.finish !== undefined && animation.effect.getComputedTiming().iterations !== Infinity && animation.finish())");
    let found = page.browser.run_async(&format!("{AXE};const done = arguments[arguments.length - 1]; axe.run().then((found) => done(found.violations), (why) => done([{{id: String(why), impact: 'critical', nodes: []}}]))"));
    let serious =
        found.as_array().expect("a list").iter().filter(|fault| matches!(fault["impact"].as_str(), Some("serious" | "critical")));
    let place = |fault: &Value| {
        fault["nodes"].as_array().map(|nodes| {
            nodes
                .iter()
                .take(3)
                .map(|node| format!("{} {}", node["target"], node["any"][0]["message"]))
                .collect::<Vec<_>>()
                .join("; ")
        })
    };
    serious.map(|fault| format!("{}: {}", fault["id"], place(fault).unwrap_or_default())).collect()
}

#[test]
fn no_page_has_a_serious_fault_of_accessibility_in_either_colour() {
    let Some(mut page) = Page::open("no_page_has_a_serious_fault_of_accessibility_in_either_colour", "") else { return };
    page.wait_count(SHOWN, |count| count > 5);
    let anomaly = page.browser.all(SHOWN, "element.getAttribute('href')")[0].clone();
    let user = page.ask("/v1/state/users?limit=1")["users"][0]["user_id"].as_str().expect("a user").to_owned();
    let places = [
        ("live", "#/live".to_owned(), SHOWN),
        ("anomaly", anomaly, ".signed li"),
        ("user", format!("#/user/{user}"), ".dial"),
        ("topology", "#/topology".to_owned(), "#tasks tbody tr"),
        ("models", "#/models".to_owned(), "#versions tbody tr"),
    ];
    for theme in ["light", "dark"] {
        page.browser
            .run(&format!("localStorage.setItem('theme', '{theme}'); document.documentElement.dataset.theme = '{theme}'"));
        for (name, place, sign) in &places {
            page.go(place);
            page.wait(sign);
            assert_eq!(faults(&page), [""; 0], "{name}, {theme}");
            page.keep(&format!("{name}-{theme}"), false);
        }
    }
}

#[test]
fn keys_lead_through_the_page() {
    let Some(page) = Page::open("keys_lead_through_the_page", "") else { return };
    page.wait_count(SHOWN, |count| count > 5);
    page.browser.press("p");
    let rows = page.browser.all(SHOWN, "element.dataset.id");
    let focused = || page.browser.run("return document.activeElement.dataset.id ?? ''").as_str().unwrap_or_default().to_owned();
    for (key, row) in [("j", 0), ("j", 1), ("j", 2), ("k", 1)] {
        page.browser.press(key);
        assert_eq!(focused(), rows[row], "{key}");
    }
    page.browser.press("\u{e007}");
    assert_eq!(page.wait("#verdict-id"), rows[1]);
    page.browser.press("?");
    assert_eq!(page.browser.all("dialog[open]", "element.id"), ["keys"]);
    page.browser.press("\u{e00c}");
    assert_eq!(page.browser.all("dialog[open]", "element.id"), [""; 0]);
    page.browser.press("/");
    assert_eq!(page.browser.run("return document.activeElement.id"), "search");
    page.browser.press("\u{e00c}");
    let theme =
        || page.browser.run("return document.documentElement.dataset.theme ?? 'the system\\'s'").as_str().map(str::to_owned);
    page.browser.press("d");
    let one = theme();
    page.browser.press("d");
    assert_ne!(theme(), one);
    page.browser.press("2");
    page.wait("#tasks tbody tr");
}

#[test]
fn a_phone_shows_every_page_without_scrolling_sideways() {
    let Some(page) = Page::open("a_phone_shows_every_page_without_scrolling_sideways", "") else { return };
    page.browser.screen(390, 844, true);
    page.go("#/live");
    page.wait_count(SHOWN, |count| count > 5);
    let anomaly = page.browser.all(SHOWN, "element.getAttribute('href')")[0].clone();
    for (name, place, sign) in [
        ("live", "#/live", SHOWN),
        ("anomaly", anomaly.as_str(), ".signed li"),
        ("topology", "#/topology", "#tasks tbody tr"),
        ("models", "#/models", "#versions tbody tr"),
    ] {
        page.go(place);
        page.wait(sign);
        let width = page.browser.run("return document.documentElement.scrollWidth");
        assert_eq!(width, 390, "{name}");
        page.keep(&format!("{name}-phone"), true);
    }
}

#[test]
fn the_readmes_picture() {
    let Some(page) = Page::open("the_readmes_picture", "") else { return };
    page.browser.screen(1280, 1160, false);
    page.browser.run("localStorage.setItem('theme', 'light')");
    page.go("");
    page.browser.run("document.documentElement.dataset.theme = 'light'");
    page.wait_count(SHOWN, |count| count > 5);
    page.tile("Lag");
    until("enough figures for a picture", || {
        (page.browser.run("return document.querySelectorAll('.chart svg .bar').length").as_u64() > Some(20)).then_some(())
    });
    let picture = page.keep("readme", false);
    assert!(picture.len() < 300_000, "{} bytes: too many for a README", picture.len());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dashboard.png"), picture).expect("written");
    }
}

/// A token of these scopes, and what the settings know of it.
fn token(scopes: &str) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mangrove"));
    let made = command.args(["token", "new", "--json", "--scopes", scopes, "analyst"]).output().expect("it runs");
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("no {name}: {made}")).to_owned();
    (text("token"), text("entry"))
}

#[test]
fn a_token_opens_the_page_and_no_more_than_its_scopes() {
    let Ok(driver) = std::env::var("MANGROVE_TEST_WEBDRIVER") else {
        return skip("a_token_opens_the_page_and_no_more_than_its_scopes", "MANGROVE_TEST_WEBDRIVER is not set");
    };
    let (token, setting) = token("query");
    let (_service, address) = started("signed", &[("API_TOKENS", &setting)]);
    let browser = Browser::open(&driver, 1280, 900);
    browser.go(&format!("http://{address}/#/topology"));
    until("it asks for a token", || browser.text("dialog[open] #sign-title"));
    browser.fill("#token", "not-the-token");
    browser.click("dialog[open] button.primary");
    until("a wrong one is refused", || browser.text("dialog[open] .bad").filter(|text| text.contains("not known")));
    browser.run("document.getElementById('token').value = ''");
    browser.fill("#token", &token);
    browser.click("dialog[open] button.primary");
    until("the page is there", || (!browser.all("#tasks tbody tr", "1").is_empty()).then_some(()));
    assert_eq!(browser.run("return document.cookie"), "", "no script can read it");
    // It may look and not do.
    browser.go(&format!("http://{address}/#/models"));
    until("the models", || browser.text("#train"));
    browser.click("#train");
    until("it is refused", || {
        let texts = browser.all(".toast, .bad, .missing", "element.textContent");
        texts.iter().any(|text| text.contains("scope")).then_some(())
    });
}
