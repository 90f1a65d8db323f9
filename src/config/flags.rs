//! The flags of all settings, made from their declarations, for every subcommand.
//!
//! They take any text: all faults are found together by [`Settings::load`](super::Settings::load), whatever source they
//! are in, so clap checks no values here.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::declare::Declaration;
use super::source::Dotenv;
use super::table::DECLARATIONS;

const ENV_FILE: &str = "env-file";
/// Read where it exists and no other is named.
const ENV_FILE_DEFAULT: &str = ".env";

/// The settings that have a flag, and its name without the hyphens. clap wants names that live as long as the program.
static FLAGS: LazyLock<Vec<(&Declaration, String)>> = LazyLock::new(|| {
    let name = |flag: String| flag.trim_start_matches('-').to_owned();
    DECLARATIONS.iter().filter_map(|declaration| Some((declaration, name(declaration.flag()?)))).collect()
});

/// The settings that were given on the command line.
#[derive(Clone, Debug, Default)]
pub struct SettingFlags {
    /// (variable, value), as [`Sources`](super::Sources) takes them.
    pub values: Vec<(String, String)>,
    /// Which `.env` file to read.
    pub dotenv: Dotenv,
}

impl clap::Args for SettingFlags {
    fn augment_args(mut command: Command) -> Command {
        for (declaration, name) in FLAGS.iter() {
            let help = format!("{} [{}; default: {}]", declaration.help(), declaration.variable, declaration.fallback.words());
            command = command.arg(
                Arg::new(declaration.variable)
                    .long(name.as_str())
                    .value_name("VALUE")
                    .global(true)
                    .action(ArgAction::Set)
                    .value_parser(value_parser!(String))
                    .help_heading(declaration.section)
                    .hide_short_help(true)
                    .help(StyledStr::from(help)),
            );
        }
        command.arg(
            Arg::new(ENV_FILE)
                .long(ENV_FILE)
                .value_name("FILE")
                .global(true)
                .value_parser(value_parser!(PathBuf))
                .help_heading("Settings")
                .help("Read settings from this file instead of ./.env"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let values = FLAGS
            .iter()
            .filter_map(|(declaration, _)| {
                let value = matches.get_one::<String>(declaration.variable)?;
                Some((declaration.variable.to_owned(), value.clone()))
            })
            .collect();
        let dotenv = matches
            .get_one::<PathBuf>(ENV_FILE)
            .map_or_else(|| Dotenv::IfPresent(PathBuf::from(ENV_FILE_DEFAULT)), |path| Dotenv::Required(path.clone()));
        Ok(Self { values, dotenv })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
