//! Topics: what is missing is created as it must be, or named; what does not fit together is refused.

use super::scene::Scene;

const OURS: [&str; 8] =
    ["transactions", "commands", "labels", "verdicts", "anomalies", "dead-letters", "app-profiles-changelog", "app-decisions"];

/// Starts an instance that must refuse to, and gives all that it says.
fn refusal(scene: &Scene, settings: &[(&str, &str)]) -> String {
    let mut service = scene.start_with("a", settings);
    let (status, _) = service.end();
    assert_eq!(status.code(), Some(1), "{}", service.text());
    service.text()
}

#[test]
fn missing_topics_are_created_to_fit_the_input() {
    let Some(scene) = Scene::new("created") else { return };
    scene.create("transactions", 3, &[("max.message.bytes", "2000000")]);
    let mut service = scene.start("a");
    service.restored(3);
    for name in OURS {
        assert_eq!(scene.ends(&scene.topic(name)).len(), 3, "partitions of {name}");
    }
    for name in ["verdicts", "anomalies", "dead-letters", "commands", "labels", "app-decisions"] {
        assert_eq!(scene.property(&scene.topic(name), "cleanup.policy"), "delete", "{name}");
        assert_eq!(scene.property(&scene.topic(name), "retention.ms"), "-1", "{name}");
    }
    let changelog = scene.changelog();
    assert_eq!(scene.property(&changelog, "cleanup.policy"), "compact");
    assert_eq!(scene.property(&changelog, "delete.retention.ms"), (7 * 24 * 3_600_000).to_string());
    assert_eq!(scene.ends(&scene.topic("models")).len(), 1, "order between models matters");
    assert_eq!(scene.property(&scene.topic("models"), "cleanup.policy"), "compact");
    assert_eq!(scene.property(&scene.topic("dead-letters"), "max.message.bytes"), (2_000_000 + (16 << 10)).to_string());
    assert_eq!(scene.ends(&scene.topic("app-snoozes")).len(), 1, "every instance reads all of it");
    assert_eq!(scene.property(&scene.topic("app-snoozes"), "cleanup.policy"), "compact");
    assert_eq!(scene.ends(&scene.topic("app-members")).len(), 1, "announcements have an order");
    assert_eq!(scene.property(&scene.topic("app-members"), "cleanup.policy"), "compact");
    service.stop();
}

#[test]
fn an_input_that_is_missing_is_created_too() {
    let Some(scene) = Scene::new("input") else { return };
    let mut service = scene.start_with("a", &[("TOPIC_PARTITIONS", "5")]);
    service.restored(5);
    for name in OURS {
        assert_eq!(scene.ends(&scene.topic(name)).len(), 5, "partitions of {name}");
    }
    let default: u32 = scene.property(&scene.topic("transactions"), "max.message.bytes").parse().expect("a number");
    assert_eq!(scene.property(&scene.topic("dead-letters"), "max.message.bytes"), (default + (16 << 10)).to_string());
    service.stop();
}

#[test]
fn missing_topics_that_may_not_be_created_are_named() {
    let Some(scene) = Scene::new("named") else { return };
    scene.create("transactions", 2, &[]);
    scene.create("verdicts", 2, &[]);
    let said = refusal(&scene, &[("CREATE_TOPICS", "false")]);
    let error = said.lines().find(|line| line.starts_with("error: ")).expect("an error");
    for name in OURS {
        let there = ["transactions", "verdicts"].contains(&name);
        assert_eq!(error.contains(&scene.topic(name)), !there, "{name} in: {error}");
    }
    assert!(error.contains("CREATE_TOPICS"), "{error}");
}

#[test]
fn numbers_of_partitions_that_do_not_match_are_refused() {
    let Some(scene) = Scene::new("counts") else { return };
    scene.create("transactions", 3, &[]);
    scene.create("commands", 4, &[]);
    let said = refusal(&scene, &[]);
    for part in [format!("`{}` has 4", scene.topic("commands")), format!("`{}` has 3", scene.topic("transactions"))] {
        assert!(said.contains(&part), "{part} in: {said}");
    }
}

#[test]
fn an_input_that_grew_is_refused() {
    let Some(scene) = Scene::new("grown") else { return };
    scene.create("transactions", 2, &[]);
    let mut service = scene.start("a");
    service.restored(2);
    service.stop();
    scene.grow(&["transactions", "commands"], 3);
    let said = refusal(&scene, &[]);
    let changelog = format!("`{}` has 2 partitions", scene.changelog());
    assert!(said.contains(&changelog) && said.contains("APPLICATION_ID"), "{said}");
}
