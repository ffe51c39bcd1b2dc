//! `ab …`: tests of versions against each other.

use crate::output::{Failure, Printer};

mod simulate;

/// What to do with experiments.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// How often a stopping rule is wrong, and how long it takes to find what is there
    Simulate(simulate::Arguments),
}

pub(crate) fn run(command: Command, printer: Printer) -> Result<(), Failure> {
    match command {
        Command::Simulate(arguments) => simulate::run(&arguments, printer),
    }
}
