//! Payments, from a file or made up, and the verdicts that `mangrove backtest` gives for them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mangrove::input::csv::{Reader, Row};
use mangrove::scoring::UserProfile;

use super::records::Seen;
use super::scene::{PARTITIONS, Scene, program, succeed};

/// Made-up payments are of this many users, on average [`STEP_MS`] apart.
const USERS: u64 = 300;
const STEP_MS: u64 = 15_000;
/// 2024-01-01, a Monday.
const FIRST_MS: u64 = 1_704_067_200_000;

/// A payment as a producer sends it.
#[derive(Clone, Debug)]
pub struct Payment {
    pub user: String,
    pub merchant: String,
    pub amount: f64,
    pub at_ms: i64,
    pub json: Vec<u8>,
}

impl Payment {
    /// The same JSON as the backtest's.
    fn of(row: &Row<'_>) -> Self {
        let text = |text: &str| serde_json::to_string(text).expect("text");
        let amount = serde_json::to_string(&row.amount).expect("a number");
        let (user, merchant) = (row.user_id.to_owned(), row.merchant.to_owned());
        let at_ms = row.timestamp_ms;
        let json =
            format!(r#"{{"amount":{amount},"timestamp":{at_ms},"user_id":{},"merchant":{}}}"#, text(&user), text(&merchant));
        Self { user, merchant, amount: row.amount, at_ms, json: json.into_bytes() }
    }
}

/// Payments in a file, and in memory.
pub struct Ledger {
    pub csv: PathBuf,
    pub payments: Vec<Payment>,
}

impl Ledger {
    pub fn read(csv: &Path) -> Self {
        let mut reader = Reader::open(csv, &[]).expect("a file of payments");
        let mut payments = Vec::new();
        while let Some(row) = reader.next_row().expect("a row") {
            payments.push(Payment::of(&row));
        }
        Self { csv: csv.to_owned(), payments }
    }

    /// Made-up payments; the same number gives the same ones.
    pub fn made(csv: &Path, count: usize) -> Self {
        std::fs::write(csv, made(count)).expect("a file of payments");
        Self::read(csv)
    }

    /// Each user's profile after all payments.
    pub fn profiles(&self) -> BTreeMap<Vec<u8>, UserProfile> {
        let mut profiles: BTreeMap<Vec<u8>, UserProfile> = BTreeMap::new();
        for Payment { user, merchant, amount, at_ms, .. } in &self.payments {
            profiles.entry(user.clone().into_bytes()).or_default().0.update(*amount, *at_ms, merchant);
        }
        profiles
    }

    /// The verdicts that a backtest of these payments gives under the scene's names, by id.
    pub fn verdicts(&self, scene: &Scene, model: &Path) -> HashMap<String, Vec<u8>> {
        let out = scene.path("reference.ndjson");
        let [csv, model, to] = [&self.csv, model, &out].map(|path| path.to_str().expect("a plain path"));
        let partitions = PARTITIONS.to_string();
        let flags = ["--judge-from", "0", "--partitions", &partitions, "--out", to];
        let mut command = scene.command("none", &["backtest", csv, "--model", model]);
        succeed(command.args(flags).env("INPUT_PARTITIONING", "murmur2"));
        let text = std::fs::read(&out).expect("verdicts");
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let verdicts: HashMap<String, Vec<u8>> = lines.map(|line| (id_of(line), line.to_vec())).collect();
        assert_eq!(verdicts.len(), self.payments.len(), "the backtest gives a verdict for each payment");
        verdicts
    }
}

/// A verdict's id.
pub fn id_of(verdict: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Id {
        id: String,
    }
    serde_json::from_slice::<Id>(verdict).unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(verdict))).id
}

/// A CSV file of payments. Amounts are of a few habits, with one spike in two hundred.
fn made(count: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        // Steele, Lea and Flood's SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut text = "timestamp,user_id,merchant,amount\n".to_owned();
    let mut at = FIRST_MS;
    for _ in 0..count {
        at += next() % (2 * STEP_MS);
        let user = next() % USERS;
        let cents = (user % 7 + 1) * 500 + next() % 3_000;
        let cents = if next() % 200 == 0 { cents * 40 } else { cents };
        let shop = (user * 5 + next() % 12) % 90;
        writeln!(text, "{at},user-{user},shop-{shop},{}.{:02}", cents / 100, cents % 100).expect("memory");
    }
    text
}

/// A model trained once for all tests, on days `from..to` of a file.
fn trained(name: &str, csv: &Path, from: u32, to: u32, seed: u64) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("{name}-{}.forest", std::process::id()));
    let [from, to] = [from, to].map(|day| day.to_string());
    let seed = seed.to_string();
    let mut command = program(folder);
    command.arg("backtest").arg(csv).args(["--train-from", &from, "--train-to", &to, "--judge-from", &to, "--seed", &seed]);
    succeed(command.arg("--model-out").arg(&path));
    path
}

/// A model of made-up payments.
pub fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| model_of(42))
}

/// Another model of the same payments.
pub fn other_model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| model_of(7))
}

fn model_of(seed: u64) -> PathBuf {
    let name = format!("made-{seed}");
    let csv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.csv", std::process::id()));
    std::fs::write(&csv, made(12_000)).expect("a file of payments");
    let model = trained(&name, &csv, 0, 2, seed);
    std::fs::remove_file(csv).expect("removed");
    model
}

/// A model of the Sparkov payments, trained as the issue has it.
pub fn sparkov_model(csv: &Path) -> PathBuf {
    trained("sparkov", csv, 193, 200, 42)
}

/// What is wrong with verdicts beside the expected ones; empty where nothing is. `once`: each is there exactly once, otherwise at
/// least once. A verdict that is there has the expected bytes, its user's key and the payment's time.
pub fn faults(verdicts: &[Seen], expected: &HashMap<String, Vec<u8>>, once: bool) -> String {
    let mut found: HashMap<String, u32> = HashMap::new();
    let mut faults: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    let mut fault = |kind: &'static str, example: &dyn Fn() -> String| {
        faults.entry(kind).or_insert_with(|| (0, example())).0 += 1;
    };
    for seen in verdicts {
        let value = seen.value.as_deref().unwrap_or_default();
        let id = id_of(value);
        let times = found.entry(id.clone()).or_default();
        *times += 1;
        if once && *times > 1 {
            fault("doubled", &|| id.clone());
        }
        match expected.get(&id) {
            None => fault("not expected", &|| String::from_utf8_lossy(value).into_owned()),
            Some(bytes) if bytes != value => {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                fault("different", &|| format!("\n  {}\n  {} (expected)\n", text(value), text(bytes)));
            }
            Some(_) => {
                let verdict = seen.json();
                if verdict["user_id"].as_str().map(str::as_bytes) != seen.key.as_deref() {
                    fault("not keyed by the user", &|| id.clone());
                }
                if verdict["event_time"].as_i64() != Some(seen.timestamp) {
                    fault("not of the payment's time", &|| format!("{id} at {}", seen.timestamp));
                }
            }
        }
    }
    for id in expected.keys().filter(|id| !found.contains_key(*id)) {
        fault("missing", &|| id.clone());
    }
    faults.iter().map(|(kind, (count, example))| format!("{count} {kind}, such as {example}; ")).collect()
}
