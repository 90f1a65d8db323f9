//! The simulation as a program of its own, for a copy of the sources with a bug planted: `simulate FROM TO` runs seeds until one fails,
//! `simulate FROM TO all` all of them. Exits with 0 where none does, with 1 where one does, and says of each what was wrong.

mod simulation;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().and_then(|text| text.parse().ok()).expect("FROM and TO are numbers");
    let seeds = number()..number();
    let stop = arguments.next().is_none();
    // A failed check is told below; what panics on the way is part of it.
    std::panic::set_hook(Box::new(|_| {}));
    let report = simulation::soak::soak(seeds, stop);
    for (seed, what) in &report.failures {
        println!("seed {seed}: {what}");
    }
    println!("{}", report.summary());
    println!("never tried: {:?}", report.tally.untried());
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
