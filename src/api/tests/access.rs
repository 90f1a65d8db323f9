//! Who may ask.

use sha2::{Digest, Sha256};

use super::world::World;
use crate::api::routes::ROUTES;
use crate::config::{ApiToken, Scope};
use crate::scoring::ScoringParams;

pub(super) fn token(name: &str, text: &str, scopes: &[Scope]) -> ApiToken {
    ApiToken { name: name.into(), scopes: scopes.iter().copied().collect(), sha256: Sha256::digest(text).into() }
}

fn guarded() -> World {
    let tokens = vec![
        token("reader", "read-secret", &[Scope::Query]),
        token("writer", "write-secret", &[Scope::Write, Scope::Erase, Scope::Admin]),
    ];
    let mut world = World::idle(ScoringParams::default(), tokens);
    world.run();
    world.health.started();
    world
}

const GUARDED: [(&str, &str); 6] = [
    ("GET", "/v1/health"),
    ("GET", "/v1/topology"),
    ("GET", "/v1/state"),
    ("GET", "/metrics"),
    ("GET", "/v1/users/u/profile"),
    ("POST", "/v1/inference"),
];
const PAYMENT: &[u8] = br#"{"user_id":"u","transaction":{"amount":1,"merchant":"m"}}"#;

#[test]
fn state_needs_a_token_with_the_scope() {
    let world = guarded();
    let ask = |method, path, authorization: &str| {
        let body = if method == "POST" { PAYMENT } else { b"" };
        world.client().send(method, path, &["Content-Type: application/json", authorization], body)
    };
    for (method, path) in GUARDED {
        let got = ask(method, path, "X-Nothing: 1");
        got.problem(401, "unauthorized");
        assert_eq!(got.header("www-authenticate"), Some("Bearer realm=\"mangrove\""));
        for wrong in ["Bearer nope", "Bearer read-secre", "Bearer read-secret2", "Basic read-secret"] {
            let got = ask(method, path, &format!("Authorization: {wrong}"));
            got.problem(401, "unauthorized");
            assert!(!got.text().contains("nope"), "the token is not echoed");
        }
        let got = ask(method, path, "Authorization: Bearer write-secret");
        got.problem(403, "forbidden");
        assert!(got.header("www-authenticate").is_some_and(|header| header.contains("scope=\"query\"")));
        let got = ask(method, path, "Authorization: bearer read-secret");
        assert!([200, 404].contains(&got.status), "{method} {path}: {}", got.text());
    }
}

#[test]
fn a_body_is_not_read_for_someone_without_a_token() {
    let world = guarded();
    let mut client = world.client();
    client.write(b"POST /v1/inference HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n");
    client.read(false).problem(401, "unauthorized");
}

#[test]
fn probes_and_explanations_are_open() {
    let world = guarded();
    for path in ["/livez", "/readyz", "/startupz", "/problems/no-such-user", "/", "/assets/app.css"] {
        assert_eq!(world.client().send("GET", path, &["Host: mangrove.example.com"], b"").status, 200, "{path}");
    }
}

#[test]
fn every_other_route_is_guarded() {
    let open = [
        "/livez",
        "/readyz",
        "/startupz",
        "/problems/{}",
        "/openapi.json",
        "/schemas/{}",
        "/docs",
        "/docs/{}",
        "/",
        "/assets/{}",
        "/v1/session",
    ];
    for route in ROUTES {
        let is_open = route.access == crate::api::auth::Access::Open;
        assert_eq!(is_open, open.contains(&route.path), "{}", route.path);
    }
}

#[test]
fn without_tokens_only_this_machine_by_its_own_name_is_answered() {
    let mut world = World::idle(ScoringParams::default(), Vec::new());
    world.run();
    for (method, path) in GUARDED {
        let body = if method == "POST" { PAYMENT } else { b"" };
        for host in ["Host: localhost:8000", "Host: 127.0.0.1", "Host: [::1]:8000"] {
            let got = world.client().send(method, path, &[host, "Content-Type: application/json"], body);
            assert!([200, 404].contains(&got.status), "{path}: {}", got.text());
        }
        for host in ["Host: evil.example", "Host: localhost.evil.example:8000", "Host: 192.168.0.7"] {
            let got = world.client().send(method, path, &[host, "Content-Type: application/json"], body);
            got.problem(403, "not-local");
        }
    }
    world.client().send("GET", "http://evil.example/v1/health", &["Host: localhost"], b"").problem(403, "not-local");
}

#[test]
fn only_a_demo_makes_load() {
    let world = World::idle(ScoringParams::default(), Vec::new());
    for method in ["GET", "POST", "DELETE"] {
        world.client().send(method, "/v1/demo/load", &[], b"").problem(404, "no-such-route");
    }
}
