//! A file system of a few MiB in memory, to be filled: full disks are real here, and nobody else's.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted for a test's time.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// None, said loudly, where nothing may be mounted.
    pub fn mount(test: &str, path: PathBuf, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(&path).expect("a folder");
        let size = format!("size={mib}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output().expect("mount runs");
        if done.status.success() {
            return Some(Self { path });
        }
        super::skip(test, &format!("no tmpfs can be mounted: {}", String::from_utf8_lossy(&done.stderr).trim()));
        None
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the room there is but so many bytes.
    pub fn fill_but(&self, left: u64) {
        self.fill();
        let ballast = File::options().write(true).open(self.ballast()).expect("a file");
        let size = ballast.metadata().expect("its size").len();
        ballast.set_len(size - left).expect("cut");
    }

    /// Takes all the room there is.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("a file");
        for size in [1 << 20, 1 << 12] {
            let block = vec![0_u8; size];
            while ballast.write_all(&block).is_ok() {}
        }
    }

    /// Gives it back.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("removed");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failure a process may still hold files.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
