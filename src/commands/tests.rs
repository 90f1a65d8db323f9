//! The command line is read as the manual says, and contradictions are refused.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::*;
use crate::config::Dotenv;
use crate::input::csv::Field;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("mangrove").chain(line.split_whitespace()))
}

fn right(line: &str) -> Cli {
    parse(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn the_definition_is_sound() {
    command().debug_assert();
}

#[test]
fn settings_are_flags_of_every_command_before_it_and_behind_it() {
    for line in ["--workers 3 run --http-addr 127.0.0.1:1", "run --workers 3 --http-addr 127.0.0.1:1"] {
        let mut values = right(line).settings.values;
        values.sort();
        let pair = |variable: &str, value: &str| (variable.to_owned(), value.to_owned());
        assert_eq!(values, [pair("HTTP_ADDR", "127.0.0.1:1"), pair("WORKERS", "3")]);
    }
    assert_eq!(right("run").settings.dotenv, Dotenv::IfPresent(PathBuf::from(".env")));
    assert_eq!(right("run --env-file x").settings.dotenv, Dotenv::Required(PathBuf::from("x")));
    assert!(parse("run --wrokers 3").is_err(), "unknown flags are refused");
    assert!(parse("run --api-tokens x").is_err(), "secrets have no flag");
    assert!(parse("config --log --json").is_err(), "a flag is not another flag's value");
}

#[test]
fn backtest_reads_as_the_issue_words_it() {
    let line = "backtest f.csv.gz --map when=timestamp --map shop=merchant --train-from 193 --train-to 200 \
                --model-out m.forest --judge-from 200 --judge-to 300 --trees 10 --samples 64 --seed 1 --partitions 8 \
                --global-amount-p99 818.72 --contamination 0.02 --out verdicts.ndjson --json";
    let Command::Backtest(args) = right(line).command else { panic!("another command") };
    args.validate().unwrap();
    assert_eq!(args.file, Path::new("f.csv.gz"));
    assert_eq!((args.map[1].column.as_str(), args.map[1].field), ("shop", Field::Merchant));
    assert_eq!((args.train_from, args.train_to, args.judge_from, args.judge_to), (Some(193), Some(200), 200, Some(300)));
    assert_eq!(args.forest, ForestParameters { trees: 10, samples: 64, seed: 1 });
    assert_eq!((args.partitions, args.global_amount_p99, args.json), (8, Some(818.72), true));
    let Command::Backtest(args) = right("backtest f --model m --judge-from 0").command else { panic!("another command") };
    assert_eq!(args.model.as_deref(), Some(Path::new("m")));
}

#[test]
fn backtest_refuses_contradictions() {
    for line in [
        "backtest f --judge-from 1",
        "backtest f --train-from 1 --judge-from 1",
        "backtest f --train-to 1 --judge-from 1",
        "backtest f --train-from 0 --train-to 1",
        "backtest f --model m --train-from 0 --train-to 1 --judge-from 1",
        "backtest f --model m --model-out n --judge-from 1",
        "backtest f --model m --judge-from 0 --map x",
        "backtest f --model m --judge-from 0 --map x=nothing",
        "backtest f --model m --judge-from 0 --global-amount-p99 nan",
        "backtest f --model m --judge-from 0 --partitions 0",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    for line in [
        "backtest f --train-from 1 --train-to 1 --judge-from 1",
        "backtest f --train-from 0 --train-to 9 --judge-from 8",
        "backtest f --model m --judge-from 3 --judge-to 3",
    ] {
        let failure = right(line).command.validate().unwrap_err();
        assert_eq!(failure.ending(), Ending::Usage, "{line}");
    }
}

#[test]
fn train_takes_one_source() {
    let Command::Train(args) = right("train --from verdicts --out x").command else { panic!("another command") };
    assert_eq!(args.from, Some(train::TrainingSource::Verdicts));
    let Command::Train(args) = right("train --from postgres --last-days 7").command else { panic!("another command") };
    assert_eq!((args.from, args.last_days), (Some(train::TrainingSource::Postgres), Some(7)));
    let Command::Train(args) = right("train --synthetic 1000").command else { panic!("another command") };
    assert_eq!((args.synthetic, args.forest.trees), (Some(1000), 200));
    assert!(parse("train").is_err());
    assert!(parse("train --from a.csv --synthetic 1000").is_err());
    for logged in ["verdicts", "postgres"] {
        assert!(right(&format!("train --from {logged} --map a=amount")).command.validate().is_err());
    }
}

#[test]
fn audits_read_as_documented_and_refuse_contradictions() {
    let Command::Rebuild(args) = right("rebuild --from transactions --into past --to 0=5,3=7").command else { panic!("another") };
    args.validate().unwrap();
    assert_eq!(args.to, [(0, 5), (3, 7)]);
    let Command::Verify(args) = right("verify --partition 3 --partition 4 --json").command else { panic!("another") };
    assert_eq!((args.partition, args.json), (vec![3, 4], true));
    let Command::Explain(args) = right("explain a.b:3:7 --model old").command else { panic!("another") };
    assert_eq!(args.place.to_string(), "a.b:3:7");
    for line in [
        "rebuild",
        "rebuild --from verdicts",
        "rebuild --from transactions --to 0=5",
        "rebuild --from transactions --into past --to 0:5",
        "rebuild --from transactions --into past --apply",
        "explain",
        "explain transactions:3",
        "explain transactions:x:3",
        "verify --partition x",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    for line in [
        "rebuild --from changelog --apply",
        "rebuild --from changelog --into past --to 0=5",
        "rebuild --from transactions --into past --to 0=5,0=6",
    ] {
        assert_eq!(right(line).command.validate().unwrap_err().ending(), Ending::Usage, "{line}");
    }
}

#[test]
fn the_demo_keeps_to_its_folder_unless_told_otherwise() {
    let cli = right("demo --dir /x --records 5 --state-dir /y");
    let sources = Sources { flags: cli.settings.values, command: cli.command.defaults(), ..Sources::default() };
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.embedded_dir, Path::new("/x/broker"));
    assert_eq!(settings.state_dir, Path::new("/y"));
    assert_eq!(settings.broker, crate::config::BrokerKind::Embedded);
}

#[test]
fn a_failure_names_all_causes() {
    let cause = std::io::Error::other("the disk is full");
    let failure = Failure::new("cannot write x").caused_by(cause);
    assert_eq!(failure.to_string(), "cannot write x: the disk is full");
}

#[test]
fn a_table_lines_up() {
    let rows = [["a".to_owned(), "bcd".to_owned()], ["äöü".to_owned(), String::new()]];
    assert_eq!(table(["K", "VALUE"], &rows), "K    VALUE\na    bcd\näöü");
}

#[test]
fn a_closed_pipe_is_not_a_failure() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut output = Output::new(Closed);
    output.line("one").unwrap();
    output.line("two").unwrap();
}

#[test]
fn a_failure_says_each_cause_once() {
    let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
    let failure = Failure::new("it failed: no such file").caused_by(missing());
    assert_eq!(failure.to_string(), "it failed: no such file");
    assert_eq!(Failure::new("it failed").caused_by(missing()).to_string(), "it failed: no such file");
}
