//! The suite on RocksDB, and what only a disk can do: survive a kill, be damaged, be full.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::conformance::{self, all, partition, positions, round_bytes, set_of};

const SMALL: RocksOptions = RocksOptions { memory_bytes: 16 << 20, partitions: 4, background_jobs: 2 };

fn open(path: &Path) -> RocksBackend {
    RocksBackend::open(path, SMALL).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut paths: Vec<PathBuf> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The manifest first: what it names exists until deletions go on.
    paths.sort_by_key(|path| !path.file_name().unwrap().to_string_lossy().starts_with(['C', 'M']));
    for path in paths {
        let name = path.file_name().unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if name != "LOCK" && path.extension().is_none_or(|extension| extension != "dbtmp") {
            // A file that goes while we look was on its way out already, and the manifest copied before doesn't name it.
            let copied = fs::copy(&path, to.join(name));
            assert!(copied.as_ref().err().is_none_or(|error| error.kind() == std::io::ErrorKind::NotFound), "{copied:?}");
        }
    }
}

/// What the disk holds at this moment, flushes and all: what a killed process leaves, as the log is written (not synced) before a
/// write returns.
fn copy_live(backend: &RocksBackend, to: &Path) {
    backend.db.disable_file_deletions().unwrap();
    copy(&backend.path, to);
    backend.db.enable_file_deletions().unwrap();
}

#[test]
fn conforms() {
    let root = TempDir::new().unwrap();
    let mut lives = 0;
    conformance::suite(|| {
        lives += 1;
        open(&root.path().join(lives.to_string()))
    });
}

#[test]
fn content_outlives_the_process() {
    let root = TempDir::new().unwrap();
    conformance::reopening(|| open(root.path()), drop);
}

#[test]
fn content_outlives_a_kill() {
    let root = TempDir::new().unwrap();
    let life = std::cell::Cell::new(0);
    let path = |life: u32| root.path().join(life.to_string());
    conformance::reopening(
        || open(&path(life.get())),
        |backend| {
            copy_live(&backend, &path(life.get() + 1));
            life.set(life.get() + 1);
            drop(backend);
        },
    );
}

/// Copies of a store at many moments of writing, flushing and loading: each opens, and positions never say more than data.
#[test]
fn positions_are_never_ahead_of_data() {
    let root = TempDir::new().unwrap();
    let here = partition(0);
    let backend = open(&root.path().join("live"));
    backend.open(&here).unwrap();
    let filler = vec![1_u8; 2000];
    for round in 1..=60_u64 {
        let mut set = WriteSet::default();
        set.begin(here.clone());
        let count = if round % 10 == 0 { 4000 } else { 200 };
        for number in 0..count as u64 {
            set.change(&(round * 10_000 + number).to_be_bytes(), Some(&filler));
        }
        set.change(b"round", Some(&round_bytes(round)));
        set.positions(positions(round));
        if round % 10 == 0 {
            backend.load(&set).unwrap()
        } else {
            backend.write(&set).unwrap()
        }
        if round % 6 == 0 {
            let kill = root.path().join(round.to_string());
            copy_live(&backend, &kill);
            let copied = open(&kill);
            assert_eq!(copied.open(&here).unwrap(), Some(positions(round)));
            assert_eq!(copied.get(&here, b"round").unwrap(), Some(round_bytes(round).to_vec()));
            drop(copied);
            fs::remove_dir_all(kill).unwrap();
        }
    }
}

/// A log cut at any byte (what power loss leaves) brings back a prefix of whole batches.
#[test]
fn a_torn_log_costs_whole_batches() {
    let root = TempDir::new().unwrap();
    let (here, there) = (partition(0), partition(1));
    let live = root.path().join("live");
    let backend = open(&live);
    backend.open(&here).unwrap();
    backend.open(&there).unwrap();
    for round in 1..=20_u64 {
        let mut set = set_of(&here, &[(b"round", Some(&round_bytes(round)))], Some(round));
        set.begin(there.clone());
        set.change(b"round", Some(&round_bytes(round)));
        set.positions(positions(round));
        backend.write(&set).unwrap();
    }
    let log = newest(&live, "log");
    let length = fs::metadata(&log).unwrap().len();
    for cut in (0..length).step_by(length as usize / 40) {
        let torn = root.path().join("torn");
        copy(&live, &torn);
        fs::OpenOptions::new().write(true).open(newest(&torn, "log")).unwrap().set_len(cut).unwrap();
        let backend = open(&torn);
        let found = backend.open(&here).unwrap();
        assert_eq!(found, backend.open(&there).unwrap(), "cut at {cut}");
        let round = found.map(|positions| round_bytes(positions.changelog).to_vec());
        assert_eq!(backend.get(&here, b"round").unwrap(), round, "cut at {cut}");
        assert_eq!(backend.get(&there, b"round").unwrap(), round, "cut at {cut}");
        drop(backend);
        fs::remove_dir_all(torn).unwrap();
    }
}

