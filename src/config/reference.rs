//! The two texts that explain every setting, made from the declarations: `.env.example` and `docs/settings.md`.
//!
//! A test fails where the files differ from what is made here; `UPDATE_DOCS=1` writes them.

use std::fmt::Write as _;

use super::declare::{Declaration, Fallback};
use super::table::DECLARATIONS;

const LINE_MAX: usize = 110;

/// `.env.example`: every variable explained, with its default commented out.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Settings of Mangrove. Copy this file to .env and uncomment what differs.\n\
         # A flag overrides the environment, which overrides this file. `mangrove config` shows what is in force.\n\
         # Any other property of librdkafka: KAFKA_SECURITY_PROTOCOL=SASL_SSL sets security.protocol.\n",
    );
    let mut section = "";
    for declaration in DECLARATIONS {
        if declaration.section != section {
            section = declaration.section;
            writes(&mut text, format_args!("\n# --- {section} ---\n"));
        }
        text.push('\n');
        for line in wrap(&declaration.help()) {
            writes(&mut text, format_args!("# {line}\n"));
        }
        writes(&mut text, format_args!("# Expected: {}.\n", (declaration.expected)()));
        match declaration.fallback {
            Fallback::Text(value) | Fallback::Prefixed(value) => {
                writes(&mut text, format_args!("#{}={value}\n", declaration.variable));
            }
            Fallback::Found { words, .. } => {
                writes(&mut text, format_args!("# Default: {words}.\n#{}=\n", declaration.variable));
            }
            Fallback::Unset { means } => {
                writes(&mut text, format_args!("# Not set: {means}.\n#{}=\n", declaration.variable));
            }
        }
    }
    text
}

/// `docs/settings.md`: one table a section.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         <!-- Made from src/config/table.rs: UPDATE_DOCS=1 cargo test --release --lib config -->\n\n\
         Each setting comes from the first of these that gives one: a flag, the environment, the file `.env` (or `--env-file`), \
         the command's own default, the default below. An empty value is a value: it is right only where \"or nothing\" or a \
         length of 0 is expected. All that is wrong is reported at once, with its source, and the program exits with status 2. \
         `mangrove config` shows what is in force and from where, secrets masked.\n\n\
         Any other `KAFKA_*` variable is a property of librdkafka: `KAFKA_SECURITY_PROTOCOL` is `security.protocol`. Those on \
         which the guarantees rest (`group.id`, `isolation.level`, `acks` and the like) are refused. Variables that Kafka's \
         own scripts and Kubernetes leave behind (`KAFKA_OPTS`, `KAFKA_HOME`, `KAFKA_SERVICE_HOST`, ...) are passed over.\n",
    );
    let mut section = "";
    for declaration in DECLARATIONS {
        if declaration.section != section {
            section = declaration.section;
            writes(
                &mut text,
                format_args!("\n## {section}\n\n| variable and flag | default | expected | what it does |\n|---|---|---|---|\n"),
            );
        }
        writes(&mut text, format_args!("{}\n", table_row(declaration)));
    }
    text
}

fn table_row(declaration: &Declaration) -> String {
    let flag = declaration.flag().map_or_else(|| "no flag".to_owned(), |flag| format!("`{flag}`"));
    let default = match declaration.fallback {
        Fallback::Text("") => "empty".to_owned(),
        Fallback::Text(value) => format!("`{value}`"),
        Fallback::Prefixed(name) => format!("`TOPIC_PREFIX` + `{name}`"),
        Fallback::Found { .. } | Fallback::Unset { .. } => declaration.fallback.words(),
    };
    let cells = [format!("`{}` {flag}", declaration.variable), default, (declaration.expected)(), declaration.help()];
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn writes(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("invariant: writing to a String cannot fail");
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full = lines.last().is_some_and(|line| !line.is_empty() && line.len() + 1 + word.len() > LINE_MAX);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
