//! `mangrove load`: made-up payments, and what becomes of them.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::ProgressBar;

use super::parameters::{seconds, time_ms};
use super::{Failure, Output, progress, stop_on_signal};
use crate::broker::kafka::KafkaBroker;
use crate::clock::now_ms;
use crate::config::{BrokerKind, Settings};
use crate::generator::{Anomaly, AnomalyMix, GeneratorParams};
use crate::instance::{Blueprint, Stop};
use crate::load::{
    Bursts, HttpTarget, LoadParams, Places, Report, Session, Share, Thresholds, TrafficParams, to_file, to_http,
    to_http_and_topics, to_topic,
};
use crate::service;

const EXAMPLES: &str = "\
Examples:
  mangrove load                                    as fast as it goes, until Ctrl-C, then a report
  mangrove load --rate 5000 --duration 10m --max-p99-ms 50 --max-lost 0 --max-duplicates 0
  mangrove load --rate 1000 --burst-every 60 --burst-for 5 --burst-factor 10 --late 0.01 --poison 0.001
  mangrove load --users 1000000 --skew 1.1 --seed 7 --count 1000000 --json
  mangrove load --to http://127.0.0.1:8000 --rate 500 --duration 1m --token-file token
  mangrove load --to payments.csv.gz --count 500000 --anomalies 0.01
  mangrove backtest payments.csv.gz --train-from 0 --train-to 20 --judge-from 20

Payments go to the transactions topic of the settings' Kafka, to an instance's HTTP interface, or into a file. Of each payment sent
a verdict or a dead letter is awaited; latency counts from when a payment was due by --rate, whatever held it up. The same
--seed, --stream and --start give the same payments; their ids begin with --run.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 done, but a threshold is not met.";

/// The time that a file begins with, where none is given: Monday 2024-01-01.
const FILE_START_MS: i64 = 1_704_067_200_000;
/// Days that an account is not used, of all that it lives: it grows into use, and fades.
const UNUSED_DAYS: f64 = 19.5;
/// A calendar may be so much longer than it is on average: what reaches beyond now bears the time of now.
const SPARE_DAYS: f64 = 0.5;
/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(100);

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An instance's HTTP interface.
    Http(String),
    /// A CSV file.
    File(PathBuf),
}

/// Where verdicts are looked for when payments go in over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verdicts {
    /// In the topics of the settings' Kafka
    Topics,
    /// In the answers: one payment a request, which waits for its verdict
    Answers,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            Ok(Self::Http(text.to_owned()))
        } else if text.ends_with(".csv") || text.ends_with(".csv.gz") {
            Ok(Self::File(text.into()))
        } else {
            Err("expected http://HOST:PORT, FILE.csv or FILE.csv.gz".to_owned())
        }
    }
}

/// `kind=weight,...`
fn mix(text: &str) -> Result<AnomalyMix, String> {
    let kinds = || Anomaly::ALL.map(Anomaly::name).join(", ");
    let mut mix = AnomalyMix([0.0; Anomaly::ALL.len()]);
    for part in text.split(',') {
        let (kind, weight) = part.split_once('=').ok_or("expected kind=weight, with commas between")?;
        let kind = Anomaly::named(kind).ok_or_else(|| format!("the kinds are {}", kinds()))?;
        let weight = weight.parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight >= 0.0);
        mix.0[kind as usize] = weight.ok_or("a weight is a number, 0 or more")?;
    }
    Ok(mix)
}

