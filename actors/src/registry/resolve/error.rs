//! Why there is no plan: what is wrong, who wants it, and what could be done.

use std::fmt;
use std::time::Duration;

use semver::VersionReq;
use themis_messages::ids::{PluginName, PluginVersion};

/// Most releases that a message names of a chain: hostile metadata has chains of any length.
const CHAIN_SHOWN: usize = 6;
/// Most versions that a message names.
const VERSIONS_SHOWN: usize = 5;

/// What is needed, and the way from what is asked for to there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// What is needed.
    pub plugin: PluginName,
    /// Which versions.
    pub requirement: VersionReq,
    /// The releases that lead to it, what is asked for first; nothing if it is asked for itself.
    pub chain: Vec<(PluginName, PluginVersion)>,
    /// Whether other releases could have stood in the chain; they lead nowhere either.
    pub others: bool,
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, requirement, chain, .. } = self;
        match chain.last() {
            None => write!(f, "{plugin} {requirement} is asked for"),
            Some((name, version)) => {
                write!(f, "{name} {version} needs {plugin} {requirement}")?;
                if chain.len() == 1 {
                    return Ok(());
                }
                write!(f, " ({} → {plugin})", way(chain))
            }
        }
    }
}

impl Want {
    /// What to do when only `asked` helps whoever asked; a plugin's author must do it for its needs.
    fn advice(&self, asked: &str) -> String {
        let others = if self.others { "other releases do not help; " } else { "" };
        match self.chain.last() {
            None => format!("try: {asked}"),
            Some((name, _)) => format!("{others}try: tell the author of {name}"),
        }
    }
}

/// A chain of releases for people, the middle of a long one left out.
#[must_use]
pub fn way(chain: &[(PluginName, PluginVersion)]) -> String {
    let text = |(name, version): &(PluginName, PluginVersion)| format!("{name} {version}");
    let mut parts: Vec<_> = chain.iter().map(text).collect();
    if parts.len() > CHAIN_SHOWN {
        let left_out = parts.len() - CHAIN_SHOWN;
        let half = CHAIN_SHOWN / 2;
        parts.splice(half..half + left_out, [format!("… {left_out} more …")]);
    }
    parts.join(" → ")
}

/// Versions for people, the newest if they are many.
#[must_use]
pub fn versions(all: &[PluginVersion]) -> String {
    let text: Vec<_> =
        all.iter().rev().take(VERSIONS_SHOWN).rev().map(ToString::to_string).collect();
    let left_out = all.len() - text.len();
    let more = if left_out > 0 { format!("{left_out} older, ") } else { String::new() };
    format!("{more}{}", text.join(", "))
}

