//! What was said of payments, asked of the real interface above a real Postgres.

use std::collections::BTreeMap;

use models::Verdict;

use crate::place;
use crate::site::Site;
use crate::stage::{Stage, until};

/// Every verdict of a question, page by page.
fn all_of(site: &Site, question: &str, limit: usize) -> Vec<Verdict> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = site.get(&format!("{question}&limit={limit}{after}"));
        let verdicts: Vec<Verdict> = serde_json::from_value(page["verdicts"].clone()).unwrap();
        assert!(verdicts.len() <= limit);
        all.extend(verdicts);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

/// What the topic has, in the order of the answers.
fn logged(stage: &Stage) -> Vec<Verdict> {
    let records = stage.records(stage.topic("verdicts")).into_iter();
    let verdicts = records.map(|(_, _, _, value)| serde_json::from_slice::<Verdict>(&value.unwrap()).unwrap());
    let by_id: BTreeMap<String, Verdict> = verdicts.map(|verdict| (verdict.id.clone(), verdict)).collect();
    let mut all: Vec<Verdict> = by_id.into_values().collect();
    all.sort_by(|one, other| (other.event_time, &other.id).cmp(&(one.event_time, &one.id)));
    all
}

fn matching(all: &[Verdict], keep: impl Fn(&Verdict) -> bool) -> Vec<Verdict> {
    all.iter().filter(|verdict| keep(verdict)).cloned().collect()
}

#[test]
fn every_question_gets_what_the_topic_says_page_by_page() {
    let Some(postgres) = place::postgres("every_question_gets_what_the_topic_says_page_by_page") else { return };
    let mut stage = Stage::new(None, Some(&postgres));
    stage.pay(1_500, 40);
    stage.scored();
    stage.postgres_is_right();
    let site = Site::of(stage.api());
    let all = logged(&stage);
    let (first, last) = (all.last().unwrap().event_time, all[0].event_time);
    let window = format!("from={first}&to={}", last + 1);
    assert_eq!(all_of(&site, &format!("/v1/verdicts?{window}"), 1_000), all);
    assert_eq!(all_of(&site, &format!("/v1/verdicts?{window}"), 97), all, "whatever the size of a page");
    assert_eq!(
        all_of(&site, &format!("/v1/verdicts?{window}&user_id=user%207"), 9),
        matching(&all, |verdict| verdict.user_id == "user 7")
    );
    assert_eq!(
        all_of(&site, &format!("/v1/users/user%207/verdicts?{window}"), 9),
        matching(&all, |verdict| verdict.user_id == "user 7")
    );
    assert_eq!(
        all_of(&site, &format!("/v1/verdicts?{window}&merchant=shop%203&user_id=user%207"), 5),
        matching(&all, |verdict| verdict.merchant == "shop 3" && verdict.user_id == "user 7")
    );
    let middle = (first + last) / 2;
    assert_eq!(
        all_of(&site, &format!("/v1/verdicts?from={first}&to={middle}"), 500),
        matching(&all, |verdict| verdict.event_time < middle)
    );
    // No model scored: no anomaly, and every severity is NONE.
    assert_eq!(all_of(&site, &format!("/v1/anomalies?{window}"), 10), []);
    assert_eq!(all_of(&site, &format!("/v1/verdicts?{window}&severity=HIGH,CRITICAL"), 10), []);
    assert_eq!(all_of(&site, &format!("/v1/verdicts?{window}&severity=NONE,LOW"), 1_000), all);
    assert_eq!(all_of(&site, &format!("/v1/verdicts?{window}&model_id=0123456789abcdef"), 10), []);

    let one: Verdict = serde_json::from_value(site.get(&format!("/v1/verdicts/{}", all[3].id))).unwrap();
    assert_eq!(one, all[3]);
    assert_eq!(site.problem("/v1/verdicts/transactions:0:99999"), (404, "/problems/no-such-verdict".to_owned()));
    for wrong in [
        "severity=high",
        "from=yesterday",
        "limit=0",
        "limit=1001",
        "after=zz",
        "user_id=",
        "from=2&to=1",
        "format=xml",
        "other=1",
    ] {
        assert_eq!(site.problem(&format!("/v1/verdicts?{wrong}")), (400, "/problems/invalid-parameter".to_owned()), "{wrong}");
    }
}