/// What to send, where to, how fast, and what is good enough.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to: http://HOST:PORT of an instance, or FILE.csv(.gz) to write a labelled data set [default: the transactions topic]
    #[arg(long, value_name = "URL|FILE")]
    pub to: Option<Target>,

    /// A file with the token to show; scope write
    #[arg(long, value_name = "FILE", requires = "to")]
    pub token_file: Option<PathBuf>,

    /// Whom the target's certificate must come from (PEM) [default: whom the system trusts]
    #[arg(long, value_name = "FILE", requires = "to")]
    pub ca: Option<PathBuf>,

    /// Connections over HTTP; a user's payments keep to one
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,

    /// Payments of a request over HTTP: lines of JSON; 1 sends each alone
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub batch: u32,

    /// Where verdicts are looked for when payments go in over HTTP [default: topics with Kafka, answers with the embedded broker]
    #[arg(long, value_enum, value_name = "WHERE", requires = "to")]
    pub verdicts: Option<Verdicts>,

    /// Payments a second [default: as fast as they go]
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,

    /// End after this many payments
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// End after this time: 90s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// How many people pay
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub users: u32,

    /// How many merchants there are
    #[arg(long, value_name = "COUNT", default_value_t = 2_000)]
    pub merchants: u32,

    /// Zipf's exponent: the user of rank r pays as often as r^-SKEW; 0 is everyone alike [default: a natural crowd]
    #[arg(long, value_name = "SKEW")]
    pub skew: Option<f64>,

    /// Who the people are and what they do
    #[arg(long, value_name = "NUMBER", default_value_t = 42)]
    pub seed: u64,

    /// Another sequence of payments by the same people
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub stream: u32,

    /// What transaction ids begin with [default: of the clock; of seed and stream in a file]
    #[arg(long, value_name = "TEXT")]
    pub run: Option<String>,

    /// The first payment's time [default: so that the last one is about now; in a file 2024-01-01; --real-time where nothing says how long it goes on]
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    pub start: Option<i64>,

    /// Payments bear the time of their sending, not one of the people's own calendar
    #[arg(long, conflicts_with = "start")]
    pub real_time: bool,

    /// Payments a user makes a day, in their own calendar
    #[arg(long, value_name = "COUNT", default_value_t = 3.0)]
    pub per_user_day: f64,

    /// Days that an account lives on average; 0 is for ever
    #[arg(long, value_name = "DAYS", default_value_t = 730.0)]
    pub account_days: f64,

    /// The share of anomalous payments
    #[arg(long, value_name = "SHARE", default_value = "0.01")]
    pub anomalies: Share,

    /// Which anomalies: KIND=WEIGHT,... of account_takeover, amount_spike, odd_hour, new_merchant, card_test, merchant_compromise
    #[arg(long, value_name = "MIX", value_parser = mix)]
    pub mix: Option<AnomalyMix>,

    /// The share of payments whose time lies back
    #[arg(long, value_name = "SHARE", default_value = "0")]
    pub late: Share,

    /// By how much at most: 90s, 10m, 2h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
    pub late_by: Duration,

    /// The share of payments that come behind later ones
    #[arg(long, value_name = "SHARE", default_value = "0")]
    pub out_of_order: Share,

    /// The share of broken records, exactly: each is to become a dead letter
    #[arg(long, value_name = "SHARE", default_value = "0")]
    pub poison: Share,

    /// Seconds from one burst to the next
    #[arg(long, value_name = "SECONDS", requires = "rate")]
    pub burst_every: Option<f64>,

    /// How many seconds a burst lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub burst_for: f64,

    /// How many times the rate a burst has
    #[arg(long, value_name = "FACTOR", default_value_t = 5.0)]
    pub burst_factor: f64,

    /// Payments under way before sending waits; memory goes by it
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    pub max_pending: u64,

    /// How long the last verdicts are awaited while none comes: 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds)]
    pub patience: Duration,

    /// Send only: no latency, no losses
    #[arg(long)]
    pub no_verdicts: bool,

    /// What is good enough.
    #[command(flatten)]
    pub thresholds: Thresholds,

    /// Print one JSON object instead of a report
    #[arg(long)]
    pub json: bool,
}

impl Args {
    pub(super) fn validate(&self) -> Result<(), Failure> {
        if self.no_verdicts && self.thresholds.need_verdicts() {
            return Err(Failure::usage("--no-verdicts leaves nothing that this threshold could be held against"));
        }
        if matches!(self.to, Some(Target::File(_))) {
            let timed = self.rate.is_some() || self.duration.is_some() || self.real_time;
            if timed || self.thresholds != Thresholds::default() || self.poison != Share::NONE {
                return Err(Failure::usage("a file has neither a rate, a duration, thresholds nor broken records"));
            }
            if self.count.is_none() {
                return Err(Failure::usage("a file needs --count: how many payments it is to hold"));
            }
        }
        self.params(0).check()
    }

    /// How long the people's calendar is to be, in days, where something says so.
    fn days(&self) -> Option<f64> {
        let by_time = self.duration.zip(self.rate).map(|(duration, rate)| duration.as_secs_f64() * rate);
        let payments = match (self.count, by_time) {
            (Some(count), Some(by_time)) => by_time.min(count as f64),
            (Some(count), None) => count as f64,
            (None, by_time) => by_time?,
        };
        Some(payments / (f64::from(self.users) * self.per_user_day))
    }

