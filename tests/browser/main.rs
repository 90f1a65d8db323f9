//! The dashboard in a real, headless Chromium, against a live `mangrove demo` on the embedded broker.
//!
//! Each page is clicked through, what it shows is compared with the API's answers, axe looks for faults of accessibility, and screenshots are
//! kept in `target/screenshots`. `UPDATE_DOCS=1` renews the README's picture. `MANGROVE_TEST_WEBDRIVER` is the address of a running chromedriver
//! (`scripts/testbed.sh up` starts one); without it each test says loudly that it was skipped.
//!
//! | file | role |
//! |---|---|
//! | `driver` | WebDriver (W3C) in small: sessions, elements, keys, scripts, screenshots |
//! | `stage` | the demo, shared by all tests, and a page in a window of its own |
//! | `pages` | what each page shows and does |
//! | `access` | axe, keys, phones, colours |
//!
//! `vendor/axe.min.js` is axe-core 4.14.1, unchanged (MPL-2.0: `vendor/axe.LICENSE`); it is in no binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests of real time with a real browser, whose address the environment names")]

mod access;
#[path = "../common/mod.rs"]
mod common;
mod driver;
mod pages;
mod stage;
