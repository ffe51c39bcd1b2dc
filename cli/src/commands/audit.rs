//! `audit …`: shows the log and checks its chain, through a running kernel or beside it.

use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Value, json};
use themis_kernel::Config;
use themis_kernel::persistence::audit_log::verify;
use themis_kernel::persistence::store::Store;

use crate::client::Client;
use crate::output::{Failure, Printer, bare, table};

/// What to do with the log.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show records in order
    Show {
        /// Number of the first record
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most this many
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Replay the whole log and check its chain
    Verify {
        /// Read the data directory of this configuration, without a running kernel
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(crate) fn run(
    command: Command,
    socket: Option<&Path>,
    printer: Printer,
) -> Result<(), Failure> {
    match command {
        Command::Show { from, limit } => {
            let url = format!("/v1/audit?from={from}&limit={limit}");
            let records = Client::find(socket)?.json(Method::GET, &url, None)?;
            printer.show(&records, show)
        }
        Command::Verify { config: Some(config) } => {
            let config = Config::from_file(&config)?;
            let store = Store::open_read_only(&config.data_dir)?;
            printer.show(&json!(verify::verify(&store)?), verified)
        }
        Command::Verify { config: None } => {
            let report = Client::find(socket)?.json(Method::GET, "/v1/audit/verify", None)?;
            printer.show(&report, verified)
        }
    }
}

fn show(records: &Value) -> String {
    let rows = records.as_array().into_iter().flatten().map(|record| {
        let cell = |key: &str| {
            let value = &record[key];
            if value.is_null() { String::new() } else { bare(value) }
        };
        let what = [cell("code"), cell("reason")].join(" ");
        let time: String = cell("time").chars().take(23).collect();
        [
            cell("seq"),
            time,
            cell("event"),
            cell("outcome"),
            cell("plugin"),
            cell("version"),
            cell("actor"),
            what.trim().to_owned(),
        ]
    });
    table(["seq", "time", "event", "outcome", "plugin", "version", "actor", "what"], rows)
}

fn verified(report: &Value) -> String {
    format!(
        "{} records, unbroken; head {}",
        report["records"],
        report["head_hash"].as_str().unwrap_or("unknown")
    )
}
