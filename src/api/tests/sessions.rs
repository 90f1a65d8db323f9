//! The page's cookie, and how many requests a caller has.

use serde_json::json;

use super::access::token;
use super::client::Got;
use super::world::World;
use crate::config::Scope;
use crate::scoring::ScoringParams;

const JSON: &str = "Content-Type: application/json";
const PAYMENT: &[u8] = br#"{"user_id":"u","amount":1,"merchant":"m"}"#;

fn guarded() -> World {
    let tokens =
        vec![token("page", "page-secret", &[Scope::Query, Scope::Write]), token("reader", "read-secret", &[Scope::Query])];
    World::idle(ScoringParams::default(), tokens)
}

/// The cookie as a browser sends it back.
fn cookie(got: &Got) -> String {
    let set = got.header("set-cookie").expect("a cookie");
    format!("Cookie: other=1; {}", set.split(';').next().expect("a pair"))
}

fn log_in(world: &World, secret: &str) -> Got {
    world.client().send(
        "POST",
        "/v1/session",
        &[JSON, "Sec-Fetch-Site: same-origin"],
        json!({"token": secret}).to_string().as_bytes(),
    )
}

#[test]
fn a_token_is_exchanged_for_a_cookie_that_no_script_and_no_other_site_gets() {
    let world = guarded();
    let got = log_in(&world, "page-secret");
    assert_eq!(got.status, 200, "{}", got.text());
    let set = got.header("set-cookie").expect("a cookie").to_owned();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(set.split("; ").any(|part| part == attribute), "{attribute}: {set}");
    }
    assert!(!set.contains("Domain") && !set.contains("secret") && !got.text().contains("secret"), "{set}");
    assert_eq!((&got.json()["name"], &got.json()["scopes"]), (&json!("page"), &json!(["query", "write"])));
    let cookie = cookie(&got);
    let health = world.client().send("GET", "/v1/health", &[&cookie], b"");
    assert_eq!(health.status, 200, "{}", health.text());
    assert_eq!(world.client().send("GET", "/v1/session", &[&cookie], b"").json()["name"], "page");
    assert_eq!(
        world.client().get("/v1/session").json(),
        json!({"token_needed": true, "name": null, "scopes": [], "ends_at": null})
    );
    world.client().send("GET", "/v1/state/users", &[&cookie], b"").problem(403, "forbidden");
}

#[test]
fn a_wrong_token_opens_nothing() {
    let world = guarded();
    for wrong in ["", "page-secre", "page-secret2"] {
        let got = log_in(&world, wrong);
        got.problem(401, "unauthorized");
        assert_eq!(got.header("set-cookie"), None);
    }
    for body in [&b"{}"[..], b"[\"page-secret\"]", br#"{"token":1}"#, br#"{"token":"page-secret","x":1}"#] {
        world.client().send("POST", "/v1/session", &[JSON], body).problem(422, "invalid-request");
    }
    for cookie in ["Cookie: mangrove_session=", "Cookie: mangrove_session=0000", "Cookie: mangrove_session=page-secret"] {
        world.client().send("GET", "/v1/health", &[cookie], b"").problem(401, "unauthorized");
    }
}

#[test]
fn a_write_by_cookie_must_come_from_this_very_page() {
    let world = guarded();
    let cookie = cookie(&log_in(&world, "page-secret"));
    let write = |origin: &[&str]| {
        let headers: Vec<&str> =
            [JSON, cookie.as_str(), "Host: mangrove.example:8000"].into_iter().chain(origin.iter().copied()).collect();
        world.client().send("POST", "/v1/transactions", &headers, PAYMENT)
    };
    for refused in [
        &[][..],
        &["Sec-Fetch-Site: cross-site"],
        &["Sec-Fetch-Site: same-site"],
        &["Sec-Fetch-Site: none"],
        &["Origin: https://evil.example"],
        &["Origin: null"],
        &["Origin: http://mangrove.example:8001"],
        &["Origin: http://mangrove.example:8000", "Sec-Fetch-Site: cross-site"],
    ] {
        write(refused).problem(403, "cross-site");
    }
    for good in [&["Sec-Fetch-Site: same-origin"][..], &["Origin: http://mangrove.example:8000"]] {
        assert_eq!(write(good).status, 202, "{good:?}");
    }
    assert_eq!(world.payments().len(), 2, "what was refused was not written");
    // A token needs no origin: no page can send one that it does not know.
    let by_token = ["Authorization: Bearer page-secret", JSON];
    assert_eq!(world.client().send("POST", "/v1/transactions", &by_token, PAYMENT).status, 202);
    // A wrong token is not made good by a cookie.
    world.client().send("GET", "/v1/health", &[&cookie, "Authorization: Bearer nope"], b"").problem(401, "unauthorized");
}

