//! What no well-behaved client does, and how the server takes it.

use std::net::TcpStream;

use super::client::Client;
use super::world::World;
use crate::api::problem::Kind;
use crate::scoring::ScoringParams;

const PAYMENT: &[u8] = br#"{"user_id":"u","transaction":{"amount":1,"merchant":"m"}}"#;

fn world() -> World {
    World::running(ScoringParams::default())
}

#[test]
fn paths_and_methods_that_do_not_exist() {
    let world = world();
    for path in ["/assets", "/v1", "/livez/", "/v1/users/a/b/profile", "/v1/users", "//livez", "/problems/nonsense", "/problems/"]
    {
        world.get(path).problem(404, "no-such-route");
    }
    for (method, path, allow) in [
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("PATCH", "/v1/users/u/profile", "GET, HEAD, DELETE"),
        ("GET", "/v1/inference", "POST"),
        ("GET", "/v1/models/rollback", "POST"),
        ("HEAD", "/v1/inference", "POST"),
        ("OPTIONS", "/metrics", "GET, HEAD"),
        ("BREW", "/metrics", "GET, HEAD"),
    ] {
        let got = world.client().send(method, path, &[], b"");
        assert_eq!((got.status, got.header("allow")), (405, Some(allow)), "{method} {path}");
        if method != "HEAD" {
            got.problem(405, "method-not-allowed");
        }
    }
    assert_eq!(world.get("/livez?verbose=%3Cscript%3E").status, 200);
    let got = world.get("/<script>alert(1)</script>");
    assert!(got.status == 400 || !got.text().contains("script"), "{}", got.text());
}

#[test]
fn head_is_get_without_a_body() {
    let world = world();
    let mut client = world.client();
    let head = client.send("HEAD", "/livez", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let length: usize = head.header("content-length").expect("a length").parse().expect("a number");
    assert!(length > 0);
    // The connection goes on: nothing of a body was sent.
    assert_eq!(client.get("/livez").status, 200);
}

#[test]
fn every_answer_has_the_security_headers() {
    let world = world();
    for (path, status) in [("/livez", 200), ("/metrics", 200), ("/v1/users/nobody/profile", 404), ("/nothing", 404)] {
        let got = world.get(path);
        assert_eq!(got.status, status, "{path}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(got.header(name), Some(value), "{path}");
        }
        assert!(got.header("x-request-id").is_some() && got.header("server").is_none());
    }
}

#[test]
fn every_problem_is_explained() {
    let world = world();
    for kind in Kind::ALL {
        let explained = world.get(&format!("/problems/{}", kind.name())).json();
        assert_eq!(explained["type"], format!("/problems/{}", kind.name()));
        assert_eq!(explained["status"], kind.status().as_u16());
        assert!(explained["explanation"].as_str().is_some_and(|text| text.len() > 10), "{explained}");
    }
}

#[test]
fn bodies_of_other_types_are_refused() {
    let world = world();
    for header in [
        "X-None: 1",
        "Content-Type: text/plain",
        "Content-Type: application/jsonx",
        "Content-Type: application/x-www-form-urlencoded",
    ] {
        world.client().send("POST", "/v1/inference", &[header], PAYMENT).problem(415, "unsupported-media-type");
    }
    for header in ["Content-Type: application/json; charset=utf-8", "Content-Type: Application/JSON"] {
        assert_eq!(world.client().send("POST", "/v1/inference", &[header], PAYMENT).status, 200);
    }
}

#[test]
fn bodies_beyond_the_limit_are_refused() {
    let world = world();
    let head = "POST /v1/inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    // Announced: refused before it is sent.
    let mut client = world.client();
    client.write(format!("{head}Content-Length: 1048577\r\n\r\n").as_bytes());
    let got = client.read(false);
    got.problem(413, "body-too-large");
    assert_eq!(got.header("connection"), Some("close"));
    let mut client = world.client();
    client.write(format!("{head}Content-Length: 99999999999999999\r\n\r\n").as_bytes());
    client.read(false).problem(413, "body-too-large");
    // Not announced: refused where it passes the limit.
    let mut client = world.client();
    client.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
    for _ in 0..17 {
        client.write(format!("10000\r\n{}\r\n", " ".repeat(65_536)).as_bytes());
    }
    client.read(false).problem(413, "body-too-large");
    // As large as may be.
    let mut largest = PAYMENT.to_vec();
    largest.resize(1 << 20, b' ');
    assert_eq!(world.client().post("/v1/inference", &largest).status, 200);
}

#[test]
fn broken_http_costs_its_own_connection_only() {
    let world = world();
    let header_of = |bytes: usize| format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(bytes));
    for broken in [
        "nonsense\r\n\r\n",
        "GET /livez\r\n\r\n",
        "GET /livez HTTP/9.9\r\n\r\n",
        "\0\u{1}\u{2}\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost localhost\r\n\r\n",
        "GET /li vez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /v1/inference HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        "POST /v1/inference HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        &header_of(100_000),
    ] {
        let mut client = world.client();
        client.write(broken.as_bytes());
        let answer = client.rest();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{broken:.40}: {answer}");
        assert_eq!(world.get("/livez").status, 200);
    }
    let mut client = world.client();
    client.write(b"POST /v1/inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    client.write(b"Transfer-Encoding: chunked\r\n\r\nzz\r\n");
    client.read(false).problem(400, "broken-body");
}

#[test]
fn a_client_that_is_too_slow_is_let_go() {
    let world = world();
    let mut slow_body = world.client();
    slow_body
        .write(b"POST /v1/inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{");
    let mut slow_head = world.client();
    slow_head.write(b"GET /livez HTTP/1.1\r\nHost: lo");
    let got = slow_body.read(false);
    got.problem(408, "request-timeout");
    assert_eq!(got.header("connection"), Some("close"));
    assert!(!slow_head.rest().contains(" 200 "), "no answer without a whole head");
}

#[test]
fn a_connection_serves_many_requests_and_pipelines_them() {
    let world = world();
    let mut client = world.client();
    for _ in 0..100 {
        assert_eq!(client.get("/livez").status, 200);
        assert_eq!(client.post("/v1/inference", PAYMENT).status, 200);
    }
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write(request.repeat(10).as_bytes());
    for _ in 0..10 {
        assert_eq!(client.read(false).status, 200);
    }
}

#[test]
fn many_clients_at_once_are_all_answered() {
    let world = world();
    let address = world.address;
    let clients: Vec<_> = (0..32)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                (0..50).all(|_| client.post("/v1/inference", PAYMENT).status == 200)
            })
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().expect("no panic")));
}

#[test]
fn the_server_ends_with_its_requests_done() {
    let mut world = world();
    let mut idle = world.client();
    assert_eq!(idle.get("/livez").status, 200);
    let mut busy = world.client();
    let (first, last) = PAYMENT.split_at(5);
    let head = format!(
        "POST /v1/inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        PAYMENT.len()
    );
    busy.write(head.as_bytes());
    // The server is at the request's body.
    assert!(busy.head().starts_with("HTTP/1.1 100"));
    busy.write(first);
    world.tell_to_stop();
    assert_eq!(idle.rest(), "", "idle connections are closed");
    busy.write(last);
    let got = busy.read(false);
    assert_eq!((got.status, got.header("connection")), (200, Some("close")));
    world.wait_for_the_end();
    assert!(TcpStream::connect(world.address).is_err(), "nobody listens any more");
}
