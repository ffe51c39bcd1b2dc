//! `ab …`: tests of versions against each other.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use hyper::Method;
use serde_json::json;
use themis_kernel::ab::assign::{WEIGHTS_SUM, Weights};
use themis_kernel::ab::policy::{GuardRail, Kind};
use themis_kernel::ab::report::Report;
use themis_kernel::ab::spec::{Label, Spec, Treatment};
use themis_kernel::ids::PluginName;

use crate::client::{Client, segment};
use crate::output::{Failure, Printer};

mod show;
mod simulate;

/// What to do with experiments.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Begin an experiment: what serves is the control
    Create(Create),
    /// Every experiment, in a line
    List,
    /// What is known of one, how sure that is, and how much longer it may take
    Show {
        /// The experiment
        id: Label,
    },
    /// End one without a winner: everybody gets what serves
    Stop {
        /// The experiment
        id: Label,
    },
    /// Make an arm the current version, whatever the evidence is
    Promote {
        /// The experiment
        id: Label,
        /// The arm
        arm: Label,
    },
    /// How often a stopping rule is wrong, and how long it takes to find what is there
    Simulate(simulate::Arguments),
}

/// Begin an experiment.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Its name
    id: Label,
    /// Whose versions are compared
    #[arg(long)]
    plugin: PluginName,
    /// A version beside the one that serves: NAME=DIR_OR_TDB
    #[arg(long = "arm", required = true, value_name = "NAME=PATH")]
    arms: Vec<Arm>,
    /// Shares in percent, the control first; the same for all without it
    #[arg(long, value_delimiter = ',', value_name = "PERCENT")]
    weights: Vec<f64>,
    /// Share of units that take part, in percent
    #[arg(long, default_value_t = 100.0, value_name = "PERCENT")]
    exposure: f64,
    /// Outcomes are amounts and not conversions
    #[arg(long)]
    continuous: bool,
    /// What must not get worse, and by how much of itself it may: METRIC=LIMIT, for example errors=0.1
    #[arg(long = "guard", value_name = "METRIC=LIMIT")]
    guards: Vec<Guard>,
    /// Outcomes that each arm must have
    #[arg(long, value_name = "N")]
    outcomes_min: Option<u64>,
    /// It runs at least so many seconds
    #[arg(long, value_name = "SECONDS")]
    at_least: Option<u64>,
    /// It runs at most so many seconds
    #[arg(long, value_name = "SECONDS")]
    at_most: Option<u64>,
}

#[derive(Debug, Clone)]
struct Arm(Label, PathBuf);

impl FromStr for Arm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("want NAME=PATH")?;
        let name = name.parse::<Label>().map_err(|error| error.to_string())?;
        // The kernel has another working directory.
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        Ok(Self(name, path))
    }
}

#[derive(Debug, Clone)]
struct Guard(GuardRail);

impl FromStr for Guard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (metric, limit) = text.split_once('=').ok_or("want METRIC=LIMIT")?;
        let limit = limit.parse().map_err(|error| format!("{limit:?}: {error}"))?;
        Ok(Self(GuardRail { metric: metric.to_owned(), limit }))
    }
}

pub(crate) fn run(
    command: Command,
    socket: Option<&Path>,
    printer: Printer,
) -> Result<(), Failure> {
    let ask = |method: Method, path: &str, body: Option<serde_json::Value>| {
        let answer = Client::find(socket)?.json(method, path, body.as_ref())?;
        read::<Report>(answer)
    };
    let of = |id: &Label, what: &str| format!("/v1/ab/{}{what}", segment(id.as_str()));
    let report = match command {
        Command::Simulate(arguments) => return simulate::run(&arguments, printer),
        Command::List => {
            let all = Client::find(socket)?.json(Method::GET, "/v1/ab", None)?;
            return printer.show(&read::<Vec<Report>>(all)?, |all| show::lines(all));
        }
        Command::Create(create) => {
            let spec = spec(create)?;
            ask(Method::POST, "/v1/ab", Some(json!(spec)))?
        }
        Command::Show { id } => ask(Method::GET, &of(&id, ""), None)?,
        Command::Stop { id } => ask(Method::POST, &of(&id, "/stop"), None)?,
        Command::Promote { id, arm } => {
            ask(Method::POST, &of(&id, "/promote"), Some(json!({"arm": arm})))?
        }
    };
    printer.show(&report, show::verdict)
}

fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(value)
        .map_err(|error| Failure::new("socket.answer", format!("not what was asked for: {error}")))
}

fn spec(create: Create) -> Result<Spec, Failure> {
    let treatments: Vec<_> =
        create.arms.into_iter().map(|Arm(name, path)| Treatment { name, path }).collect();
    let mut spec = Spec::new(create.id, create.plugin, treatments)?;
    if !create.weights.is_empty() {
        let weights =
            create.weights.iter().map(|it| hundredths(*it)).collect::<Result<Vec<_>, _>>()?;
        spec.weights = Weights::try_from(weights)?;
    }
    spec.exposure = hundredths(create.exposure)?;
    if create.continuous {
        spec.kind = Kind::Continuous;
    }
    spec.guards = create.guards.into_iter().map(|Guard(rail)| rail).collect();
    let seconds = std::time::Duration::from_secs;
    let policy = &mut spec.policy;
    policy.outcomes_min = create.outcomes_min.unwrap_or(policy.outcomes_min);
    policy.duration_min = create.at_least.map_or(policy.duration_min, seconds);
    policy.duration_max = create.at_most.map_or(policy.duration_max, seconds);
    spec.check()?;
    Ok(spec)
}

fn hundredths(percent: f64) -> Result<u32, Failure> {
    let scaled = (percent * 100.0).round();
    if !(0.0..=f64::from(WEIGHTS_SUM)).contains(&scaled) {
        return Err(Failure::new(
            "ab.weights",
            format!("a share is 0 to 100 percent, not {percent}"),
        ));
    }
    // Within 0 and 10,000.
    Ok(scaled as u32)
}
