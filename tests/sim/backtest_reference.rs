//! Every feature of every row against an independent reference: tests/reference/features_reference.py, written from FEATURES.md alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mangrove::backtest::Plan;
use mangrove::training;
use models::{Model, TrainParams};
use tempfile::TempDir;

use crate::backtest::{backtest, shared, skip, train};

/// Runs the reference; none where there is no python3.
fn reference(test: &str, verdicts: &Path, arguments: &[&str]) -> Option<(bool, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/features_reference.py");
    match Command::new("python3").arg(script).arg(verdicts).args(arguments).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            Some((output.status.success(), text))
        }
        Err(why) => {
            skip(test, &format!("python3 cannot be run: {why}"));
            None
        }
    }
}

/// Backtests the file with a fixed bound for column 9, then checks all rows of one in `one_in` users.
fn agree(test: &str, file: &Path, one_in: &str) {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("verdicts.ndjson");
    let mut backtest = backtest(file, plan(), 0);
    backtest.scoring.global_amount_p99 = Some(150.0);
    let (report, _) = backtest.run(Some(&out), &|_| {}).unwrap();
    assert_eq!(report.verdicts, report.rows);
    let file = file.to_str().unwrap();
    let arguments = ["--global-amount-p99", "150", "--one-in", one_in, "--csv", file];
    let Some((agrees, said)) = reference(test, &out, &arguments) else { return };
    println!("{test}: {said}");
    assert!(agrees, "{said}");
    assert!(said.contains(&format!("{} verdicts", report.rows)), "{said}");
}

