//! The dashboard: its files, in the binary.
//!
//! Plain HTML, CSS and ES modules without a build step: what is here is what a browser gets. `index.html` is the frame, `main.js` finds the
//! page of an address, `kit.js` has what all pages use, `feed.js` the live stream, `charts.js` the drawings; each page is a file of its own.
//! No inline script or style, nothing from elsewhere: the policy that `api::pages` sends allows neither.

/// A file of the dashboard.
#[derive(Debug)]
pub struct File {
    /// Its name under `/assets/`.
    pub name: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

/// The frame.
pub const INDEX: &[u8] = include_bytes!("index.html");

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal: $content_type:expr,)+) => {
        /// All files but the frame.
        pub static FILES: &[File] = &[$(File { name: $name, content_type: $content_type, bytes: include_bytes!($name) },)+];
    };
}

files! {
    "app.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "main.js": SCRIPT,
    "kit.js": SCRIPT,
    "feed.js": SCRIPT,
    "charts.js": SCRIPT,
    "live.js": SCRIPT,
    "verdict.js": SCRIPT,
    "user.js": SCRIPT,
    "topology.js": SCRIPT,
    "models.js": SCRIPT,
    "load.js": SCRIPT,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_inline_and_nothing_from_elsewhere() {
        let index = std::str::from_utf8(INDEX).expect("text");
        for tag in index.split('<').skip(1).filter_map(|tag| tag.split('>').next()) {
            assert!(!tag.starts_with("style") && !tag.contains(" style=") && !tag.contains(" on"), "{tag}");
            assert!(!tag.starts_with("script") || tag.contains(" src=\"/assets/"), "{tag}");
        }
        for file in FILES {
            let text = std::str::from_utf8(file.bytes).expect("text").replace("http://www.w3.org/", "");
            for banned in ["http://", "https://", "innerHTML", "insertAdjacentHTML", "eval(", "setAttribute('style'"] {
                assert!(!text.contains(banned), "{}: {banned}", file.name);
            }
        }
    }

    #[test]
    fn every_file_that_is_named_is_there() {
        let named = |text: &str| {
            let parts = text.split("/assets/").skip(1).chain(text.split("from './").skip(1));
            parts.map(|rest| rest.split(['"', '\'']).next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        for text in FILES.iter().map(|file| file.bytes).chain([INDEX]) {
            for name in named(std::str::from_utf8(text).expect("text")) {
                assert!(FILES.iter().any(|file| file.name == name), "{name}");
            }
        }
    }
}
