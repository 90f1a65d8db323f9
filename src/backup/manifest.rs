//! What a backup says of itself.

use serde::{Deserialize, Serialize};

/// Whose backups these are.
pub(super) const PROGRAM: &str = "mangrove";

/// `manifest.json` of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The program that made it.
    pub program: String,
    /// Its version.
    pub version: String,
    /// The layout; a restore refuses others.
    pub format: u32,
    /// When, RFC 3339.
    pub created: String,
    /// The application's topics in it.
    pub topics: Vec<SavedTopic>,
    /// Every file.
    pub files: Vec<SavedFile>,
}

/// A topic within a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// Offsets between start and end, all partitions together.
    pub offsets: u64,
}

/// A file within a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}
