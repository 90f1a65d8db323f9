//! What is a command in a document: the entries of its blocks of code, and code within its text that begins as a command does.

/// Code within text that begins so is a command, or a part of one.
const PROGRAMS: &[&str] = &[
    "make ",
    "mangrove ",
    "target/release/",
    "scripts/",
    "benches/",
    "cargo ",
    "curl ",
    "docker ",
    "kubectl ",
    "systemctl ",
    "redis-cli ",
    "psql ",
    "echo ",
];

/// The entries of a document's blocks, in their order: commands, and what is shown beside them. A line that goes on on the next one (by
/// a backslash, or by indentation) is one entry; what is said of a command behind `#` is left out, and so are blocks of JSON.
pub fn entries(text: &str) -> Vec<String> {
    let (mut entries, mut fence): (Vec<String>, Option<bool>) = (Vec::new(), None);
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(kind == "json") };
            continue;
        }
        let line = match fence {
            Some(true) => continue,
            Some(false) => line,
            None => match line.strip_prefix("    ") {
                Some(line) => line,
                None => continue,
            },
        };
        if line.starts_with('#') {
            continue;
        }
        let line = line.split(" # ").next().unwrap_or_default().trim_end();
        match entries.last_mut() {
            Some(last) if last.ends_with('\\') => {
                last.pop();
                last.push_str(line.trim_start());
            }
            Some(last) if line.starts_with(' ') => {
                last.push('\n');
                last.push_str(line.trim_start());
            }
            _ => entries.push(line.to_owned()),
        }
    }
    entries
}

/// Commands within a document's text, each once.
pub fn mentioned(text: &str) -> Vec<String> {
    let mut fenced = false;
    let prose = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with("    ")
    });
    let prose = prose.flat_map(|line| line.split(' ')).collect::<Vec<_>>().join(" ");
    let mut found: Vec<String> = prose.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    found.retain(|code| PROGRAMS.iter().any(|program| code.starts_with(program)));
    found.sort();
    found.dedup();
    found
}

/// One of the commands of a line, taken apart as a shell does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Simple {
    /// Variables that are set for it.
    pub sets: Vec<String>,
    /// The program and its arguments, without quotes.
    pub words: Vec<String>,
}

impl Simple {
    pub fn of(command: &str) -> Self {
        let (mut words, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) = (Vec::new(), None, None);
        for c in command.chars() {
            match (c, quote) {
                (c, Some(open)) if c == open => quote = None,
                ('\'' | '"', None) => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (' ' | '\n', None) => words.extend(word.take()),
                (c, _) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        let name = |word: &String| {
            let name = word.split_once('=')?.0;
            let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            plain.then(|| name.to_owned())
        };
        let sets: Vec<String> = words.iter().map_while(name).collect();
        words.drain(..sets.len());
        Self { sets, words }
    }

    /// What a row of the table is looked up by.
    pub fn text(&self) -> String {
        let text = self.words.join(" ");
        text.strip_prefix("mangrove ").map_or(text.clone(), |rest| format!("target/release/mangrove {rest}"))
    }
}

#[test]
fn entries_and_mentions_are_found_where_they_are() {
    let text = "See `make\ntest` and `Some::path`, or `mangrove check --connect`.\n\n    A=1 make x    # why\n    curl -s a \\\n      -d b\n\
                \n```json\n    {\"a\": 1}\n```\n```\nscripts/y.sh\n```\n    # said only\n    GRANT a,\n        b;\n";
    assert_eq!(entries(text), ["A=1 make x", "curl -s a -d b", "scripts/y.sh", "GRANT a,\nb;"]);
    assert_eq!(mentioned(text), ["make test", "mangrove check --connect"]);
    let simple = Simple::of("A=1 B='c d' make \"x y\" Z=2");
    assert_eq!(
        (simple.sets, simple.words),
        (vec!["A".to_owned(), "B".to_owned()], vec!["make".to_owned(), "x y".into(), "Z=2".into()])
    );
    assert_eq!(Simple::of("mangrove run").text(), "target/release/mangrove run");
}
