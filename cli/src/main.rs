//! The program: every command is a function that answers what to print or one error.
//!
//! Exit codes: 0 done, 1 refused or failed with one line on stderr, 2 bad usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod client;
mod commands;
mod demo;
mod output;
mod web;

use output::{Failure, Printer};

/// Sign, run and operate plugins of a database.
#[derive(Debug, Parser)]
#[command(name = "themis", version, propagate_version = true)]
struct Arguments {
    /// Print for programs instead of people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the kernel at work under a real database
    Demo(demo::Arguments),
    /// Run the kernel as a daemon
    Run(commands::run::Arguments),
    /// Make a pair of keys: PREFIX.key.pem and PREFIX.pub.pem
    Keygen(commands::signing::Keygen),
    /// Fill in a plugin's digests and key id, and sign it
    Sign(commands::signing::Sign),
    /// Verify a plugin directory or a bundle exactly as the loader would
    Verify(commands::signing::Verify),
    /// Pack a signed plugin into one file, for several platforms at once
    Pack(commands::signing::Pack),
    /// Verify a detached signature
    VerifyFile(commands::signing::VerifyFile),
    /// Scaffold a plugin that builds, tests, signs, loads and answers as it comes
    New(commands::scaffold::Arguments),
    /// Look at a plugin without running any of it: what it says of itself, and what speaks against it
    Inspect(commands::inspect::Arguments),
    /// What this machine offers for keeping plugins apart, and how to get more
    Doctor,
    /// Operate the plugins of a running kernel
    Plugin {
        #[command(flatten)]
        socket: Socket,
        #[command(subcommand)]
        command: commands::plugin::Command,
    },
    /// Publish plugins, find them, install them
    Registry {
        #[command(flatten)]
        socket: Socket,
        #[command(subcommand)]
        command: commands::registry::Command,
    },
    /// Test versions of a plugin against each other
    Ab {
        #[command(flatten)]
        socket: Socket,
        #[command(subcommand)]
        command: commands::ab::Command,
    },
    /// Read and check the audit log
    Audit {
        #[command(flatten)]
        socket: Socket,
        #[command(subcommand)]
        command: commands::audit::Command,
    },
}

/// Where the running kernel listens.
#[derive(Debug, clap::Args)]
struct Socket {
    /// The admin socket; without it, the environment variable THEMIS_SOCKET
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Before anything else: this program is also what its own workers are.
    if let Some(ended) = themis_kernel::process_entry() {
        return ended;
    }
    let Arguments { json, command } = Arguments::parse();
    let printer = Printer { json };
    let code = match run(command, printer) {
        Ok(()) => 0,
        Err(failure) => {
            printer.fail(&failure);
            1
        }
    };
    // An ordinary exit would wait for the system loader's lock, which a stuck constructor holds.
    if themis_kernel::loader_stuck().is_some() {
        themis_kernel::end_process(code);
    }
    ExitCode::from(code)
}

fn run(command: Command, printer: Printer) -> Result<(), Failure> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments, printer),
        Command::Run(arguments) => commands::run::run(&arguments, printer),
        Command::Keygen(arguments) => commands::signing::keygen(&arguments, printer),
        Command::Sign(arguments) => commands::signing::sign(&arguments, printer),
        Command::Verify(arguments) => commands::signing::verify(&arguments, printer),
        Command::Pack(arguments) => commands::signing::pack(&arguments, printer),
        Command::VerifyFile(arguments) => commands::signing::verify_file(&arguments, printer),
        Command::New(arguments) => commands::scaffold::new(&arguments, printer),
        Command::Inspect(arguments) => commands::inspect::run(&arguments, printer),
        Command::Doctor => commands::doctor::run(printer),
        Command::Plugin { socket, command } => {
            commands::plugin::run(command, socket.socket.as_deref(), printer)
        }
        Command::Registry { socket, command } => {
            commands::registry::run(command, socket.socket.as_deref(), printer)
        }
        Command::Ab { socket, command } => {
            commands::ab::run(command, socket.socket.as_deref(), printer)
        }
        Command::Audit { socket, command } => {
            commands::audit::run(command, socket.socket.as_deref(), printer)
        }
    }
}
