//! What lies in folders and at the end of files, without what it says.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Result, Seek as _, SeekFrom};
use std::path::Path;

/// Files with their sizes, and the positions of the stores; both work beside a running instance.
pub(super) fn describe(folder: &Path) -> String {
    let mut out = format!("{}\n", folder.display());
    list(folder, 0, &mut out);
    let store = folder.join("rocksdb");
    if !store.join("CURRENT").exists() {
        out.push_str("no store\n");
        return out;
    }
    match state::rocks::positions(&store) {
        Err(why) => {
            let _ = writeln!(out, "positions cannot be read: {why}");
        }
        Ok(all) => {
            for (partition, positions) in all {
                let inputs: Vec<String> = positions.inputs.iter().map(|(topic, next)| format!("{topic} {next}")).collect();
                let _ = writeln!(
                    out,
                    "{partition}: changelog {}, inputs [{}], current at {} ms",
                    positions.changelog,
                    inputs.join(", "),
                    positions.current_at_ms
                );
            }
        }
    }
    out
}

fn list(folder: &Path, depth: usize, out: &mut String) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        let _ = writeln!(out, "{:depth$}cannot be read", "");
        return;
    };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                let _ = writeln!(out, "{:depth$}{name}/", "");
                list(&entry.path(), depth + 2, out);
            }
            Ok(metadata) => {
                let _ = writeln!(out, "{:depth$}{name} {} bytes", "", metadata.len());
            }
            Err(why) => {
                let _ = writeln!(out, "{:depth$}{name}: {why}", "");
            }
        }
    }
}

/// The last lines of a file, from its last bytes.
pub(super) fn tail(path: &Path, bytes: u64, lines: usize) -> Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let from = size.saturating_sub(bytes);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    // The first one may be half a line.
    let whole: Vec<&str> = text.lines().skip(usize::from(from > 0)).collect();
    Ok(whole[whole.len().saturating_sub(lines)..].join("\n"))
}
