//! The `.env` file's grammar, and no more of it than the common tools agree on.
//!
//! `NAME=value`, one a line; `export ` in front is allowed; blank lines and lines that begin with `#` are skipped. A value
//! in single quotes is taken as it is; in double quotes `\n`, `\"`, `\\` and `\$` are escapes; unquoted it ends before ` #`.
//! There is no substitution of other variables and no value over several lines. Of two lines for one name the last wins.

/// What a line should look like.
pub(super) const EXPECTED: &str = "`NAME=value`, `NAME='value'`, `NAME=\"value\"`, a comment after #, or an empty line";

/// One line that says something.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub number: usize,
    /// Name and value, or what is wrong.
    pub content: Result<(String, String), &'static str>,
}

/// All lines that are neither empty nor a comment.
pub(super) fn parse(text: &str) -> Vec<Line> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| Line { number, content: parse_line(line) })
        .collect()
}

fn parse_line(line: &str) -> Result<(String, String), &'static str> {
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = line.split_once('=').ok_or("has no `=`")?;
    let name = name.trim_end();
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("does not begin with a variable's name");
    }
    let value = value.trim_start();
    let value = if let Some(rest) = value.strip_prefix('\'') {
        let (inside, after) = rest.split_once('\'').ok_or("has a quote that is not closed")?;
        only_comment(after)?;
        inside.to_owned()
    } else if let Some(rest) = value.strip_prefix('"') {
        let (inside, after) = double_quoted(rest)?;
        only_comment(after)?;
        inside
    } else {
        unquoted(value).to_owned()
    };
    Ok((name.to_owned(), value))
}

fn double_quoted(rest: &str) -> Result<(String, &str), &'static str> {
    let mut inside = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((inside, &rest[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => inside.push('\n'),
                Some((_, escaped @ ('"' | '\\' | '$'))) => inside.push(escaped),
                _ => return Err("has an unknown escape after `\\`"),
            },
            _ => inside.push(c),
        }
    }
    Err("has a quote that is not closed")
}

fn only_comment(after: &str) -> Result<(), &'static str> {
    let after = after.trim_start();
    if after.is_empty() || after.starts_with('#') { Ok(()) } else { Err("goes on after the closing quote") }
}

fn unquoted(value: &str) -> &str {
    if value.starts_with('#') {
        return "";
    }
    let end = [" #", "\t#"].iter().filter_map(|mark| value.find(mark)).min().unwrap_or(value.len());
    value[..end].trim_end()
}
