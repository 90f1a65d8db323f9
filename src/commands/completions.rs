//! `mangrove completions`: what a shell needs to complete commands, flags and their values.

use clap_complete::Shell;

use super::{Failure, Output, command};

const EXAMPLES: &str = "\
Examples:
  mangrove completions bash > /etc/bash_completion.d/mangrove
  mangrove completions zsh > \"${fpath[1]}/_mangrove\"
  mangrove completions fish > ~/.config/fish/completions/mangrove.fish";

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// Where standard output fails.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "mangrove", &mut script);
    Output::stdout().line(String::from_utf8_lossy(&script).trim_end())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_gets_every_command() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command(), "mangrove", &mut script);
            let script = String::from_utf8(script).unwrap();
            for known in command().get_subcommands() {
                assert!(script.contains(known.get_name()), "{shell}: {}", known.get_name());
            }
        }
    }
}
