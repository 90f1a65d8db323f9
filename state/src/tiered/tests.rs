use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::conformance::{partition, suite};
use crate::memory::MemoryBackend;
use crate::tier::memory::MemoryTier;
use crate::tier::{Applied, Batch, Change, Progress};

/// A tier in memory that can be down.
#[derive(Debug, Default)]
struct Moody {
    tier: MemoryTier,
    down: std::sync::atomic::AtomicBool,
    trips: AtomicU64,
}

impl Moody {
    fn down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    fn hold(&self, offset: u64, user: &str, value: &[u8]) {
        let change = Change { user, offset, at_ms: 0, value: Some(value), json: "{}" };
        let (from, to, first) = (offset, offset + 1, true);
        let batch = Batch { topic: "changelog", partition: 0, generation: 1, from, to, first, changes: vec![change] };
        assert_eq!(now(self.tier.write(&[batch])), Ok(vec![Applied::Taken]));
    }
}

impl Tier for Moody {
    async fn read(&self, users: &[&str]) -> std::result::Result<Vec<Lookup>, Unreachable> {
        self.trips.fetch_add(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) {
            return Err(Unreachable("it is down".to_owned()));
        }
        self.tier.read(users).await
    }

    async fn write(&self, batches: &[Batch<'_>]) -> std::result::Result<Vec<Applied>, Unreachable> {
        self.tier.write(batches).await
    }

    async fn progress(&self, of: &[(&str, u32)]) -> std::result::Result<Vec<Option<Progress>>, Unreachable> {
        self.tier.progress(of).await
    }
}

/// Nothing in memory waits.
fn now<T>(asking: impl Future<Output = T>) -> T {
    match pin!(asking).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("a tier in memory waited"),
    }
}

#[derive(Debug, Default)]
struct Both {
    warm: Moody,
    cold: Moody,
}

impl Recall for Both {
    fn recall(&self, wanted: &[(&[u8], Stub)]) -> std::result::Result<Vec<Recalled>, Unreachable> {
        let text = |key| std::str::from_utf8(key).expect("text");
        let wanted: Vec<(&str, Stub)> = wanted.iter().map(|&(key, stub)| (text(key), stub)).collect();
        now(bring_back(Some(("warm", &self.warm)), Some(("cold", &self.cold)), &wanted))
    }
}

struct Scene {
    tiers: Arc<Both>,
    inner: Arc<MemoryBackend>,
    tiered: Tiered,
}

fn scene() -> Scene {
    let (tiers, inner) = (Arc::new(Both::default()), Arc::new(MemoryBackend::new()));
    let tiered = Tiered::new(Arc::clone(&inner) as Arc<dyn Backend>, Arc::clone(&tiers) as Arc<dyn Recall>);
    tiered.open(&partition(0)).expect("opens");
    Scene { tiers, inner, tiered }
}

impl Scene {
    fn put(&self, key: &str, value: &[u8]) {
        let mut set = WriteSet::default();
        set.begin(partition(0));
        set.change(key.as_bytes(), Some(value));
        self.tiered.write(&set).expect("written");
    }

    fn evict(&self, staged: &[(&str, &[u8])]) -> u64 {
        let staged = staged.iter().map(|(key, value)| (Box::from(key.as_bytes()), Stub::of(value))).collect();
        self.tiered.stage(&partition(0), staged);
        self.tiered.evict_staged(&partition(0)).expect("evicted")
    }

    fn many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let mut values = vec![Some(b"not told".to_vec()); keys.len()];
        self.tiered.multi_get(&partition(0), &keys, &mut |at, value| values[at] = value.map(<[u8]>::to_vec))?;
        Ok(values)
    }

    fn is_stub(&self, key: &str) -> bool {
        let value = self.inner.get(&partition(0), key.as_bytes()).expect("read").expect("there");
        Stub::decode(&value).is_some()
    }
}

#[test]
fn it_is_a_backend_like_any_other_where_nothing_was_evicted() {
    suite(|| scene().tiered);
}

