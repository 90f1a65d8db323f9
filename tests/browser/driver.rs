//! WebDriver (W3C, Level 2) in small, over one connection for each command.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

/// For a command: a page under load, and a browser that starts on a busy machine.
const ANSWER: Duration = Duration::from_secs(60);
/// The key that an element's reference is under (W3C, 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A window of a browser; closed when dropped.
pub struct Browser {
    address: String,
    session: String,
}

impl Browser {
    /// Opens one at the driver's `host:port`.
    pub fn open(address: &str, width: u32, height: u32) -> Self {
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--force-color-profile=srgb".to_owned(),
            format!("--window-size={width},{height}"),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let mut browser = Self { address: address.to_owned(), session: String::new() };
        let opened = browser.command("POST", "/session", &capabilities);
        browser.session = opened["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    /// Sends a command of the session and gives its value.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        self.command(method, &format!("/session/{}{path}", self.session), body)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.try_command(method, path, body).expect("the driver answers");
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["value"].clone()
    }

    fn try_command(&self, method: &str, path: &str, body: &Value) -> std::io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n", self.address);
        write!(stream, "{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut bytes = Vec::new();
        let mut some = [0; 1 << 16];
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let length =
                    head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
                if length.is_some_and(|length: usize| rest.len() >= length) {
                    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
                    return Ok((status, serde_json::from_str(rest).unwrap_or(Value::Null)));
                }
            }
            match stream.read(&mut some)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => bytes.extend_from_slice(&some[..read]),
            }
        }
    }

    pub fn go(&self, url: &str) {
        self.send("POST", "/url", &json!({ "url": url }));
    }

    /// Runs a function body and gives what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.send("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Runs a function body that calls its last argument with what it gives.
    pub fn run_async(&self, script: &str) -> Value {
        self.send("POST", "/execute/async", &json!({ "script": script, "args": [] }))
    }

    fn find(&self, selector: &str) -> Option<String> {
        let body = json!({ "using": "css selector", "value": selector });
        let found = self.send("POST", "/elements", &body);
        found[0][ELEMENT].as_str().map(str::to_owned)
    }

    /// As a person clicks: fails where the element is covered or not shown.
    pub fn click(&self, selector: &str) {
        let element = self.find(selector).unwrap_or_else(|| panic!("no element {selector}"));
        self.send("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Types into an element.
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector).unwrap_or_else(|| panic!("no element {selector}"));
        self.send("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses a key wherever the focus is.
    pub fn press(&self, key: &str) {
        let actions = [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        self.send("POST", "/actions", &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}));
    }

    /// The text of the first such element; none where there is none.
    pub fn text(&self, selector: &str) -> Option<String> {
        let script = format!("return document.querySelector({})?.textContent ?? null", json!(selector));
        self.run(&script).as_str().map(str::to_owned)
    }

    /// What an expression of `element` gives for all such elements.
    pub fn all(&self, selector: &str, expression: &str) -> Vec<String> {
        let script = format!("return [...document.querySelectorAll({})].map((element) => String({expression}))", json!(selector));
        let values = self.run(&script);
        values.as_array().expect("a list").iter().map(|value| value.as_str().expect("text").to_owned()).collect()
    }

    /// What the page's scripts failed at, and what its policy kept from happening.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.send("POST", "/se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().expect("a list").iter().filter_map(|entry| entry["message"].as_str());
        lines
            .filter(|line| line.contains("Uncaught") || line.contains("Content Security") || line.contains("Refused"))
            .map(str::to_owned)
            .collect()
    }

    /// A picture of the window, or with `whole` of the whole page.
    pub fn picture(&self, whole: bool) -> Vec<u8> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": whole, "clip": null });
        let command =
            if whole { self.whole(parameters) } else { json!({"cmd": "Page.captureScreenshot", "params": {"format": "png"}}) };
        let shot = self.send("POST", "/goog/cdp/execute", &command);
        decode(shot["data"].as_str().expect("a picture"))
    }

    fn whole(&self, mut parameters: Value) -> Value {
        let size = self.run("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]");
        parameters["clip"] = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        json!({"cmd": "Page.captureScreenshot", "params": parameters})
    }

    /// Makes the page believe in a screen of this size.
    pub fn screen(&self, width: u32, height: u32, phone: bool) {
        let parameters =
            json!({ "width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone });
        self.send("POST", "/goog/cdp/execute", &json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": parameters}));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver's own end closes what is left.
        let _ = self.try_command("DELETE", &format!("/session/{}", self.session), &Value::Null);
    }
}

/// Base64 (RFC 4648), as the driver gives pictures.
fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("no digit of base64: {other}"),
    };
    let digits: Vec<u8> = text.bytes().filter(|&byte| byte != b'=').map(digit).collect();
    let whole = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().enumerate().fold(0_u32, |bits, (at, &digit)| bits | u32::from(digit) << (18 - 6 * at));
        bits.to_be_bytes().into_iter().skip(1).take(four.len() - 1).collect::<Vec<_>>()
    });
    whole.collect()
}

#[test]
fn pictures_are_decoded() {
    for (text, bytes) in
        [("", &b""[..]), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("Zm9vYmFy", b"foobar"), ("+/8=", &[0xfb, 0xff])]
    {
        assert_eq!(decode(text), bytes, "{text}");
    }
}