/// Any model: features don't depend on it where column 9's bound is fixed.
fn plan() -> Plan {
    let rows = training::synthetic(1_000, &mangrove::scoring::ScoringParams::default(), &|_| {}).unwrap();
    let params = TrainParams { trees: 2, max_samples: 16, seed: 1 };
    let model: Model = rows.train(params, 0.01, None, &|| {}).unwrap();
    Plan::Score(Arc::new(model))
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn amount(random: &mut Random) -> String {
    match random.below(12) {
        0 => "0".to_owned(),
        1 => "-0.0".to_owned(),
        2 => "1e12".to_owned(),
        3 => "0.009999".to_owned(),
        4 => format!("{}e-7", random.below(100)),
        5 => format!("{}", random.below(1_000_000_000_000)),
        _ => format!("{}.{:02}", random.below(300), random.below(100)),
    }
}

/// Everything that FEATURES.md has a rule for: late events, many merchants with equal counts, more than 256 payments in an hour, equal
/// times, amounts at both ends, names of all alphabets.
fn nasty(folder: &Path) -> PathBuf {
    let mut random = Random(7);
    let users = ["ann", "Ω мир", "用户 一", "o'neil, \"x\"", "🦀", "\u{e9}", "e\u{301}", "burst"];
    let mut csv = String::from("timestamp,user_id,merchant,amount\n");
    let mut t: i64 = 1_700_000_000_000;
    for _ in 0..30_000 {
        let user = users[random.below(users.len() as u64) as usize];
        t += match random.below(40) {
            0 => 86_400_000 * random.below(9) as i64,
            1 => 3_600_000,
            2..10 => 0,
            _ => random.below(400_000) as i64,
        };
        let at = match random.below(15) {
            0 => t - random.below(7_200_000) as i64,
            1 => t - random.below(40 * 86_400_000) as i64,
            2 => t - 3_600_000,
            _ if user == "burst" => t - random.below(900_000) as i64,
            _ => t,
        };
        // Few favourites and a long tail: tables overflow, and counts tie.
        let merchant = if random.below(3) == 0 { random.below(5) } else { random.below(400) };
        let user = user.replace('"', "\"\"");
        writeln!(csv, "{at},\"{user}\",\"shop {merchant} ü\",{}", amount(&mut random)).unwrap();
    }
    // More than 256 payments within one hour, then a late one among them and one just outside.
    for n in 0..700 {
        writeln!(csv, "{},many,\"shop {}\",{}", t + n * 4_000, n % 70, amount(&mut random)).unwrap();
    }
    for late in [t + 100_000, t + 699 * 4_000 - 3_600_000, t + 699 * 4_000] {
        writeln!(csv, "{late},many,\"shop 1\",5").unwrap();
    }
    let path = folder.join("nasty.csv");
    std::fs::write(&path, csv).unwrap();
    path
}

#[test]
fn a_nasty_file_agrees_with_the_reference() {
    let folder = TempDir::new().unwrap();
    agree("a_nasty_file_agrees_with_the_reference", &nasty(folder.path()), "1");
}

#[test]
fn sparkov_agrees_with_the_reference() {
    let test = "sparkov_agrees_with_the_reference";
    let Some(file) = shared(test, "sparkov_400users_9months.csv.gz") else { return };
    agree(test, &file, "3");
}

#[test]
fn the_handbooks_file_agrees_with_the_reference() {
    let test = "the_handbooks_file_agrees_with_the_reference";
    let Some(file) = shared(test, "fdh_window_51d.csv.gz") else { return };
    agree(test, &file, "10");
}

#[test]
fn the_reference_notices_what_is_wrong() {
    let test = "the_reference_notices_what_is_wrong";
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("verdicts.ndjson");
    let path = folder.path().join("few.csv");
    let mut csv = String::from("timestamp,user_id,merchant,amount\n");
    for n in 0..40i64 {
        writeln!(csv, "{},ann,shop {},{}", 1_700_000_000_000 + n * 5_000_000, n % 3, n).unwrap();
    }
    std::fs::write(&path, csv).unwrap();
    backtest(&path, plan(), 0).run(Some(&out), &|_| {}).unwrap();
    let good = std::fs::read_to_string(&out).unwrap();
    let check = |text: &str| {
        std::fs::write(&out, text).unwrap();
        reference(test, &out, &["--csv", path.to_str().unwrap()])
    };
    // Column 9 follows the model's bound, which the script was not told: none of these amounts is above it.
    let Some((agrees, said)) = check(&good) else { return };
    assert!(agrees, "{said}");
    let lines: Vec<&str> = good.lines().collect();
    let swapped = [&lines[1..2], &lines[..1], &lines[2..]].concat().join("\n");
    for (what, text) in [("one row less", lines[..39].join("\n")), ("two rows swapped", swapped)] {
        let (agrees, said) = check(&text).unwrap();
        assert!(!agrees, "{what}: {said}");
    }
    for column in 0..10 {
        let mut verdict: serde_json::Value = serde_json::from_str(lines[30]).unwrap();
        let value = verdict["features"][column].as_f64().unwrap();
        verdict["features"][column] = (value + 1e-3).into();
        let changed = [&lines[..30], &[verdict.to_string().as_str()], &lines[31..]].concat().join("\n");
        let (agrees, said) = check(&changed).unwrap();
        assert!(!agrees && said.contains("1 mismatches"), "column {column}: {said}");
    }
}

#[test]
fn the_reference_follows_a_model_from_its_first_row() {
    let test = "the_reference_follows_a_model_from_its_first_row";
    let Some(file) = shared(test, "sparkov_400users_9months.csv.gz") else { return };
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("verdicts.ndjson");
    let (_, model) = backtest(&file, train(20, 27, 1), 27).run(Some(&out), &|_| {}).unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    let unscored = text.lines().take_while(|line| line.contains("\"model_id\":null")).count().to_string();
    let p99 = model.unwrap().global_amount_p99.to_string();
    let arguments = ["--global-amount-p99", &p99, "--model-from", &unscored, "--limit", "60000"];
    let Some((agrees, said)) = reference(test, &out, &arguments) else { return };
    assert!(agrees, "{said}");
}
