//! Backups of the embedded broker: a consistent copy of its folder, with a manifest that lets a restore refuse what is not whole.
//!
//! ```text
//! DIR/broker/        RocksDB, as a checkpoint makes it: everything committed, at one moment
//! DIR/manifest.json  written last: what has none is no backup
//! ```
//!
//! The broker must not be in use by another process: RocksDB has one owner, and a copy made behind its back is none.
//! A restored log is older than an instance's state folder may be. That is for the instance to notice, and it does: a store that is ahead of
//! its changelog is dropped and rebuilt from it (`topology::restore::plan`).
//! Limits: on the same file system the copy shares unchanged files with the original (hard links); keep one elsewhere as well.

mod manifest;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use topology::broker::{Broker as _, BrokerError, Reader as _};
use topology::record::TopicPartition;

use crate::broker::embedded::EmbeddedBroker;

pub use manifest::{Manifest, SavedFile, SavedTopic};

/// The copy within a backup.
const BROKER: &str = "broker";
const MANIFEST: &str = "manifest.json";
/// The layout of a backup, and what the embedded broker writes.
const FORMAT: u32 = 1;

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It must not be done as things stand.
    #[error("{0}")]
    Refused(String),
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The disk failed.
    #[error("{path}: {why}")]
    Disk {
        /// What was read or written.
        path: String,
        /// What the system says.
        why: std::io::Error,
    },
}

type Result<T> = std::result::Result<T, BackupError>;

fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.display().to_string();
    move |why| BackupError::Disk { path, why }
}

fn refused<T>(why: String) -> Result<T> {
    Err(BackupError::Refused(why))
}

/// Copies the broker to a new or empty folder. `created` is the time for the manifest, RFC 3339.
///
/// # Errors
/// Where the folder holds anything, or the disk fails.
pub fn back_up(broker: &EmbeddedBroker, to: &Path, created: &str) -> Result<Manifest> {
    if to.exists() {
        let mut inside = std::fs::read_dir(to).map_err(disk(to))?;
        if inside.next().is_some() {
            return refused(format!("{} is not empty: a backup goes to a new or empty folder", to.display()));
        }
    }
    std::fs::create_dir_all(to).map_err(disk(to))?;
    let copy = to.join(BROKER);
    broker.backup(&copy)?;
    let mut files = Vec::new();
    for path in list(&copy)? {
        let file = File::open(&path).map_err(disk(&path))?;
        file.sync_all().map_err(disk(&path))?;
        files.push(SavedFile { name: name_in(&copy, &path), bytes: size(&path)?, sha256: digest(&path)? });
    }
    let manifest = Manifest {
        program: manifest::PROGRAM.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        format: FORMAT,
        created: created.into(),
        topics: topics(broker)?,
        files,
    };
    sync_folder(&copy)?;
    let (fresh, path) = (to.join("manifest.json.new"), to.join(MANIFEST));
    let text = serde_json::to_vec_pretty(&manifest).expect("invariant: names and numbers are JSON");
    std::fs::write(&fresh, text).map_err(disk(&fresh))?;
    File::open(&fresh).and_then(|file| file.sync_all()).map_err(disk(&fresh))?;
    std::fs::rename(&fresh, &path).map_err(disk(&path))?;
    sync_folder(to)?;
    Ok(manifest)
}

/// The topics that the application knows, as they are in the copy: nothing is written while this process has the broker.
fn topics(broker: &EmbeddedBroker) -> Result<Vec<SavedTopic>> {
    let mut reader = broker.reader()?;
    let mut saved = Vec::new();
    for (topic, name) in broker.topics().clone().iter() {
        let Some(info) = broker.describe(&[topic])?.pop().flatten() else { continue };
        let mut records = 0;
        for partition in 0..info.partitions {
            let bounds = reader.bounds(TopicPartition { topic, partition })?;
            records += bounds.end - bounds.start;
        }
        saved.push(SavedTopic { name: name.into(), partitions: info.partitions, offsets: records });
    }
    Ok(saved)
}