#[test]
fn anomalies_are_found_by_severity_and_model() {
    let Some(postgres) = place::postgres("anomalies_are_found_by_severity_and_model") else { return };
    let mut stage = Stage::new(None, Some(&postgres));
    stage.pay(600, 20);
    stage.scored();
    stage.postgres_is_right();
    // As a model would have said it: what is asked is how questions read rows.
    stage.sql(
        "UPDATE verdicts SET severity = split_part(id, ':', 3)::int % 5, is_anomaly = split_part(id, ':', 3)::int % 5 > 0,
         model_id = '0123456789abcde' || split_part(id, ':', 2), score = 0.25, reasons =
         '[{\"feature\":\"amount\",\"value\":1.0,\"contribution\":2.0,\"text\":\"t\"}]'",
    );
    let site = Site::of(stage.api());
    let all = logged(&stage);
    let window = format!("from={}&to={}", all.last().unwrap().event_time, all[0].event_time + 1);
    let parts = |verdict: &Verdict| {
        let mut parts = verdict.id.split(':').skip(1).map(|part| part.parse::<u64>().unwrap());
        (parts.next().unwrap(), parts.next().unwrap() % 5)
    };
    let ids = |verdicts: &[Verdict]| verdicts.iter().map(|verdict| verdict.id.clone()).collect::<Vec<_>>();
    let expect = |keep: &dyn Fn(u64, u64) -> bool| {
        ids(&matching(&all, |verdict| {
            let (partition, rank) = parts(verdict);
            keep(partition, rank)
        }))
    };
    let anomalies = all_of(&site, &format!("/v1/anomalies?{window}"), 50);
    assert_eq!(ids(&anomalies), expect(&|_, rank| rank > 0));
    assert!(anomalies.iter().all(|verdict| verdict.reasons[0].text == "t" && verdict.score == Some(0.25)));
    let severe = all_of(&site, &format!("/v1/anomalies?{window}&severity=HIGH,CRITICAL"), 50);
    assert_eq!(ids(&severe), expect(&|_, rank| rank >= 3));
    let of_model = all_of(&site, &format!("/v1/verdicts?{window}&model_id=0123456789abcde2&severity=LOW"), 50);
    assert_eq!(ids(&of_model), expect(&|partition, rank| partition == 2 && rank == 1));
}

#[test]
fn a_question_comes_as_one_csv() {
    let Some(postgres) = place::postgres("a_question_comes_as_one_csv") else { return };
    let mut stage = Stage::new(None, Some(&postgres));
    stage.pay(2_300, 40);
    stage.scored();
    stage.postgres_is_right();
    stage.sql("UPDATE verdicts SET merchant = '=HYPERLINK(\"http://evil\")' WHERE merchant = 'shop 1'");
    let site = Site::of(stage.api());
    let all = logged(&stage);
    let window = format!("from={}&to={}", all.last().unwrap().event_time, all[0].event_time + 1);
    let got = site.ask(&format!("/v1/verdicts?{window}"), "Accept: text/csv\r\n");
    assert_eq!(got.status, 200);
    assert!(got.head.contains("content-type: text/csv") && got.head.contains("content-disposition: attachment"), "{}", got.head);
    let mut reader = csv::Reader::from_reader(got.body.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("well-formed")).collect();
    assert_eq!(rows.len(), all.len(), "more than two pages of rows");
    for (row, verdict) in rows.iter().zip(&all) {
        assert_eq!((&row[0], &row[3], row[5].parse()), (verdict.id.as_str(), verdict.user_id.as_str(), Ok(verdict.amount)));
        let merchant = if verdict.merchant == "shop 1" { "'=HYPERLINK(\"http://evil\")" } else { &verdict.merchant };
        assert_eq!(&row[4], merchant, "no cell is a formula");
    }
    let json = site.ask(&format!("/v1/verdicts?{window}&format=json"), "Accept: text/csv\r\n");
    assert!(json.head.contains("content-type: application/json"), "the parameter is the stronger word");
}

#[test]
fn without_an_answer_of_postgres_nothing_is_made_up() {
    let stage = Stage::new(None, None);
    let site = Site::of(stage.api());
    for path in ["/v1/verdicts", "/v1/anomalies?format=csv", "/v1/users/u/verdicts", "/v1/verdicts/transactions:0:0"] {
        assert_eq!(site.problem(path), (409, "/problems/no-cold-tier".to_owned()), "{path}");
    }
    drop(stage);
    if place::postgres("without_an_answer_of_postgres_nothing_is_made_up").is_none() {
        return;
    }
    let server = crate::servers::Server::postgres();
    let mut stage = Stage::new(None, Some(&server.url));
    stage.pay(10, 2);
    stage.scored();
    stage.postgres_is_right();
    let site = Site::of(stage.api());
    server.kill();
    until("the interface says that Postgres is gone", || {
        let (status, kind) = site.problem("/v1/verdicts?from=0");
        (status == 503 && kind == "/problems/cold-tier-unavailable").then_some(())
    });
    server.start();
    until("it answers again", || (site.ask("/v1/verdicts?from=0", "").status == 200).then_some(()));
}