fn newest(folder: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == extension)).max().unwrap()
}

/// A store of one partition with one file, closed.
fn one_file(path: &Path) {
    let here = partition(0);
    let backend = open(path);
    backend.open(&here).unwrap();
    let mut set = WriteSet::default();
    set.begin(here);
    for number in 0..50_000_u32 {
        set.change(&number.to_be_bytes(), Some(&number.to_be_bytes().repeat(25)));
    }
    set.positions(positions(1));
    backend.load(&set).unwrap();
}

#[test]
fn damage_is_refused_and_never_believed() {
    let root = TempDir::new().unwrap();
    let good = root.path().join("good");
    one_file(&good);
    let here = partition(0);
    let length = fs::metadata(newest(&good, "sst")).unwrap().len();
    let (mut refused, mut corrupt) = (0, 0);
    for at in (0..length).step_by(length as usize / 24) {
        let bad = root.path().join("bad");
        copy(&good, &bad);
        let file = newest(&bad, "sst");
        let mut bytes = fs::read(&file).unwrap();
        bytes[at as usize] ^= 0x40;
        fs::write(&file, bytes).unwrap();
        match RocksBackend::open(&bad, SMALL).and_then(|backend| backend.open(&here).map(|_| backend)) {
            Err(BackendError::Unusable(_)) => refused += 1,
            Err(other) => panic!("{other:?}"),
            Ok(backend) => {
                for number in 0..50_000_u32 {
                    match backend.get(&here, &number.to_be_bytes()) {
                        Ok(value) => assert_eq!(value, Some(number.to_be_bytes().repeat(25))),
                        Err(BackendError::Corrupt { partition, .. }) => {
                            assert_eq!(partition, here);
                            corrupt += 1;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        }
        fs::remove_dir_all(bad).unwrap();
    }
    assert!(corrupt > 0, "no data block was hit ({refused} opens refused)");
}

/// Positions lie in one column family for all: a damaged one is the damage of whoever reads it.
#[test]
fn damaged_positions_are_damage_to_their_partition() {
    let root = TempDir::new().unwrap();
    let (here, there) = (partition(0), partition(1));
    let backend = open(root.path());
    for at in [&here, &there] {
        backend.open(at).unwrap();
        backend.write(&set_of(at, &[(b"a", Some(b"1"))], Some(1))).unwrap();
    }
    backend.db.put(here.to_string(), [1, 2]).unwrap();
    drop(backend);
    let backend = open(root.path());
    let read = backend.open(&here);
    assert!(matches!(&read, Err(BackendError::Corrupt { partition, .. }) if *partition == here), "{read:?}");
    backend.drop_partition(&here).unwrap();
    assert_eq!((backend.open(&here), backend.open(&there)), (Ok(None), Ok(Some(positions(1)))));
}

/// A file system of that many MiB, unmounted in the end; none, said loudly, where it may not be mounted.
struct SmallDisk(TempDir);

impl SmallDisk {
    #[expect(clippy::disallowed_methods, reason = "where skips are noted is the test run's affair")]
    fn new(test: &str, mib: u32) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let size = format!("size={mib}m");
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output().unwrap();
        if mounted.status.success() {
            return Some(Self(folder));
        }
        let why = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
        let line = format!("SKIPPED state::rocks::{test}: no tmpfs can be mounted: {why}\n");
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
        if let Ok(path) = std::env::var("MANGROVE_SKIPS") {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
        }
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a failed test may still hold files.
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Writes and loads until the disk is full; then room comes back, and everything acknowledged is there.
#[test]
fn a_full_disk_pauses_it_and_costs_nothing_acknowledged() {
    let Some(disk) = SmallDisk::new("a_full_disk_pauses_it_and_costs_nothing_acknowledged", 96) else { return };
    let (path, ballast) = (disk.0.path().join("state"), disk.0.path().join("ballast"));
    fs::write(&ballast, vec![0_u8; 64 << 20]).unwrap();
    let backend = crate::reopening::Reopening::new(move || RocksBackend::open(&path, SMALL)).unwrap();
    let here = partition(0);
    backend.open(&here).unwrap();
    let filler = vec![7_u8; 4000];
    let mut round = 0_u64;
    let refused = loop {
        let mut set = WriteSet::default();
        set.begin(here.clone());
        for number in 0..250 {
            set.change(&(round * 1000 + number).to_be_bytes(), Some(&filler));
        }
        set.positions(positions(round + 1));
        let done = if round % 3 == 2 { backend.load(&set) } else { backend.write(&set) };
        if let Err(refused) = done {
            break refused;
        }
        round += 1;
        assert!(round < 1000, "96 MiB are never full");
    };
    assert!(matches!(&refused, BackendError::Paused(what) if what.contains("the disk is full")), "{refused:?}");
    assert_eq!(backend.positions(&here).unwrap(), Some(positions(round)), "reads go on");
    fs::remove_file(&ballast).unwrap();
    backend.revive().unwrap();
    let found = backend.open(&here).unwrap().unwrap().changelog;
    assert!(found == round || found == round + 1, "{found} after {round} acknowledged");
    let mut keys = 0;
    backend
        .scan(&here, None, usize::MAX, &mut |_, value| {
            keys += 1;
            value == filler
        })
        .unwrap();
    assert!(keys >= round * 250, "{keys} keys after {round} rounds");
    backend.write(&set_of(&here, &[(b"a", Some(b"1"))], Some(round + 1))).unwrap();
}

/// Compaction meets the damage: writes stop, the partition is noted, and the next open starts it afresh.
#[test]
fn damage_met_by_compaction_is_dropped_at_the_next_open() {
    let root = TempDir::new().unwrap();
    let (here, there) = (partition(0), partition(1));
    one_file(root.path());
    let file = newest(root.path(), "sst");
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();

    let backend = open(root.path());
    backend.open(&here).unwrap();
    backend.open(&there).unwrap();
    backend.write(&set_of(&there, &[(b"a", Some(b"1"))], Some(1))).unwrap();
    let family = backend.family(&here).unwrap();
    // Around every key of the file, so that it must be merged and can't just be moved down.
    backend.db.put_cf(&family, [0; 9], b"first").unwrap();
    backend.db.put_cf(&family, [0xff; 9], b"last").unwrap();
    backend.db.flush_cf(&family).unwrap();
    backend.db.compact_range_cf(&family, None::<&[u8]>, None::<&[u8]>);
    drop(family);
    let refused = backend.write(&set_of(&here, &[(b"a", Some(b"1"))], Some(2)));
    assert!(matches!(refused, Err(BackendError::Paused(_))), "{refused:?}");
    assert_eq!(backend.write(&set_of(&there, &[(b"a", Some(b"2"))], Some(2))), refused, "I7: poisoned");
    drop(backend);

    let backend = open(root.path());
    assert_eq!(backend.dropped(), std::slice::from_ref(&here));
    assert_eq!(backend.open(&here), Ok(None), "restored from its changelog");
    assert_eq!(backend.open(&there), Ok(Some(positions(1))));
    backend.write(&set_of(&here, &[(b"a", Some(b"1"))], Some(3))).unwrap();
    assert_eq!(all(&backend, &here).len(), 1);
}

#[test]
fn a_second_holder_is_refused() {
    let root = TempDir::new().unwrap();
    let _first = open(root.path());
    assert!(matches!(RocksBackend::open(root.path(), SMALL), Err(BackendError::Denied(_))), "its content is not to blame");
}

#[test]
fn rubbish_in_the_folder_is_unusable() {
    let root = TempDir::new().unwrap();
    drop(open(root.path()));
    fs::write(root.path().join("CURRENT"), "MANIFEST-000777\n").unwrap();
    assert!(matches!(RocksBackend::open(root.path(), SMALL), Err(BackendError::Unusable(_))));
}

/// The hash is part of the format: the keys on disk are found by it.
#[test]
fn the_hash_stays() {
    assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
    assert_eq!(hash(b"user-1"), xxhash_rust::xxh3::xxh3_64_with_seed(b"user-1", 0));
}

#[test]
fn a_store_is_looked_into_while_it_is_in_use_and_left_as_it_is() {
    let root = TempDir::new().unwrap();
    assert!(super::positions(root.path()).is_err(), "there is none");
    let backend = open(root.path());
    let mut set = WriteSet::default();
    for (number, key) in (0..).zip(["a", "b"]) {
        let partition = StorePartition { store: "s".into(), partition: number };
        backend.open(&partition).unwrap();
        set.begin(partition);
        set.change(key.as_bytes(), Some(b"value"));
        set.positions(Positions { changelog: 7 + u64::from(number), inputs: vec![("in".into(), 9)], current_at_ms: 5 });
    }
    backend.write(&set).unwrap();
    let found = super::positions(root.path()).unwrap();
    let found: Vec<(String, u64)> = found.into_iter().map(|(partition, at)| (partition.to_string(), at.changelog)).collect();
    assert_eq!(found, [("s-0".to_owned(), 7), ("s-1".to_owned(), 8)]);
    let mut keys = super::keys(root.path(), 10).unwrap();
    keys.sort();
    assert_eq!(keys, [b"a", b"b"]);
    assert_eq!(super::keys(root.path(), 1).unwrap().len(), 1);
    backend.write(&set).unwrap();
}
