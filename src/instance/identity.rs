//! An instance's identity: a random name in the locked state folder.
//!
//! The name makes the group's static members and the producers' transactional ids, so a restart on the same folder gets its partitions
//! back at once and ends what its predecessor left open. The lock keeps two processes from being the same instance.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::InstanceError;

/// A locked state folder.
#[derive(Debug)]
pub struct Identity {
    /// The instance's name: as given, or 12 hexadecimal digits.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    _lock: File,
}

impl Identity {
    /// Locks the folder (creating it if need be); the name is the one given, else the folder's, else a new one.
    ///
    /// # Errors
    /// Where another process holds the folder, or it cannot be written.
    pub fn lock(folder: &Path, given: Option<&str>) -> Result<Self, InstanceError> {
        let failed = |what: &str, why: std::io::Error| {
            InstanceError(format!("{what} {}: {why}. Check STATE_DIR and its permissions", folder.display()))
        };
        std::fs::create_dir_all(folder).map_err(|why| failed("cannot create", why))?;
        let lock = File::create(folder.join("lock")).map_err(|why| failed("cannot write into", why))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(InstanceError(format!(
                    "{} belongs to another running instance. Give each instance a STATE_DIR of its own",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(why)) => return Err(failed("cannot lock", why)),
        }
        let path = folder.join("instance-id");
        if let Some(name) = given {
            return Ok(Self { name: name.to_owned(), folder: folder.to_owned(), _lock: lock });
        }
        let name = match std::fs::read_to_string(&path) {
            Ok(name) if name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
            _ => {
                let name = format!("{:012x}", crate::random::number() >> 16);
                // Whole or not at all: half a name after a crash would be another instance.
                let fresh = folder.join("instance-id.new");
                let write = || {
                    let mut file = File::create(&fresh)?;
                    file.write_all(name.as_bytes())?;
                    file.sync_all()?;
                    std::fs::rename(&fresh, &path)
                };
                write().map_err(|why| failed("cannot write into", why))?;
                name
            }
        };
        Ok(Self { name, folder: folder.to_owned(), _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_and_keeps_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Identity::lock(folder.path(), None).expect("free");
        let refused = Identity::lock(folder.path(), None).expect_err("held");
        assert!(refused.to_string().contains("another running instance"), "{refused}");
        let name = first.name.clone();
        drop(first);
        assert_eq!(Identity::lock(folder.path(), Some("pod-1")).expect("free again").name, "pod-1");
        assert_eq!(Identity::lock(folder.path(), None).expect("free again").name, name);
    }
}
