//! Facts about the machine that defaults are derived from: cores and memory, with the limits of a container counted in.
//!
//! Linux only for memory: elsewhere the answer is an error that asks for `MEMORY_LIMIT`, never a guess.

use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// The number of cores that this process may use, as a setting's text.
///
/// # Errors
/// When the platform does not tell.
pub fn cores() -> Result<String, String> {
    // This counts cgroup quotas and CPU affinity in.
    std::thread::available_parallelism().map(|cores| cores.to_string()).map_err(|error| error.to_string())
}

/// Half of the memory that this process may use, as a setting's text in whole MiB.
///
/// # Errors
/// When the platform does not tell.
pub fn half_of_memory() -> Result<String, String> {
    let installed = fs::read_to_string("/proc/meminfo")
        .map_err(|error| format!("/proc/meminfo: {error}"))
        .and_then(|text| installed_memory(&text).ok_or_else(|| "/proc/meminfo has no MemTotal".to_owned()))?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = cgroup_limit(Path::new("/sys/fs/cgroup"), &groups);
    let usable = limit.map_or(installed, |limit| limit.min(installed));
    Ok(format!("{}MiB", usable / 2 / MIB))
}

fn installed_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// The lowest memory limit of the process's control group and of all above it, where there is one.
fn cgroup_limit(mount: &Path, groups: &str) -> Option<u64> {
    let mut lowest: Option<u64> = None;
    for line in groups.lines() {
        // `0::/path` is version 2, `N:memory,...:/path` version 1.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = if controllers.is_empty() {
            (mount.to_owned(), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (mount.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        // Inside a container the path may name a folder that only the host sees; the mount's root is ours then.
        let own = root.join(path.trim_start_matches('/'));
        for folder in own.ancestors().take_while(|folder| folder.starts_with(&root)) {
            // `max` (version 2) does not parse: no limit.
            let limit = fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse().ok());
            lowest = [lowest, limit].into_iter().flatten().min();
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let mount = tempfile::tempdir().unwrap();
        let pod = mount.path().join("kube/pod");
        fs::create_dir_all(&pod).unwrap();
        fs::write(pod.join("memory.max"), "max\n").unwrap();
        fs::write(mount.path().join("kube/memory.max"), "4194304\n").unwrap();
        assert_eq!(cgroup_limit(mount.path(), "0::/kube/pod\n"), Some(4_194_304));
        assert_eq!(cgroup_limit(mount.path(), "0::/elsewhere\n"), None);
        assert_eq!(cgroup_limit(mount.path(), "nonsense"), None);
    }

    #[test]
    fn version_one_groups_are_read_too() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("memory/docker/1");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.limit_in_bytes"), "1048576\n").unwrap();
        assert_eq!(cgroup_limit(mount.path(), "4:cpu:/x\n9:hugetlb,memory:/docker/1\n"), Some(1_048_576));
    }

    #[test]
    fn meminfo_is_in_kib() {
        assert_eq!(installed_memory("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24576 * 1024));
        assert_eq!(installed_memory("MemTotal: much"), None);
    }
}