    fn params(&self, now_ms: i64) -> LoadParams {
        let file = matches!(self.to, Some(Target::File(_)));
        let unused = if self.account_days > 0.0 { (UNUSED_DAYS / self.account_days).min(0.5) } else { 0.0 };
        let back_days = self.days().map_or(0.0, |days| days / (1.0 - unused) + SPARE_DAYS);
        #[expect(clippy::cast_possible_truncation, reason = "clamped: a time before 1970 is none")]
        let start_ms = if file { FILE_START_MS } else { (now_ms as f64 - back_days * 86_400_000.0).max(0.0) as i64 };
        let generator = GeneratorParams {
            users: self.users,
            merchants: self.merchants,
            seed: self.seed,
            stream: self.stream,
            start_ms: self.start.unwrap_or(start_ms),
            payments_per_user_day: self.per_user_day,
            anomaly_share: self.anomalies.get(),
            anomaly_mix: self.mix.unwrap_or(AnomalyMix::EVERY_KIND),
            skew: self.skew,
            account_days: (self.account_days != 0.0).then_some(self.account_days),
            id_prefix: self.run.as_ref().map(|run| format!("{run}-")).or_else(|| (!file).then(|| format!("load-{now_ms:x}-"))),
            ..GeneratorParams::default()
        };
        let traffic = TrafficParams {
            generator,
            late: self.late,
            late_by_ms: i64::try_from(self.late_by.as_millis()).unwrap_or(i64::MAX),
            out_of_order: self.out_of_order,
            poison: self.poison,
            // A calendar without an end has no place that ends now.
            real_time: self.real_time || (!file && self.start.is_none() && self.days().is_none()),
        };
        let bursts = self.burst_every.map(|every_s| Bursts { every_s, for_s: self.burst_for, factor: self.burst_factor });
        LoadParams {
            traffic,
            rate: self.rate,
            bursts,
            count: self.count,
            duration: self.duration,
            max_pending: self.max_pending,
            patience: self.patience,
            read_back: !self.no_verdicts,
        }
    }
}

/// Sends, reads back, reports.
///
/// # Errors
/// Where sending or reading fails, and with status 3 where a threshold is not met.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let params = args.params(now_ms());
    let stop = stop_on_signal()?;
    match &args.to {
        Some(Target::File(path)) => write(path, &params, args, &stop),
        Some(Target::Http(url)) => {
            let target = http(url, args, settings)?;
            let session = over_http(target, params.clone(), settings)?;
            follow(session, args, &params, &stop)
        }
        None => {
            let session = to_kafka(params.clone(), settings)?;
            follow(session, args, &params, &stop)
        }
    }
}

fn write(path: &std::path::Path, params: &LoadParams, args: &Args, stop: &Stop) -> Result<(), Failure> {
    let bar = progress::steps("writing", args.count.unwrap_or(0));
    let written = to_file(path, params, &mut |rows| {
        bar.set_position(rows);
        !stop.raised()
    })?;
    bar.finish_and_clear();
    let mut output = Output::stdout();
    if args.json {
        return output.json(&written);
    }
    output.line(&format!("{} payments in {}, {} of them labelled as fraud", written.rows, path.display(), written.fraud))
}

/// The HTTP target that was asked for.
fn http(url: &str, args: &Args, settings: &Settings) -> Result<HttpTarget, Failure> {
    let token = args.token_file.as_ref().map(|path| {
        let read = std::fs::read_to_string(path).map(|token| token.trim().to_owned());
        read.map_err(|why| Failure::new(format!("cannot read {}", path.display())).caused_by(why))
    });
    let answers = match (args.verdicts, settings.broker) {
        _ if args.no_verdicts => false,
        (Some(verdicts), _) => verdicts == Verdicts::Answers,
        (None, broker) => broker == BrokerKind::Embedded,
    };
    if !answers && !args.no_verdicts && settings.broker == BrokerKind::Embedded {
        return Err(
            Failure::usage("the embedded broker is inside of its instance: its topics cannot be read").hint("--verdicts answers")
        );
    }
    Ok(HttpTarget {
        url: url.to_owned(),
        token: token.transpose()?,
        authority: args.ca.clone(),
        connections: args.connections as usize,
        batch: if answers { 1 } else { args.batch as usize },
        verdict_in_answer: answers,
    })
}

fn over_http(target: HttpTarget, params: LoadParams, settings: &Settings) -> Result<Session, Failure> {
    let prefix = params.traffic.generator.id_prefix.clone().expect("invariant: a load has a name");
    if target.verdict_in_answer || !params.read_back {
        return Session::start(prefix, move |shared| to_http(&target, &params, shared));
    }
    let (broker, places) = kafka(settings)?;
    Session::start(prefix, move |shared| to_http_and_topics(&target, &*broker, &places, &params, shared))
}

fn follow(session: Session, args: &Args, params: &LoadParams, stop: &Stop) -> Result<(), Failure> {
    let bar = match params.count {
        Some(count) => progress::steps("answered", count),
        None => progress::answers(),
    };
    while !session.is_finished() {
        if stop.raised() {
            session.shared.stop();
        }
        show(&session, &bar, params.read_back);
        std::thread::park_timeout(LOOK);
    }
    bar.finish_and_clear();
    let mut report = session.join()?;
    report.missed = args.thresholds.missed(&report, params.read_back);
    tell(&report, args.json)
}

