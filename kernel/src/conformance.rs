//! What every plugin must show in every isolation tier: one table of behaviours, run against any plugin.
//!
//! A [`Subject`] is a plugin on a stage of its own: a copy of its directory, signed with a throw-away key, under a
//! kernel with a private data directory. [`BEHAVIOURS`] says what is promised and how it is seen; a later tier runs
//! the same table.
//!
//! ```no_run
//! use themis_kernel::conformance::{Effort, Subject, run};
//! use themis_kernel::ids::Tier;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let subject = Subject::prepare("dist/hello/1.0.0".as_ref(), Tier::InProcess, Effort::default())?;
//! let report = run(&subject, &mut |behaviour| eprintln!("{} ...", behaviour.promise));
//! assert!(report.conforms());
//! # Ok(())
//! # }
//! ```

use serde::Serialize;

mod behaviours;
mod load;
mod subject;

pub use behaviours::BEHAVIOURS;
pub use subject::{Effort, PrepareError, Subject};

/// What a behaviour is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::EnumIter)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Loading and unloading.
    Lifecycle,
    /// How calls fail.
    Errors,
    /// How long hooks take.
    Deadlines,
    /// Replacing a version.
    Reload,
    /// Going back.
    Rollback,
    /// Handing state on.
    State,
    /// Being watched.
    Probation,
    /// Many callers.
    Concurrency,
    /// Sizes.
    Limits,
}

impl Area {
    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lifecycle => "lifecycle",
            Self::Errors => "errors",
            Self::Deadlines => "deadlines",
            Self::Reload => "reload",
            Self::Rollback => "rollback",
            Self::State => "state",
            Self::Probation => "probation",
            Self::Concurrency => "concurrency",
            Self::Limits => "limits",
        }
    }
}

/// One promise, and how it is seen.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    /// For programs.
    pub id: &'static str,
    /// What it is about.
    pub area: Area,
    /// What is promised.
    pub promise: &'static str,
    /// Looks whether it holds. Leaves the plugin loaded.
    pub look: fn(&Subject) -> Verdict,
}

/// Whether a promise held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "seen", rename_all = "kebab-case")]
pub enum Verdict {
    /// It did.
    Held(String),
    /// It did not.
    Broken(String),
    /// The plugin makes no such promise.
    NotApplicable(String),
}

/// One promise and what was seen of it.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The behaviour.
    pub id: &'static str,
    /// What it is about.
    pub area: Area,
    /// What is promised.
    pub promise: &'static str,
    /// Whether it held.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What was seen of a plugin.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Where it ran.
    pub tier: &'static str,
    /// One for each behaviour.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing was broken.
    #[must_use]
    pub fn conforms(&self) -> bool {
        !self.findings.iter().any(|finding| matches!(finding.verdict, Verdict::Broken(_)))
    }
}

/// Looks at every behaviour in turn; `before` is told which comes next. A plugin that does not load is not looked at
/// any further.
pub fn run(subject: &Subject, before: &mut dyn FnMut(&Behaviour)) -> Report {
    let mut findings = Vec::new();
    for behaviour in &BEHAVIOURS {
        before(behaviour);
        let Behaviour { id, area, promise, look } = *behaviour;
        let verdict = look(subject);
        let is_gone = matches!(verdict, Verdict::Broken(_)) && subject.loaded().is_err();
        findings.push(Finding { id, area, promise, verdict });
        if is_gone {
            break;
        }
    }
    Report {
        plugin: subject.name().to_string(),
        version: subject.version().to_string(),
        tier: subject.tier().as_str(),
        findings,
    }
}