#[test]
fn an_evicted_value_comes_back_whole_from_the_first_tier_that_has_it_and_all_of_a_read_in_one_trip() {
    let scene = scene();
    for (at, user) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let value = format!("\u{1}value of {user}");
        scene.put(user, value.as_bytes());
        if user != "b" {
            scene.tiers.warm.hold(at as u64, user, value.as_bytes());
        }
        scene.tiers.cold.hold(at as u64, user, value.as_bytes());
    }
    let before = scene.many(&["a", "b", "c", "d", "nobody"]).expect("read");
    assert_eq!(scene.evict(&[("a", b"\x01value of a"), ("b", b"\x01value of b"), ("d", b"\x01value of d")]), 3);
    assert!(scene.is_stub("a") && scene.is_stub("b") && scene.is_stub("d") && !scene.is_stub("c"));
    assert_eq!(scene.many(&["a", "b", "c", "d", "nobody"]), Ok(before));
    let trips = |tier: &Moody| tier.trips.load(Ordering::Relaxed);
    assert_eq!((trips(&scene.tiers.warm), trips(&scene.tiers.cold)), (1, 1));
    let from = |key: &str| scene.tiered.get_from(&partition(0), key.as_bytes()).expect("read").expect("there").1;
    assert_eq!((from("a"), from("b"), from("c")), (Some("warm"), Some("cold"), None));
    assert_eq!(scene.tiered.counts().brought_back.load(Ordering::Relaxed), 5);
}

#[test]
fn what_no_tier_gives_is_away_and_never_absent() {
    let scene = scene();
    scene.put("a", b"\x01new");
    scene.put("b", b"\x01b");
    for tier in [&scene.tiers.warm, &scene.tiers.cold] {
        tier.hold(0, "a", b"\x01new");
    }
    assert_eq!(scene.evict(&[("a", b"\x01new")]), 1);
    scene.tiers.warm.down(true);
    assert_eq!(scene.many(&["a"]), Ok(vec![Some(b"\x01new".to_vec())]), "the other one will do");
    scene.tiers.cold.down(true);
    match scene.many(&["b", "a"]) {
        Err(BackendError::Away { partition: of, what }) => {
            assert_eq!(of, partition(0));
            assert!(what.contains("1 of 1") && what.contains("it is down"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.many(&["b"]), Ok(vec![Some(b"\x01b".to_vec())]), "others are read all the same");
    scene.tiers.warm.down(false);
    assert!(scene.many(&["a"]).is_ok());
    // A tier that was restored from an old copy has another version: that is no answer either.
    let old = self::scene();
    old.put("a", b"\x01new");
    old.tiers.cold.hold(0, "a", b"\x01old");
    assert_eq!(old.evict(&[("a", b"\x01new")]), 1);
    assert!(matches!(old.many(&["a"]), Err(BackendError::Away { .. })));
}

#[test]
fn what_has_changed_or_gone_meanwhile_stays_as_it_is() {
    let scene = scene();
    scene.put("a", b"\x01newer than the tier's");
    scene.put("same", b"\x01same");
    assert_eq!(scene.evict(&[("a", b"\x01the tier's"), ("gone", b"\x01gone"), ("same", b"\x01same")]), 1);
    assert!(!scene.is_stub("a") && scene.is_stub("same"));
    assert_eq!(scene.inner.get(&partition(0), b"gone"), Ok(None));
    assert_eq!(scene.evict(&[("same", b"\x01same")]), 0, "a stub is not evicted again");
    assert_eq!(scene.tiered.evict_staged(&partition(0)), Ok(0), "what was staged was taken");
}

proptest! {
    #[test]
    fn a_stub_is_read_as_it_was_written_and_no_value_is_taken_for_one(value in proptest::collection::vec(any::<u8>(), 0..40)) {
        let stub = Stub::of(&value);
        prop_assert_eq!(Stub::decode(&stub.encode()), Some(stub));
        let mut kept = Vec::new();
        crate::codec::encode(&value, &mut kept);
        prop_assert_eq!(Stub::decode(&kept), None);
        prop_assert_eq!(Stub::decode(&value).is_some(), value.len() == STUB_BYTES && value[0] == STUB_MARK);
    }
}
