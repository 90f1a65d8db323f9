//! A support archive: what someone needs who has to help from afar, and nothing that they must not see.
//!
//! Inside, under `mangrove-bundle/`: version, settings with their sources, the checks, the topology, what the state folder holds (sizes and
//! positions, no keys, no values), the end of a log file, and what a running instance answers. All text passes through [`Scrub`].
//! Each part that could not be had says why in its own place: a bundle is most wanted when things are broken.

mod folder;
mod scrub;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

pub use scrub::Scrub;

use crate::ask::Desk;

/// Log lines kept.
const LOG_LINES: usize = 2_000;
/// Bytes of a log file that are looked at.
const LOG_BYTES: u64 = 4 << 20;
/// How long a running instance may take for an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// What a running instance is asked for: nothing here tells of users.
const QUESTIONS: [&str; 7] = ["/livez", "/readyz", "/startupz", "/metrics", "/v1/health", "/v1/topology", "/v1/state"];

/// What goes into a bundle, by name, before scrubbing.
#[derive(Clone, Debug, Default)]
pub struct Parts(Vec<(String, String)>);

impl Parts {
    /// Adds a part.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.0.push((name.into(), text.into()));
    }

    /// Adds what the state folder holds.
    pub fn add_state(&mut self, folder: &Path) {
        self.add("state.txt", folder::describe(folder));
    }

    /// Adds the end of a log file.
    pub fn add_log(&mut self, path: &Path) {
        let text = folder::tail(path, LOG_BYTES, LOG_LINES).unwrap_or_else(|why| format!("{}: {why}", path.display()));
        self.add("log.txt", text);
    }

    /// Adds what an instance answers.
    pub(crate) fn add_answers(&mut self, desk: &Desk) {
        for question in QUESTIONS {
            let answer = desk.get(question, ANSWER);
            let answer = answer.unwrap_or_else(|why| format!("no answer from {}: {why}", desk.url(question)));
            self.add(format!("http{}.txt", question.replace('/', "-")), answer);
        }
    }

    /// Writes all parts, scrubbed, as a gzipped tar; whole or not at all. Tells their names.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, to: &Path, scrub: &Scrub, now_ms: i64) -> std::io::Result<Vec<String>> {
        let fresh = PathBuf::from(format!("{}.new", to.display()));
        let mut archive = tar::Builder::new(GzEncoder::new(File::create(&fresh)?, Compression::default()));
        for (name, text) in &self.0 {
            let text = scrub.text(text);
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(now_ms / 1000).unwrap_or(0));
            archive.append_data(&mut header, format!("mangrove-bundle/{name}"), text.as_bytes())?;
        }
        let mut file = archive.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()?;
        std::fs::rename(fresh, to)?;
        Ok(self.0.iter().map(|(name, _)| name.clone()).collect())
    }
}