fn to_kafka(params: LoadParams, settings: &Settings) -> Result<Session, Failure> {
    if settings.broker == BrokerKind::Embedded {
        let hint = "send to its HTTP interface (--to http://HOST:PORT), or write a file (--to FILE.csv)";
        return Err(Failure::usage("the embedded broker is inside of its instance: nothing else can write to it").hint(hint));
    }
    let (broker, places) = kafka(settings)?;
    let prefix = params.traffic.generator.id_prefix.clone().expect("invariant: a load has a name");
    Session::start(prefix, move |shared| to_topic(&*broker, &places, false, &params, shared))
}

/// The broker, and the application's topics.
fn kafka(settings: &Settings) -> Result<(Arc<KafkaBroker>, Places), Failure> {
    let blueprint = Blueprint::new(settings)?;
    let topics = blueprint.topology.topics();
    let find = |name: &str| topics.find(name).expect("invariant: the scoring topology has its topics");
    let places = Places {
        transactions: find(&settings.transactions_topic),
        verdicts: find(&settings.verdicts_topic),
        dead_letters: blueprint.topology.dead_letters().expect("invariant: the scoring topology puts records aside"),
    };
    Ok((service::kafka(settings, &blueprint)?, places))
}

fn show(session: &Session, bar: &ProgressBar, read_back: bool) {
    if bar.is_hidden() {
        return;
    }
    let now = session.shared.progress();
    let latency =
        now.latency_ms.map_or_else(String::new, |latency| format!(", p50 {:.1} ms, p99 {:.1} ms", latency.p50, latency.p99));
    bar.set_position(if read_back { now.verdicts + now.dead_letters + now.refused } else { now.sent });
    bar.set_message(format!("{} sent, {} under way{latency}", now.sent, now.pending));
    bar.tick();
}

fn tell(report: &Report, json: bool) -> Result<(), Failure> {
    let mut output = Output::stdout();
    if json {
        output.json(report)?
    } else {
        output.line(&report.to_string())?
    }
    if report.missed.is_empty() {
        return Ok(());
    }
    Err(Failure::missed(format!("a threshold is not met: {}", report.missed.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(line: &str) -> LoadParams {
        let cli = <crate::commands::Cli as clap::Parser>::parse_from(line.split(' '));
        let crate::commands::Command::Load(args) = cli.command else { panic!("{line}") };
        args.params(NOW_MS)
    }

    const NOW_MS: i64 = 1_795_428_000_000;
    const DAY_MS: i64 = 86_400_000;

    /// The last payment's time that the calendar has, before it is held against the clock.
    fn last_ms(params: &LoadParams, count: usize) -> i64 {
        let generator = crate::generator::Generator::new(&params.traffic.generator).unwrap();
        generator.take(count).map(|payment| payment.timestamp_ms).last().unwrap()
    }

    #[test]
    fn the_calendar_of_a_load_ends_today() {
        for line in [
            "mangrove load --count 300000",
            "mangrove load --rate 100 --duration 50m",
            "mangrove load --count 9000 --users 100 --account-days 0",
        ] {
            let params = params(line);
            let count = if line.contains("9000") { 9_000 } else { 300_000 };
            let last = last_ms(&params, count);
            assert!(
                !params.traffic.real_time && last > NOW_MS - DAY_MS && last < NOW_MS,
                "{line}: {} ms before now",
                NOW_MS - last
            );
        }
    }

    #[test]
    fn one_without_an_end_pays_now_and_a_file_or_a_start_has_its_own_time() {
        assert!(params("mangrove load").traffic.real_time);
        assert!(params("mangrove load --rate 10").traffic.real_time);
        let started = params("mangrove load --start 2025-01-01T00:00:00Z");
        assert!(!started.traffic.real_time && started.traffic.generator.start_ms == 1_735_689_600_000);
        let file = params("mangrove load --to f.csv --count 5");
        assert!(!file.traffic.real_time && file.traffic.generator.start_ms == FILE_START_MS, "the same seed gives the same file");
    }

    #[test]
    fn mixes_are_read_strictly() {
        assert_eq!(mix("card_test=1,odd_hour=0.5"), Ok(AnomalyMix([0.0, 0.0, 0.5, 0.0, 1.0, 0.0])));
        for wrong in ["", "card_test", "card_tests=1", "card_test=-1", "card_test=x"] {
            assert!(mix(wrong).is_err(), "{wrong}");
        }
    }
}
