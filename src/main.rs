//! The program `mangrove`. All of it is in the library; see [`mangrove::commands`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mangrove::commands::main(std::env::args_os(), std::env::vars_os().collect())
}
