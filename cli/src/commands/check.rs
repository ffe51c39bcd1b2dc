//! `plugin check`: the table of behaviours, run against a plugin on a stage of its own.
//!
//! ```text
//! themis plugin check ──starts──▶ itself, told to report ──▶ kernel ──▶ plugin
//!   table, exit code  ◀── what comes next, and at last the report: a line each ──
//! ```
//!
//! A plugin may crash, exit or print what it likes: that ends the second process, and the first one says at which
//! behaviour. The lines go through a socket that is the second process's standard input, as plugins may write to the
//! others.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, ErrorKind, IsTerminal as _, Write as _, stderr, stdin};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use themis_kernel::conformance::{Effort, Subject, run as look};
use themis_kernel::ids::Tier;

use crate::output::{Failure, Printer, bare, table};

/// A behaviour that takes longer than this, and so much more for each reload, has a plugin that hangs.
const LONGEST: Duration = Duration::from_secs(60);
/// A reload under load takes some 50 ms where the callers take all cores.
const EACH_RELOAD: Duration = Duration::from_millis(500);

/// What to look at, and how thoroughly.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The plugin's directory, with its manifest; it need not be signed, and is not changed
    dir: PathBuf,
    /// Where to run it: process, in-process or wasm
    #[arg(long, default_value = "process")]
    tier: Tier,
    /// Reloads under load
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    reloads: u32,
    /// Threads that call meanwhile
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    callers: u8,
    /// Report to the process that started this one
    #[arg(long, hide = true)]
    reporting: bool,
}

pub(crate) fn run(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    if arguments.reporting {
        return report(arguments);
    }
    if !arguments.dir.is_dir() {
        let what = "is no directory: a plugin is checked where its files lie, not as a bundle";
        let path = arguments.dir.display();
        return Err(Failure::new("path.wrong_file_type", format!("{path}: {what}")));
    }
    // What the second process leaves behind when it is ended goes with this directory.
    let private = tempfile::Builder::new().prefix("themis-check-").tempdir().map_err(failed)?;
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["plugin", "check", "--reporting"]).args(again(arguments));
    command.env("TMPDIR", private.path()).stdin(Stdio::from(OwnedFd::from(theirs)));
    // What the plugin prints is not what this program answers.
    command.stdout(Stdio::from(stderr().as_fd().try_clone_to_owned().map_err(failed)?));
    let mut child = command.spawn().map_err(failed)?;
    // It holds the other end of the socket.
    drop(command);
    let shows = stderr().is_terminal() && !printer.json;
    let mut heard = Heard::default();
    let limit = LONGEST + EACH_RELOAD * arguments.reloads;
    ours.set_read_timeout(Some(limit)).map_err(failed)?;
    for line in BufReader::new(ours).lines() {
        match line {
            Ok(line) => heard.take(&line, shows),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                let (dir, during) = (arguments.dir.display(), heard.during);
                let what = format!("{dir}: {limit:?} passed while it was looked whether {during}");
                return Err(Failure::new("check.hung", what));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let status = child.wait().map_err(failed)?;
    let report = match (heard.report, heard.failure) {
        (Some(report), _) => report,
        (None, Some(failure)) => return Err(failure),
        (None, None) => {
            let (dir, during) = (arguments.dir.display(), heard.during);
            let what =
                format!("{dir}: ended the process ({status}) while it was looked whether {during}");
            return Err(Failure::new("check.crashed", what));
        }
    };
    printer.show(&report, people)?;
    let broken = |it: &&Value| it["verdict"] == "broken";
    match report["findings"].as_array().into_iter().flatten().find(broken) {
        None => Ok(()),
        Some(first) => {
            let what = format!("{}: broken: {}", arguments.dir.display(), bare(&first["promise"]));
            Err(Failure::new(format!("check.{}", bare(&first["id"])), what))
        }
    }
}

/// The same arguments for the second process.
fn again(arguments: &Arguments) -> Vec<OsString> {
    let Arguments { dir, tier, reloads, callers, reporting: _ } = arguments;
    let options = [
        ("--tier", tier.as_str().to_owned()),
        ("--reloads", reloads.to_string()),
        ("--callers", callers.to_string()),
    ];
    let options = options.into_iter().flat_map(|(option, value)| [option.into(), value.into()]);
    options.chain(["--".into(), dir.into()]).collect()
}

/// What the second process has said.
#[derive(Default)]
struct Heard {
    during: String,
    report: Option<Value>,
    failure: Option<Failure>,
}

impl Heard {
    fn take(&mut self, line: &str, shows: bool) {
        let said: Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(promise) = said["next"].as_str() {
            promise.clone_into(&mut self.during);
            if shows {
                // Progress that nobody sees misses nobody.
                drop(writeln!(stderr(), "looking whether {promise} ..."));
            }
        } else if said["report"].is_object() {
            self.report = Some(said["report"].clone());
        } else if said["failure"].is_object() {
            let told = |key: &str| bare(&said["failure"][key]);
            self.failure = Some(Failure::new(told("code"), told("message")));
        }
    }
}

/// The second process: a line for each behaviour, and at last the report or why there is none.
fn report(arguments: &Arguments) -> Result<(), Failure> {
    let socket = stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut socket = UnixStream::from(socket);
    // Whoever does not listen any more does not want to know.
    let mut say = |line: Value| drop(writeln!(socket, "{line}"));
    let effort = Effort {
        reloads: usize::try_from(arguments.reloads).unwrap_or(usize::MAX),
        callers: usize::from(arguments.callers),
    };
    let subject = match Subject::prepare(&arguments.dir, arguments.tier, effort) {
        Ok(subject) => subject,
        Err(error) => {
            say(json!({"failure": {"code": error.code(), "message": error.to_string()}}));
            return Ok(());
        }
    };
    let report = look(&subject, &mut |behaviour| say(json!({"next": behaviour.promise})));
    subject.end();
    say(json!({ "report": report }));
    Ok(())
}

fn failed(error: impl ToString) -> Failure {
    Failure::new("check.failed", error)
}

fn people(report: &Value) -> String {
    let rows = report["findings"].as_array().into_iter().flatten().map(|finding| {
        let held = match finding["verdict"].as_str() {
            Some("held") => "yes",
            Some("broken") => "NO",
            Some(_) | None => "-",
        };
        let cell = |key: &str| bare(&finding[key]);
        [cell("area"), cell("promise"), held.to_owned(), cell("seen")]
    });
    format!(
        "{} {}, {}\n{}",
        bare(&report["plugin"]),
        bare(&report["version"]),
        bare(&report["tier"]),
        table(["area", "behaviour", "held", "seen"], rows)
    )
}
