//! What each page shows and does, compared with what the API says.

use serde_json::Value;

use crate::common::until;
use crate::stage::{Page, figure};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Ids of the newest anomalies as the API has them.
fn anomalies(page: &mut Page) -> Vec<String> {
    let body = page.ask("/v1/recent/verdicts?severity=low&limit=1000");
    body["verdicts"].as_array().expect("a list").iter().map(|one| text(&one["verdict"]["id"]).to_owned()).collect()
}

const SHOWN: &str = "#anomalies [data-id]";

fn shown(page: &Page) -> Vec<String> {
    page.browser.all(SHOWN, "element.dataset.id")
}

#[test]
fn the_live_page_shows_what_comes_and_can_be_held() {
    let Some(mut page) = Page::open("the_live_page_shows_what_comes_and_can_be_held", "") else { return };
    page.wait_text("#link", "live");
    page.wait_count(SHOWN, |count| count > 5);
    let first = shown(&page);
    let known = anomalies(&mut page);
    assert!(first.iter().all(|id| known.contains(id)), "each one shown is one that the API has");

    // By the stream, without a reload.
    until("a new anomaly", || (shown(&page).first() != first.first()).then_some(()));
    let rate = figure(&page.tile("Payments a second"));
    let seconds = page.ask("/v1/live");
    let seconds: Vec<f64> =
        seconds["seconds"].as_array().expect("a list").iter().map(|one| one["verdicts"].as_f64().expect("a count")).collect();
    let means: Vec<f64> = (1..=seconds.len())
        .map(|end| &seconds[end.saturating_sub(10)..end])
        .map(|ten| ten.iter().sum::<f64>() / ten.len() as f64)
        .collect();
    let near = means.iter().any(|mean| (mean - rate).abs() <= 1.0);
    assert!(near, "{rate} payments a second is the mean of some ten seconds: {means:?}");
    assert!(figure(&page.tile("Commit, p99")) > 0.0);
    page.wait_count(".chart svg .stroke", |count| count == 4);
    page.wait_count(".chart svg .bar", |count| count > 0);

    // Held: others come, and are counted.
    page.browser.click("#pause");
    let held = shown(&page);
    page.wait_text("#pause", "new");
    assert_eq!(shown(&page), held);
    page.browser.press("p");
    until("the list goes on", || (shown(&page).first() != held.first()).then_some(()));
    assert_eq!(page.wait("#pause"), "Pause");

    // Narrowed by severity, and by text.
    page.browser.click("[data-least=CRITICAL]");
    let severities = page.browser.all("#anomalies .anomaly .pill", "element.textContent");
    assert!(severities.iter().all(|severity| severity == "critical"), "{severities:?}");
    page.browser.click("[data-least=LOW]");
    let user = page.browser.text("#anomalies .what b").expect("a user");
    page.browser.fill("#filter", &user);
    let users = page.browser.all("#anomalies .what b:first-child", "element.textContent");
    assert!(!users.is_empty() && users.iter().all(|one| *one == user), "{user}: {users:?}");
    page.browser.fill("#filter", " nobody has this name");
    page.wait_text("#list-note", "None of the latest");
    page.go("#/live");
}

#[test]
fn one_anomaly_is_told_with_its_reasons_and_can_be_decided() {
    let Some(mut page) = Page::open("one_anomaly_is_told_with_its_reasons_and_can_be_decided", "") else { return };
    page.wait_count(SHOWN, |count| count > 5);
    page.browser.click("#pause");
    let id = shown(&page)[0].clone();
    page.browser.click(SHOWN);
    assert_eq!(page.wait("#verdict-id"), id);
    let found = page.ask(&format!("/v1/recent/verdicts/{id}"));
    let verdict = &found["verdict"];
    let title = page.wait("h1");
    assert!(title.contains(text(&verdict["merchant"])), "{title}");
    assert_eq!(
        figure(title.split(" to ").next().expect("an amount")),
        (verdict["amount"].as_f64().expect("an amount") * 100.0).round() / 100.0
    );
    let sub = page.wait(".title .sub");
    assert!(
        sub.contains(&format!("Score {:.3}", verdict["score"].as_f64().expect("a score")))
            && sub.contains(text(&verdict["explanation"])),
        "{sub}"
    );
    page.wait_text(".facts", &format!("partition {}, offset {} of the verdicts topic", found["partition"], found["offset"]));

    // A bar for each feature that did anything, to its side, with its figure.
    let steps = found["contributions"].as_array().expect("the model still scores");
    let mut wanted: Vec<f64> =
        steps.iter().map(|step| step["contribution"].as_f64().expect("a number")).filter(|step| step.abs() >= 0.005).collect();
    wanted.sort_by(|one, other| other.total_cmp(one));
    let bars = page.browser.all(
        ".signed li",
        "element.querySelector('.value').textContent + ' ' + element.querySelector('rect').getAttribute('class')",
    );
    let wanted: Vec<String> = wanted
        .iter()
        .map(|step| {
            format!("{}{:.2} {}", if *step > 0.0 { '+' } else { '−' }, step.abs(), if *step > 0.0 { "raises" } else { "lowers" })
        })
        .collect();
    assert_eq!(bars, wanted);

    // Against the user's normal: amounts with this one marked, the clock, the last payments.
    page.wait_text(".marked", "this one");
    page.wait_count(".dial .hand", |count| count == 1);
    let user = text(&verdict["user_id"]);
    let listed = page.browser.all("[aria-label='Latest payments of this user'] tbody tr td:nth-child(3)", "element.textContent");
    let recent = page.ask(&format!("/v1/recent/verdicts?user={user}&limit=1000"));
    let merchants: Vec<&str> =
        recent["verdicts"].as_array().expect("a list").iter().map(|one| text(&one["verdict"]["merchant"])).collect();
    assert!(
        !listed.is_empty() && merchants.windows(listed.len()).any(|some| some == listed),
        "{listed:?} are among {merchants:?}"
    );
    page.keep("anomaly", true);

    // Decided: what the page says is what the API said.
    page.browser.click("#fraud");
    page.browser.fill("#confirm-field", "the card was stolen");
    page.browser.click("#confirm-yes");
    page.wait_text(".toast", "Labelled as fraud");
    // The demo pays now: the last day has it.
    let quality = || Some(page.ask("/v1/quality?days=1")).filter(|quality| quality["labelled"].as_u64() > Some(0));
    until("the label counts", quality);
}

