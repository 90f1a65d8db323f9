//! `mangrove token`: tokens for the HTTP interface.

use serde::Serialize;

use super::{Failure, Group, Output};
use crate::config::token_entry;
use crate::random::secret;

const EXAMPLES: &str = "\
Examples:
  mangrove token new checkout --scopes write
  mangrove token new dashboard --scopes query+write
  mangrove token new operator --scopes query+admin --json

The token is printed once and kept nowhere: give it to its holder. Its entry goes into API_TOKENS (entries with commas between);
it holds the token's digest only. Scopes: query reads, write sends payments and labels, erase erases a user, admin operates.
A token is withdrawn by taking its entry out and restarting.";

/// In front of every token, so that one is known for what it is wherever it turns up.
const PREFIX: &str = "mgv_";

/// The command's arguments.
pub type Args = Group<What>;

/// What to do.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum What {
    /// Make a token, and print it once
    New {
        /// Who it is for; stands in the audit trail
        name: String,

        /// What it opens: query, write, erase and admin, with plus signs between
        #[arg(long)]
        scopes: String,
    },
}

#[derive(Serialize)]
struct Made {
    name: String,
    token: String,
    entry: String,
}

/// Makes a token.
///
/// # Errors
/// A name or scopes that `API_TOKENS` would not take.
pub fn run(args: &Args) -> Result<(), Failure> {
    let What::New { name, scopes } = &args.what;
    let made = make(name, scopes, &secret())?;
    let mut output = Output::stdout();
    if args.json {
        return output.json(&made);
    }
    output.line(&format!("token, shown this once:    {}", made.token))?;
    output.line(&format!("entry for API_TOKENS:      {}", made.entry))
}

fn make(name: &str, scopes: &str, random: &[u8; 32]) -> Result<Made, Failure> {
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("{PREFIX}{digits}");
    let entry = token_entry(name, scopes, &token).map_err(|why| Failure::new(format!("no token was made: {why}")))?;
    Ok(Made { name: name.to_owned(), token, entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_what_the_settings_take_and_does_not_hold_the_token() {
        let made = make("checkout", "write+query", &[7; 32]).expect("a token");
        assert_eq!(made.token.len(), PREFIX.len() + 64);
        assert!(!made.entry.contains(&made.token[PREFIX.len()..]));
        assert!(made.entry.starts_with("checkout:write+query:"));
        assert_ne!(
            make("checkout", "write", &secret()).expect("one").token,
            make("checkout", "write", &secret()).expect("one").token
        );
    }

    #[test]
    fn wrong_names_and_scopes_are_refused() {
        for (name, scopes) in
            [("", "query"), ("a:b", "query"), ("a,b", "query"), ("a", ""), ("a", "query+root"), ("a", "query,write")]
        {
            assert!(make(name, scopes, &[7; 32]).is_err(), "{name:?} {scopes:?}");
        }
    }
}
