//! Training on a real Postgres: the same model as from the topic, and labels that keep a worse one out.

use mangrove::api::Api;
use mangrove::registry::Retrained;
use mangrove::tiers::ServerUrl;
use mangrove::training::jobs::{Order, Outcome, Phase, Promotion, Source};
use mangrove::training::{FromPostgres, Logs, Recipe, Span, TrainingRows, candidate, from_postgres, from_verdicts};
use models::TrainParams;
use models::validate::Report;
use state::tier::Lookup;

use crate::place;
use crate::servers::Server;
use crate::stage::{BEGIN_MS, Stage, until};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Payments of ten days, six minutes apart.
const PAYMENTS: usize = 2_400;
/// The first one's time.
const FIRST_MS: i64 = BEGIN_MS - 12 * DAY_MS;
/// One payment in so many is a fraud, and is labelled as one.
const FRAUD: usize = 12;

fn payment(number: usize, user: &str, at_ms: i64) -> (String, String) {
    let spike = if number.is_multiple_of(FRAUD) { 90 } else { 1 };
    let amount = (number * 7 % 40 + 1) * spike;
    let currency = if number.is_multiple_of(5) { r#","currency":"EUR""# } else { "" };
    let value = format!(
        r#"{{"user_id":"{user}","amount":{amount}.37,"merchant":"shop {}","tx_id":"tx {number}","timestamp":{at_ms}{currency}}}"#,
        number % 7
    );
    (user.to_owned(), value)
}

/// Ten days of payments, scored. One in five is converted.
fn stage(postgres: Option<&ServerUrl>, folder: &std::path::Path, more: &[(&'static str, String)]) -> Stage {
    let rates = folder.join("rates.json");
    std::fs::write(&rates, r#"{"EUR": 1.0837}"#).unwrap();
    let mut settings = vec![("FX_RATES_PATH", rates.display().to_string())];
    settings.extend_from_slice(more);
    let mut stage = Stage::with(None, postgres, &settings);
    let at = |number: usize| FIRST_MS + number as i64 * DAY_MS / 240;
    stage.pay_these((0..PAYMENTS).map(|number| payment(number, &format!("user {}", number % 60), at(number))).collect());
    stage.scored();
    stage
}

/// Says of one payment in `FRAUD` that it was a fraud, and of each one after it that it was not.
fn label_all(stage: &Stage) {
    let label = |number: usize| {
        let user = format!("user {}", number % 60);
        let finding = if number.is_multiple_of(FRAUD) { "fraud" } else { "legitimate" };
        let text = format!(r#"{{"user_id":"{user}","tx_id":"tx {number}","label":"{finding}","at":{number}}}"#);
        (user, text)
    };
    let labels: Vec<_> = (0..PAYMENTS).filter(|number| number % FRAUD < 2).map(label).collect();
    let labels: Vec<_> = labels.iter().map(|(user, text)| (user.as_str(), text.as_str())).collect();
    stage.say("labels", &labels);
}

fn order(source: Source, trees: usize, samples: usize, promotion: Promotion) -> Order {
    Order { source, span: Span::All, trees, samples, seed: 7, contamination: 0.05, promotion, why: "trained" }
}

/// Does an order on the running instance.
fn done(api: &Api, order: Order) -> Phase {
    let job = api.jobs.submit(order, 0).unwrap();
    until("the training has ended", || api.jobs.get(&job).map(|job| job.phase).filter(Phase::has_ended))
}

fn trained(api: &Api, order: Order) -> Outcome {
    match done(api, order) {
        Phase::Done(outcome) => *outcome,
        other => panic!("{other:?}"),
    }
}

fn source_of(api: &Api, outcome: &Outcome) -> String {
    api.registry.view().version(&outcome.model).unwrap().source.clone()
}

struct Sides {
    topic: TrainingRows,
    postgres: FromPostgres,
}

fn sides(stage: &Stage, logs: Logs, span: Span) -> Sides {
    let topic = from_verdicts(&*stage.broker, logs, span, 0, &|_| (), &|| false).unwrap();
    let cold = (stage.postgres(), stage.application.as_str());
    let postgres = from_postgres(&*stage.broker, logs, cold, span, &|_| (), &|| false).unwrap();
    Sides { topic, postgres }
}

/// A model and what validation says of it, as bytes and text.
fn judged(rows: TrainingRows) -> (Vec<u8>, Report) {
    let params = TrainParams { trees: 25, max_samples: 128, seed: 7 };
    let recipe = Recipe { params, contamination: 0.05, threshold: 0.5, fixed_p99: None };
    let candidate = candidate(rows, &recipe, None, &|| {}).unwrap();
    (candidate.model.to_bytes(), candidate.report)
}

/// Bit for bit, whatever order Postgres keeps rows in; with converted amounts, labels of both kinds, verdicts that were written twice and
/// users who were erased, among them the one who paid last.
#[test]
fn postgres_gives_the_very_model_that_the_topic_gives() {
    let Some(url) = place::postgres("postgres_gives_the_very_model") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(Some(&url), folder.path(), &[]);
    label_all(&stage);
    stage.pay_these((0..60).map(|at| payment(at, "late", BEGIN_MS - DAY_MS + at as i64 * 60_000)).collect());
    stage.scored();
    let again: Vec<_> = stage.records(stage.topic("verdicts")).into_iter().take(40).collect();
    for (_, _, key, value) in &again {
        let (key, value) = (std::str::from_utf8(key).unwrap(), std::str::from_utf8(value.as_ref().unwrap()).unwrap());
        stage.say("verdicts", &[(key, value)]);
    }
    for user in ["user 7", "late"] {
        stage.say("commands", &[(user, &format!(r#"{{"kind":"erase","user_id":"{user}"}}"#))]);
        until("the erasure is in the changelog", || matches!(stage.profiles()[user], Lookup::Deleted(_)).then_some(()));
    }
    // One of them comes back.
    stage.pay_these(vec![payment(1, "user 7", FIRST_MS + 9 * DAY_MS)]);
    let logs = stage.logs();
    let of_user_7 = PAYMENTS / 60;
    let expected = PAYMENTS - of_user_7 + 1;
    until("both hold what counts", || {
        let Sides { topic, postgres } = sides(&stage, logs, Span::All);
        (topic.len() == expected && postgres.rows.len() == expected).then_some(())
    });
    // What says nothing new is also there: verdicts of twice, and all labels.
    stage.projected();
    stage.sql(
        "CREATE TEMP TABLE mixed AS SELECT * FROM verdicts; TRUNCATE verdicts;
         INSERT INTO verdicts SELECT * FROM mixed ORDER BY md5(id)",
    );
    let middle = Span::Between { from_ms: FIRST_MS + 2 * DAY_MS, to_ms: FIRST_MS + 5 * DAY_MS + HOUR_MS };
    for (span, least) in [(Span::All, expected), (middle, 700), (Span::LastDays(3), 680)] {
        let Sides { topic, postgres } = sides(&stage, logs, span);
        assert!(postgres.is_complete(), "it lacks {}", postgres.lacks);
        let postgres = postgres.rows;
        assert_eq!(topic, postgres, "{span:?}");
        assert!((least..=expected.min(least + 60)).contains(&topic.len()), "{span:?} has {} rows", topic.len());
        let (from_topic, from_postgres) = (judged(topic), judged(postgres));
        assert!(from_topic == from_postgres, "{span:?}");
    }
    // Nobody can tell the two apart by the model that a job ends with.
    let api = stage.api();
    let one = trained(&api, order(Source::Postgres, 20, 64, Promotion::ByHand));
    let two = trained(&api, order(Source::Verdicts, 20, 64, Promotion::ByHand));
    assert_eq!((one.model.clone(), one.rows, one.report.clone()), (two.model, expected as u64, two.report));
    assert_eq!(source_of(&api, &one), "postgres");
    // What Postgres alone knows of labels counts, too.
    stage.sql("UPDATE labels SET label = 'legitimate', labelled_at = labelled_at + interval '1 day'");
    let relabelled = trained(&api, order(Source::Postgres, 20, 64, Promotion::ByHand));
    assert_eq!(relabelled.model, one.model, "labels have no part in training");
    assert!(figure(&one.report, "average_precision").is_some());
    assert_eq!(figure(&relabelled.report, "average_precision"), None, "no fraud is left");
}

fn figure(report: &Report, name: &str) -> Option<f64> {
    report.checks.iter().find(|check| check.name == name).unwrap().value
}

/// The daily retrain's source: Postgres while that holds what the topic does, else the topic.
#[test]
fn retraining_reads_postgres_and_does_without_it() {
    if place::postgres("retraining_reads_postgres").is_none() {
        return;
    }
    let (server, folder) = (Server::postgres(), tempfile::tempdir().unwrap());
    let full = stage(Some(&server.url), folder.path(), &[]);
    full.postgres_is_right();
    full.projected();
    let logged = |seed: u64| Order { seed, ..order(Source::Logged, 10, 64, Promotion::ByHand) };
    let first = trained(&full.api(), logged(1));
    assert_eq!((source_of(&full.api(), &first).as_str(), first.rows), ("postgres", PAYMENTS as u64));
    // Nobody writes this one.
    let bare = stage(Some(&server.url), folder.path(), &[("ROLES", "api,stream".to_owned())]);
    let lacking = trained(&bare.api(), logged(1));
    assert_eq!((source_of(&bare.api(), &lacking).as_str(), lacking.rows), ("verdicts", PAYMENTS as u64));
    server.kill();
    let down = trained(&full.api(), logged(2));
    assert_eq!((source_of(&full.api(), &down).as_str(), down.rows), ("verdicts", PAYMENTS as u64));
    let Phase::Failed { why } = done(&full.api(), order(Source::Postgres, 10, 64, Promotion::ByHand)) else {
        panic!("who asks for Postgres gets nothing else")
    };
    assert!(why.contains("Postgres") && !why.contains(&server.url.password().unwrap()), "{why}");
}

/// Labels end to end: without them nothing is said of precision; with them a worse candidate is refused by that check's name.
#[test]
fn a_worse_candidate_is_refused_by_what_labels_say() {
    let folder = tempfile::tempdir().unwrap();
    let stage = stage(None, folder.path(), &[]);
    let api = stage.api();
    let first = trained(&api, order(Source::Verdicts, 100, 256, Promotion::IfPassed));
    assert!(first.promoted, "{}", first.why);
    for name in ["average_precision", "card_precision"] {
        assert_eq!(figure(&first.report, name), None, "nothing is labelled yet");
    }
    label_all(&stage);
    let good = Order { seed: 8, ..order(Source::Verdicts, 100, 256, Promotion::ByHand) };
    let good = trained(&api, good);
    for name in ["average_precision", "card_precision"] {
        assert!(figure(&good.report, name) > Some(0.0), "{:?}", good.report);
        assert!(!good.report.failed().any(|failed| failed == name), "{:?}", good.report);
    }
    // A tree of two rows knows next to nothing.
    let worse = trained(&api, order(Source::Verdicts, 1, 2, Promotion::IfPassed));
    assert!(!worse.promoted && worse.why.contains("average_precision"), "{} {:?}", worse.why, worse.report);
    assert!(figure(&worse.report, "average_precision") < figure(&good.report, "average_precision"));
    assert_eq!(api.registry.view().active().unwrap().model, first.model, "the old model goes on");
}

/// The same rows give the same model: then there is nothing to try out in shadow, and nothing to promote.
#[test]
fn a_retraining_that_changes_nothing_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("ROLES", "api,stream,schedule".to_owned()),
        ("RETRAIN_CRON", "0 3 1 1 *".to_owned()),
        ("RETRAIN_SHADOW_HOURS", "1".to_owned()),
    ];
    let stage = stage(None, folder.path(), &settings);
    let api = stage.api();
    let retrained = || {
        let request = api.registry.request_retrain().unwrap();
        until("the retraining has ended", || {
            let last = api.retraining.status().last.filter(|last| last.ended_ms.is_some());
            last.filter(|last| last.request.as_ref() == Some(&request))
        })
    };
    let first = retrained();
    assert_eq!(first.outcome, Retrained::Promoted, "{}", first.why);
    let active = api.registry.view().active().cloned();
    let second = retrained();
    assert_eq!((second.outcome, &second.model), (Retrained::Kept, &first.model), "{}", second.why);
    assert!(second.why.contains("nothing changed"), "{}", second.why);
    assert_eq!(api.registry.view().active().cloned(), active);
    assert_eq!(api.registry.view().running_shadows().count(), 0);
}