#[test]
fn who_is_snoozed_is_left_out_of_the_list_and_scored_all_the_same() {
    let Some(mut page) = Page::open("who_is_snoozed_is_left_out_of_the_list_and_scored_all_the_same", "") else { return };
    page.wait_count(SHOWN, |count| count > 5);
    page.browser.click("#pause");
    let user = page.browser.text("#anomalies .what b").expect("a user");
    page.browser.click(SHOWN);
    page.wait("#verdict-id");
    page.browser.click("#snooze");
    page.browser.fill("#confirm-field", "travels this week");
    page.browser.click("#confirm-yes");
    page.wait_text(".toast", "Snoozed for a day");
    let snoozes = page.ask("/v1/snoozes");
    let one = snoozes["snoozes"].as_array().expect("a list").iter().find(|one| one["name"] == *user).expect("it is kept");
    assert_eq!(one["reason"], "travels this week");
    page.go("#/live");
    page.wait_text("#snoozed-note", "left out");
    let users = page.browser.all("#anomalies .what b:first-child", "element.textContent");
    assert!(!users.is_empty() && !users.contains(&user), "{user} among {users:?}");
    let recent = page.ask(&format!("/v1/recent/verdicts?user={user}&limit=10"));
    assert!(!recent["verdicts"].as_array().expect("a list").is_empty(), "verdicts are as ever");
}

#[test]
fn a_user_is_shown_as_the_profile_has_it() {
    let Some(mut page) = Page::open("a_user_is_shown_as_the_profile_has_it", "") else { return };
    let user = text(&page.ask("/v1/state/users?limit=1")["users"][0]["user_id"]).to_owned();
    let path = format!("/v1/users/{user}/profile");
    let before = page.ask(&path);
    page.browser.press("/");
    page.browser.fill("#search", &user);
    page.browser.press("\u{e007}");
    page.wait_text("h1", &user);
    let seen = figure(&page.tile("Payments"));
    let after = page.ask(&path);
    let count = |profile: &Value| profile["count"].as_f64().expect("a count");
    assert!(count(&before) <= seen && seen <= count(&after), "{seen} payments");
    let merchants = page.browser.all("[aria-label=Merchants] tbody tr td:first-child", "element.textContent");
    let known: Vec<&str> =
        after["merchants"]["top"].as_array().expect("a list").iter().map(|one| text(&one["merchant"])).collect();
    assert!(
        !merchants.is_empty()
            && merchants.iter().filter(|merchant| known.contains(&merchant.as_str())).count() + 1 >= merchants.len(),
        "{merchants:?} {known:?}"
    );
    page.wait_count(".dial path.usual", |count| count > 0);
    page.wait_count("[aria-label='Payments of this user'] tbody tr", |count| count > 0);
    page.keep("user", true);

    for (button, done) in [("#reset", "The profile is reset."), ("#erase", "Erased.")] {
        page.browser.click(button);
        page.wait("dialog[open] h2");
        page.browser.click("#confirm-yes");
        page.wait_text(".toast", done);
    }
    page.wait_count("[aria-label=Receipt] tbody tr", |count| count > 0);
    page.keep("receipt", true);

    page.go("#/user/nobody%20has%20this%20name");
    page.wait_text(".missing", "Not available: the user's partition has no such user");
}

