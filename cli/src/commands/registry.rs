//! `registry …`: the marketplace, both ends.
//!
//! A publisher's commands work on a folder and need no kernel. A user's commands go through the running kernel, or with
//! `--config` through one that is started for them alone and loads nothing.

use std::path::{Path, PathBuf};

use themis_kernel::market::Wanted;

use crate::output::{Failure, Printer};

mod progress;
mod publisher;
mod serve;
mod user;

/// What to do with the marketplace.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a registry: a folder to serve, and the keys that make it one
    Init(publisher::Init),
    /// Verify bundles and stage them for the next publication
    Add(publisher::Add),
    /// Sign and publish what is staged; also to keep what there is from expiring
    Publish(publisher::Publish),
    /// Withdraw a version: nobody gets it any more who does not have it
    Yank(publisher::Yank),
    /// Serve a registry to this machine, to try it out
    Serve(serve::Serve),
    /// Copy the configured registry to a folder, to serve it to others; run it again to bring it up to date
    Mirror {
        /// The folder
        dir: PathBuf,
        /// The configuration that names the registry: address, root, certificates
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Look after the registry's own keys
    #[command(subcommand)]
    Key(publisher::Key),
    /// Where a plugin is, and what it needs
    Resolve {
        /// NAME, NAME@VERSION or NAME@REQUIREMENT, for example geo@^1
        wanted: Wanted,
        #[command(flatten)]
        place: Place,
    },
    /// Install plugins and what they need: all of it or nothing
    Install {
        /// NAME, NAME@VERSION or NAME@REQUIREMENT, for example geo@^1; with none, what the lock file has
        wanted: Vec<Wanted>,
        /// Fetch nothing: what is not here already is an error
        #[arg(long)]
        offline: bool,
        /// Accept a version older than the one that was installed
        #[arg(long)]
        downgrade: bool,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        place: Place,
    },
    /// Bring what is installed to the newest versions
    Update {
        /// Only these
        wanted: Vec<Wanted>,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        place: Place,
    },
}

/// What a person has agreed to.
#[derive(Debug, clap::Args)]
pub(crate) struct Consent {
    /// Accept what an update adds: dependencies, capabilities, another publisher's key
    #[arg(long)]
    approve: bool,
}

/// Which kernel installs.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Without a running kernel, as this configuration says
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(
    command: Command,
    socket: Option<&Path>,
    printer: Printer,
) -> Result<(), Failure> {
    use themis_kernel::market::InstallRequest;
    match command {
        Command::Init(arguments) => publisher::init(&arguments, printer),
        Command::Add(arguments) => publisher::add(&arguments, printer),
        Command::Publish(arguments) => publisher::publish(&arguments, printer),
        Command::Yank(arguments) => publisher::yank(&arguments, printer),
        Command::Serve(arguments) => serve::serve(&arguments, printer),
        Command::Mirror { dir, config } => user::mirror(&dir, &config, printer),
        Command::Key(command) => publisher::key(&command, printer),
        Command::Resolve { wanted, place } => user::resolve(&wanted, &place, socket, printer),
        Command::Install { wanted, offline, downgrade, consent, place } => {
            let approve = consent.approve;
            let request = InstallRequest { wanted, offline, downgrade, approve, update: false };
            user::install(&request, &place, socket, printer)
        }
        Command::Update { wanted, consent, place } => {
            let approve = consent.approve;
            let request =
                InstallRequest { wanted, approve, update: true, ..InstallRequest::default() };
            user::install(&request, &place, socket, printer)
        }
    }
}