/// Reads a backup's manifest and checks every file against it.
///
/// # Errors
/// What is missing, damaged or foreign.
pub fn check(from: &Path) -> Result<Manifest> {
    let path = from.join(MANIFEST);
    let text = match std::fs::read(&path) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            return refused(format!("{} is no backup, or one that was not finished: it has no {MANIFEST}", from.display()));
        }
        read => read.map_err(disk(&path))?,
    };
    let manifest: Manifest = match serde_json::from_slice(&text) {
        Ok(manifest) => manifest,
        Err(why) => return refused(format!("{} is not a manifest of a backup: {why}", path.display())),
    };
    if manifest.program != manifest::PROGRAM || manifest.format != FORMAT {
        return refused(format!(
            "{} was made by {} {} in format {}; this program restores format {FORMAT} of {}",
            from.display(),
            manifest.program,
            manifest.version,
            manifest.format,
            manifest::PROGRAM
        ));
    }
    let copy = from.join(BROKER);
    let mut faults = Vec::new();
    for file in &manifest.files {
        let path = copy.join(&file.name);
        if !is_plain(&file.name) {
            faults.push(format!("{} is not a file of a backup", file.name));
        } else if !path.is_file() {
            faults.push(format!("{} is missing", file.name));
        } else if size(&path)? != file.bytes || digest(&path)? != file.sha256 {
            faults.push(format!("{} is not what was saved", file.name));
        }
    }
    for path in list(&copy)? {
        let name = name_in(&copy, &path);
        if !manifest.files.iter().any(|file| file.name == name) {
            faults.push(format!("{name} was not saved"));
        }
    }
    if faults.is_empty() { Ok(manifest) } else { refused(format!("{} is damaged: {}", from.display(), faults.join("; "))) }
}

/// Puts a checked backup in the place of a broker's folder. With `force` one that is there is replaced, once the copy is whole.
///
/// # Errors
/// As [`check`]; where the folder holds anything and is not to be replaced; where the disk fails: what was there is then there still.
pub fn restore(from: &Path, target: &Path, force: bool) -> Result<Manifest> {
    let manifest = check(from)?;
    let occupied = target.exists() && std::fs::read_dir(target).map_err(disk(target))?.next().is_some();
    if occupied && !force {
        return refused(format!("{} holds a broker already: give --force to replace it", target.display()));
    }
    let (fresh, old) = (beside(target, "restoring"), beside(target, "replaced"));
    for left in [&fresh, &old] {
        if left.exists() {
            std::fs::remove_dir_all(left).map_err(disk(left))?;
        }
    }
    std::fs::create_dir_all(&fresh).map_err(disk(&fresh))?;
    for file in &manifest.files {
        let (source, copy) = (from.join(BROKER).join(&file.name), fresh.join(&file.name));
        std::fs::copy(&source, &copy).map_err(disk(&copy))?;
        File::open(&copy).and_then(|file| file.sync_all()).map_err(disk(&copy))?;
    }
    sync_folder(&fresh)?;
    if target.exists() {
        std::fs::rename(target, &old).map_err(disk(target))?;
    }
    std::fs::rename(&fresh, target).map_err(disk(target))?;
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_folder(parent)?;
    }
    if old.exists() {
        std::fs::remove_dir_all(&old).map_err(disk(&old))?;
    }
    Ok(manifest)
}

fn beside(target: &Path, what: &str) -> PathBuf {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(format!("{name}.{what}"))
}

/// The name of a file directly in the folder, and nothing that leads elsewhere.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && Path::new(name).file_name().is_some_and(|file| file == name)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(disk(folder))? {
        paths.push(entry.map_err(disk(folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn name_in(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned()
}

fn size(path: &Path) -> Result<u64> {
    std::fs::metadata(path).map(|metadata| metadata.len()).map_err(disk(path))
}

fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(disk(path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(disk(path))? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk(folder))
}