#[test]
fn the_topology_is_drawn_with_owners_and_lag() {
    let Some(mut page) = Page::open("the_topology_is_drawn_with_owners_and_lag", "#/topology") else { return };
    let topology = page.ask("/v1/topology");
    let rows = page.wait_count("#tasks tbody tr", |count| count > 0);
    let tasks = topology["tasks"].as_array().expect("a list");
    assert_eq!(rows, tasks.len());
    let owners = page.browser.all(
        "#tasks tbody tr",
        "element.children[0].textContent + ' ' + element.children[1].textContent + ' ' + element.children[2].textContent",
    );
    let wanted: Vec<String> = tasks
        .iter()
        .map(|task| format!("{} {} {}", text(&task["task"]), text(&task["phase"]), text(&task["instance"])))
        .collect();
    assert_eq!(owners, wanted);
    let nodes = page.browser.all(".graph g text:first-of-type", "element.textContent");
    for edge in topology["graph"]["edges"].as_array().expect("a list") {
        assert!(
            nodes.iter().any(|node| node == text(&edge["from"])) && nodes.iter().any(|node| node == text(&edge["to"])),
            "{edge}"
        );
    }
    // Live: offsets grow, so there is a rate.
    until("a rate", || (figure(&page.tile("Payments a second")) > 0.0).then_some(()));
    let state = page.ask("/v1/state");
    page.wait_count("#state tbody tr", |count| count == state["partitions"].as_array().expect("a list").len());
    let letters = page.ask("/v1/dead-letters");
    page.wait_text(
        "#letters",
        &format!("{} dead letters, {} to be redriven", letters["letters"]["letters"], letters["letters"]["matching"]),
    );
    let tiers = page.ask("/v1/health")["tiers"].as_array().expect("a list").len();
    page.wait_count("#tiers tbody tr", |count| count == tiers);
    page.keep("topology", true);
}

#[test]
fn models_are_trained_promoted_and_rolled_back() {
    let Some(mut page) = Page::open("models_are_trained_promoted_and_rolled_back", "#/models") else { return };
    let begin = page.ask("/v1/models");
    let active = text(&begin["active"]["model"]).to_owned();
    assert_eq!(page.tile("Active"), active);
    page.browser.click("#train");
    page.wait_text("#training", "Model ");
    let made = page.browser.text("#training a").expect("a model");
    let report = page.ask(&format!("/v1/models/{made}"));
    page.browser.click(&format!("#versions [href='#/models/{made}']"));
    page.wait_text("#version h2", &made);
    let checks = report["report"]["checks"].as_array().expect("a list");
    let shown = page.browser.all("#version tbody tr", "element.children[0].textContent + ' ' + element.children[1].textContent");
    let wanted: Vec<String> =
        checks.iter().map(|check| format!("{} {}", text(&check["name"]).replace('_', " "), text(&check["outcome"]))).collect();
    assert_eq!(shown, wanted);
    page.keep("models", true);

    page.browser.click(&format!("[data-promote='{made}']"));
    page.browser.click("#confirm-yes");
    page.wait_text(".toast", "Promoted");
    assert_eq!(page.ask("/v1/models")["active"]["model"], made.as_str());
    until("the page says so", || (page.tile("Active") == made).then_some(()));
    page.browser.click("#rollback");
    page.browser.click("#confirm-yes");
    page.wait_text(".toast", "Rolled back");
    assert_eq!(page.ask("/v1/models")["active"]["model"], active.as_str());
    until("the page says so", || (page.tile("Active") == active).then_some(()));
}

#[test]
fn load_is_started_and_stopped_and_what_it_breaks_is_redriven() {
    let Some(mut page) = Page::open("load_is_started_and_stopped_and_what_it_breaks_is_redriven", "") else { return };
    page.wait_text("#link", "live");
    let hidden = || page.browser.all("#tabs [data-page=load]", "element.hidden") == ["true"];
    until("the tab is there", || (!hidden()).then_some(()));
    page.go("#/load");
    page.wait("#start");
    page.browser
        .run("for (const [id, value] of [['load-rate', 250], ['load-poison', 5]]) document.getElementById(id).value = value");
    page.browser.click("#start");
    page.wait_text(".tile strong", "running");
    assert_eq!(page.ask("/v1/demo/load")["state"], "running");
    until("payments are sent", || (figure(&page.tile("Sent")) > 500.0).then_some(()));
    page.keep("load", true);
    page.browser.click("#stop");
    page.wait_text(".tile strong", "stopped");
    let told = page.ask("/v1/demo/load");
    assert_eq!(told["state"], "stopped");
    until("the last figures", || (figure(&page.tile("Sent")) == told["report"]["sent"].as_f64().expect("a count")).then_some(()));
    // The tests that follow look at a demo that goes on.
    page.browser.run("document.getElementById('load-poison').value = 0");
    page.browser.click("#start");
    page.wait_text(".tile strong", "running");

    page.go("#/topology");
    page.wait("#redrive:not([disabled])");
    page.browser.click("#redrive");
    page.wait("dialog[open] h2");
    page.browser.click("#confirm-yes");
    page.wait_text("#letters", "The last redrive from here sent");
    let sent = page.ask("/v1/dead-letters")["redrive"]["last"]["redriven"].as_u64().expect("a count");
    assert!(sent > 0);
    page.wait_text("#letters", &format!("sent {sent} back"));
}
