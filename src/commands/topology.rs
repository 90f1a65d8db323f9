//! `mangrove topology`: the graph that a record passes through.

use std::fmt;

use clap::ValueEnum;
use topology::topology::Topology;

use super::{Failure, Output};
use crate::config::Settings;
use crate::instance::{application, scoring_params, topic_names};
use crate::scoring::{ModelSlot, scoring_topology};

const EXAMPLES: &str = "\
Examples:
  mangrove topology
  mangrove topology --format dot | dot -Tsvg > topology.svg";

/// How a graph is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For Graphviz
    Dot,
    /// For Markdown
    Mermaid,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Dot => "dot",
            Self::Mermaid => "mermaid",
        })
    }
}

/// How to write the graph.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Prints the scoring topology as the settings make it.
///
/// # Errors
/// When the topology is not valid, or standard output fails.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let graph = graph(&settings)?;
    let text = match args.format {
        Format::Text => graph.describe(),
        Format::Dot => graph.dot(),
        Format::Mermaid => graph.mermaid(),
    };
    Output::stdout().line(text.trim_end())
}

fn graph(settings: &Settings) -> Result<Topology, Failure> {
    let params = scoring_params(settings, None)?;
    let graph = scoring_topology(&application(settings), &topic_names(settings), &params, &ModelSlot::default());
    graph.map_err(|why| Failure::new("the topology is not valid").caused_by(why))
}

/// The graph as people read it, for others to show.
pub(super) fn text(settings: &Settings) -> Result<String, Failure> {
    graph(settings).map(|graph| graph.describe())
}