#[test]
fn a_logout_ends_the_session_and_not_from_elsewhere() {
    let world = guarded();
    let cookie = cookie(&log_in(&world, "page-secret"));
    let end = |origin: &str| world.client().send("DELETE", "/v1/session", &[&cookie, origin], b"");
    end("Origin: https://evil.example").problem(403, "cross-site");
    assert_eq!(world.client().send("GET", "/v1/health", &[&cookie], b"").status, 200);
    let got = end("Sec-Fetch-Site: same-origin");
    assert!(got.status == 200 && got.header("set-cookie").is_some_and(|set| set.contains("Max-Age=0")), "{}", got.text());
    world.client().send("GET", "/v1/health", &[&cookie], b"").problem(401, "unauthorized");
}

#[test]
fn a_session_ends_by_itself() {
    let world = guarded();
    let cookie = cookie(&log_in(&world, "page-secret"));
    world.clock.advance(12 * 3_600_000 - 1);
    assert_eq!(world.client().send("GET", "/v1/health", &[&cookie], b"").status, 200);
    world.clock.advance(1);
    world.client().send("GET", "/v1/health", &[&cookie], b"").problem(401, "unauthorized");
}

#[test]
fn without_tokens_other_sites_pages_can_change_nothing() {
    let world = World::idle(ScoringParams::default(), Vec::new());
    let write = |origin: &str| world.client().send("POST", "/v1/transactions", &[JSON, origin], PAYMENT);
    write("Origin: https://evil.example").problem(403, "cross-site");
    write("Sec-Fetch-Site: cross-site").problem(403, "cross-site");
    assert_eq!(write("Origin: http://localhost").status, 202);
    assert_eq!(write("X-Nothing: 1").status, 202);
    let shown = world.client().get("/v1/session").json();
    assert_eq!((&shown["token_needed"], &shown["scopes"]), (&json!(false), &json!(["query", "write", "erase", "admin"])));
}

#[test]
fn each_caller_has_its_requests_of_a_second() {
    let tokens = vec![token("one", "one-secret", &[Scope::Query]), token("two", "two-secret", &[Scope::Query])];
    let world = World::limited(tokens, 5);
    let mut client = world.client();
    let mut ask = |token: &str| client.send("GET", "/v1/health", &[&format!("Authorization: Bearer {token}")], b"");
    assert!((0..5).all(|_| ask("one-secret").status == 200));
    let got = ask("one-secret");
    got.problem(429, "rate-limited");
    assert_eq!(got.header("retry-after"), Some("1"));
    assert_eq!(ask("two-secret").status, 200, "others have their own");
    assert!((0..5).all(|_| ask("wrong").status == 401));
    ask("wrong").problem(429, "rate-limited");
    assert!((0..20).all(|_| world.client().get("/livez").status != 429), "probes are always answered");
    world.clock.advance(1_000);
    assert_eq!(ask("one-secret").status, 200);
}

#[test]
fn every_answer_forbids_frames_sniffing_and_keeping() {
    let world = guarded();
    for path in ["/livez", "/v1/health", "/nothing", "/v1/session", "/problems/moving"] {
        let got = world.client().get(path);
        let header = |name| got.header(name).unwrap_or_default().to_owned();
        assert_eq!(header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'", "{path}");
        assert_eq!((header("x-content-type-options"), header("x-frame-options")), ("nosniff".into(), "DENY".into()));
        assert_eq!((header("cache-control"), header("referrer-policy")), ("no-store".into(), "no-referrer".into()));
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
    }
}
