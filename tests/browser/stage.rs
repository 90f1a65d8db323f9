//! The demo that all tests look at, and a page of its dashboard.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::Value;

use crate::common::service::Service;
use crate::common::{skip, until};
use crate::driver::Browser;

/// Payments a second: so many that the charts move, so few that the machine is free for the browser.
const RATE: &str = "250";

struct Demo {
    service: Mutex<Service>,
    address: String,
}

/// One demo for all: it is where it was when the next test comes.
fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let (mut service, address) = started("demo", &[]);
        until("the first model", || {
            let (status, body) = service.get("/v1/models");
            let models: Value = serde_json::from_str(&body).ok()?;
            (status == 200 && models["scoring"].is_string()).then_some(())
        });
        Demo { service: Mutex::new(service), address }
    })
}

/// A demo in a folder of that name, from nothing; where it serves.
pub fn started(name: &str, more: &[(&str, &str)]) -> (Service, String) {
    let folder = folder(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mangrove"));
    command.args(["demo", "--rate", RATE, "--dir"]).arg(folder.join("data")).current_dir(&folder);
    let settings = [
        ("HTTP_ADDR", "127.0.0.1:0"),
        ("LOG_FORMAT", "json"),
        ("WORKERS", "1"),
        ("TOPIC_PARTITIONS", "4"),
        ("MEMORY_LIMIT", "512MiB"),
        ("REDIS_URL", ""),
    ];
    command.envs(settings).envs(more.iter().copied());
    let mut service = Service::spawn(&mut command, folder.join("log"));
    let address = service.address();
    (service, address)
}

/// A place in the build's folder.
fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{name}"))
}

/// A window on the demo.
pub struct Page {
    pub browser: Browser,
    service: MutexGuard<'static, Service>,
    address: &'static str,
}

impl Page {
    /// Opens an address of the dashboard; none, said loudly, where there is no browser.
    pub fn open(test: &str, place: &str) -> Option<Self> {
        let Ok(driver) = std::env::var("MANGROVE_TEST_WEBDRIVER") else {
            skip(test, "MANGROVE_TEST_WEBDRIVER is not set");
            return None;
        };
        let Demo { service, address } = demo();
        // One test at a time: what a page says is compared with what the API says next.
        let service = service.lock().unwrap_or_else(PoisonError::into_inner);
        let browser = Browser::open(&driver, 1280, 900);
        browser.screen(1280, 900, false);
        let page = Self { browser, service, address };
        page.go(place);
        Some(page)
    }

    pub fn go(&self, place: &str) {
        self.browser.go(&format!("http://{}/{place}", self.address));
    }

    /// What the API says.
    pub fn ask(&mut self, path: &str) -> Value {
        let (status, body) = self.service.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Waits for an element, and gives its text.
    pub fn wait(&self, selector: &str) -> String {
        until(selector, || self.browser.text(selector))
    }

    /// Waits until such an element's text has this in it.
    pub fn wait_text(&self, selector: &str, part: &str) {
        until(&format!("`{part}` in {selector}"), || {
            let texts = self.browser.all(selector, "element.textContent");
            texts.iter().any(|text| text.contains(part)).then_some(())
        });
    }

    /// Waits until there are as many elements.
    pub fn wait_count(&self, selector: &str, enough: impl Fn(usize) -> bool) -> usize {
        until(&format!("the number of {selector}"), || Some(self.browser.all(selector, "1").len()).filter(|&count| enough(count)))
    }

    /// The figure of a tile.
    pub fn tile(&self, label: &str) -> String {
        let script = format!(
            "return [...document.querySelectorAll('.tile')].find((tile) => tile.querySelector('.label').textContent === {label:?})?.querySelector('strong').textContent ?? null"
        );
        until(&format!("the tile {label}"), || self.browser.run(&script).as_str().filter(|text| *text != "–").map(str::to_owned))
    }

    /// Keeps a picture of the page, and sees to it that nothing went wrong in it.
    pub fn keep(&self, name: &str, whole: bool) -> Vec<u8> {
        assert_eq!(self.browser.complaints(), [""; 0]);
        let picture = self.browser.picture(whole);
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let screenshots = target.parent().expect("the build's folder").join("screenshots");
        std::fs::create_dir_all(&screenshots).expect("a folder");
        std::fs::write(screenshots.join(format!("{name}.png")), &picture).expect("written");
        picture
    }
}

/// A number as people read it, read back.
pub fn figure(text: &str) -> f64 {
    let plain: String = text.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    plain.parse().unwrap_or_else(|_| panic!("no number: {text}"))
}
