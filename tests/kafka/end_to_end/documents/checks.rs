//! What can be said of a command without running it: its program is there, and knows its flags, targets and variables.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::commands::Simple;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Panics where the command cannot be what a reader is to type.
pub fn check(command: &str) {
    for part in command.split("&&") {
        let simple = Simple::of(part);
        let [program, arguments @ ..] = simple.words.as_slice() else { panic!("no program: {command}") };
        match program.as_str() {
            // Settings that the command before it has written.
            "." => {}
            "make" => target(command, &simple.sets, arguments),
            "mangrove" | "target/release/mangrove" => flags(command, arguments),
            script => self::script(command, script, &simple.sets, arguments),
        }
    }
}

fn target(command: &str, sets: &[String], arguments: &[String]) {
    let target = arguments.first().unwrap_or_else(|| panic!("no target: {command}"));
    let known = Command::new("make").args(["-n", target]).current_dir(root()).output().expect("make runs");
    assert!(known.status.success(), "{command}: {}", String::from_utf8_lossy(&known.stderr));
    let mut source = read(&root().join("Makefile"));
    for script in String::from_utf8_lossy(&known.stdout).split_whitespace().filter(|word| is_script(word)) {
        source.push_str(&read(&root().join(script)));
    }
    let given = arguments[1..].iter().filter_map(|argument| argument.split_once('=')).map(|(name, _)| name.to_owned());
    for name in sets.iter().cloned().chain(given) {
        assert!(knows(&source, &name), "{command}: nothing that {target} does knows {name}");
    }
}

/// Whether a source has this flag or variable, as a whole word.
fn knows(source: &str, name: &str) -> bool {
    source.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').any(|word| word == name)
}

fn is_script(word: &str) -> bool {
    (word.starts_with("scripts/") || word.starts_with("benches/")) && root().join(word).is_file()
}

/// Each word up to the first that is no subcommand names one, and each flag is one of it.
fn flags(command: &str, arguments: &[String]) {
    let mut at = mangrove::commands::command();
    at.build();
    let mut at = &at;
    for (place, argument) in arguments.iter().enumerate() {
        if let Some(flag) = argument.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or_default();
            assert!(
                at.get_arguments().any(|known| known.get_long() == Some(flag)),
                "{command}: {} has no --{flag}",
                at.get_name()
            );
        } else if let Some(next) = at.find_subcommand(argument) {
            at = next;
        } else {
            assert!(place > 0, "{command}: there is no such command");
        }
    }
}

fn script(command: &str, script: &str, sets: &[String], arguments: &[String]) {
    let path = root().join(script);
    let found = path.metadata().unwrap_or_else(|why| panic!("{command}: {script}: {why}"));
    assert!(found.is_file() && found.permissions().mode() & 0o111 != 0, "{command}: {script} cannot be run");
    let mut source = read(&path);
    if script == "scripts/cargo.sh" {
        // What it is given is cargo's; variables and names are the tests'.
        source = tests();
        for (flag, name) in arguments.iter().zip(&arguments[1..]).filter(|(flag, _)| *flag == "--test") {
            assert!(root().join("tests").join(name).is_dir(), "{command}: there is no {flag} {name}");
        }
        for name in arguments.iter().filter(|argument| argument.contains("::") || argument.contains('_')) {
            let name = name.trim_end_matches(':');
            assert!(
                [format!("fn {name}"), format!("mod {name};")].iter().any(|known| source.contains(known)),
                "{command}: {name}"
            );
        }
    } else {
        for flag in arguments.iter().filter(|argument| argument.starts_with("--")) {
            assert!(knows(&source, flag), "{command}: {script} knows nothing of {flag}");
        }
    }
    for name in sets {
        assert!(knows(&source, name), "{command}: {script} knows nothing of {name}");
    }
}

fn tests() -> String {
    let (mut text, mut folders) = (String::new(), vec![root().join("tests")]);
    while let Some(folder) = folders.pop() {
        let found = std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let (inside, files): (Vec<PathBuf>, Vec<PathBuf>) = found.partition(|path| path.is_dir());
        folders.extend(inside);
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
            writeln!(text, "{}", read(file)).expect("text");
        }
    }
    text
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

#[test]
fn what_is_not_there_is_found() {
    check("make chaos MINUTES=1 SEED=5");
    check("mangrove notify resend msg_1 --json");
    check("UPDATE=1 scripts/instructions.sh");
    let wrong = [
        "make choas",
        "make chaos MINUTE=1 SEED=5",
        "mangrove notifies list",
        "mangrove notify list --jsn",
        "scripts/none.sh",
        "scripts/tools.txt",
        "RENEW=1 scripts/instructions.sh",
        "benches/limits/limits.py --boot",
        "scripts/cargo.sh test --test none",
        "scripts/cargo.sh test figure_of_none",
    ];
    for command in wrong {
        let found = std::panic::catch_unwind(|| check(command));
        assert!(found.is_err(), "{command}");
    }
}