/// Why no versions were chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The registry does not have the plugin.
    #[error(
        "{want}, but the registry has no plugin {}; {}",
        want.plugin,
        want.advice("check the spelling, or add the registry that has it")
    )]
    Missing {
        /// What is needed, and by whom.
        want: Want,
    },
    /// The registry has no version that matches.
    #[error("{want}, but no release of {} matches{}; {}", want.plugin, nearest(near), want.advice(&instead(want, near)))]
    NoVersion {
        /// What is needed, and by whom.
        want: Want,
        /// Releases next to what is wanted, lowest first.
        near: Vec<PluginVersion>,
    },
    /// All that match are withdrawn.
    #[error(
        "{want}, but every release of {} that matches is yanked ({}){}; {}",
        want.plugin,
        versions(yanked),
        nearest(near),
        want.advice(&instead(want, near))
    )]
    Yanked {
        /// What is needed, and by whom.
        want: Want,
        /// What matches, lowest first.
        yanked: Vec<PluginVersion>,
        /// Releases next to what is wanted, lowest first.
        near: Vec<PluginVersion>,
    },
    /// All that match are pre-releases, which are only chosen where one is named.
    #[error(
        "{want}, but only pre-releases of {} match ({}); {}",
        want.plugin,
        versions(found),
        want.advice(&instead(want, found))
    )]
    PreRelease {
        /// What is needed, and by whom.
        want: Want,
        /// The pre-releases, lowest first.
        found: Vec<PluginVersion>,
    },
    /// None that match run here.
    #[error(
        "{want}, but no release of {} that matches runs on this platform ({}){}; {}",
        want.plugin,
        versions(foreign),
        nearest(near),
        want.advice(&instead(want, near))
    )]
    NoTarget {
        /// What is needed, and by whom.
        want: Want,
        /// What matches, lowest first.
        foreign: Vec<PluginVersion>,
        /// Releases next to what is wanted that do run here, lowest first.
        near: Vec<PluginVersion>,
    },
    /// What is needed exists, but not all of it can be had together.
    #[error("no versions fit together: {}{}{}", because.join("; "), more(*left_out), hint(try_this.as_deref()))]
    Conflict {
        /// Sentences that say why, the most telling first.
        because: Vec<String>,
        /// How many further reasons there are.
        left_out: usize,
        /// What would help, if something simple does.
        try_this: Option<String>,
    },
    /// Plugins need each other, so that none can be loaded first.
    #[error("plugins need each other in a circle: {}; {}", names(path), circle_advice(path))]
    Cycle {
        /// The way round, first and last the same.
        path: Vec<PluginName>,
    },
    /// It took too long.
    #[error(
        "no answer within {limit:?}: there are too many combinations; try: ask for exact versions, or for less at once"
    )]
    Budget {
        /// How long it may take.
        limit: Duration,
    },
    /// Too many versions were tried.
    #[error(
        "no answer after {limit} choices: there are too many combinations; try: ask for exact versions, or for less at once"
    )]
    Decisions {
        /// How many there may be.
        limit: u64,
    },
}

impl ResolveError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "resolve.missing",
            Self::NoVersion { .. } => "resolve.no_version",
            Self::Yanked { .. } => "resolve.yanked",
            Self::PreRelease { .. } => "resolve.pre_release",
            Self::NoTarget { .. } => "resolve.no_target",
            Self::Conflict { .. } => "resolve.conflict",
            Self::Cycle { .. } => "resolve.cycle",
            Self::Budget { .. } | Self::Decisions { .. } => "resolve.budget",
        }
    }
}

fn nearest(near: &[PluginVersion]) -> String {
    if near.is_empty() {
        "; there is none to take instead".to_owned()
    } else {
        format!("; nearest: {}", versions(near))
    }
}

/// The newest of what could be had instead, as it would be asked for.
fn instead(want: &Want, near: &[PluginVersion]) -> String {
    near.last().map_or_else(
        || format!("ask the author of {} for one", want.plugin),
        |newest| format!("{}@{newest}", want.plugin),
    )
}

fn more(left_out: usize) -> String {
    if left_out == 0 { String::new() } else { format!("; and {left_out} more reasons like these") }
}

fn hint(try_this: Option<&str>) -> String {
    try_this.map_or_else(String::new, |what| format!("; try: {what}"))
}

/// A way over plugins for people, the middle of a long one left out.
#[must_use]
pub fn names(path: &[PluginName]) -> String {
    let mut parts: Vec<_> = path.iter().map(PluginName::as_str).collect();
    let left_out = parts.len().saturating_sub(CHAIN_SHOWN * 2);
    let more = format!("… {left_out} more …");
    if left_out > 0 {
        parts.splice(CHAIN_SHOWN..CHAIN_SHOWN + left_out, [more.as_str()]);
    }
    parts.join(" → ")
}

fn circle_advice(path: &[PluginName]) -> String {
    let who = path.first().map_or("", PluginName::as_str);
    if path.len() > 2 {
        format!(
            "none of them can be loaded first; try: an older release of {who}, or tell its author"
        )
    } else {
        format!("it cannot be loaded; try: tell the author of {who}")
    }
}
