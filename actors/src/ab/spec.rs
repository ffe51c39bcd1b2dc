//! What somebody wants to know: an experiment as it is asked for.

use std::borrow::Borrow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use themis_messages::ids::PluginName;
use themis_messages::lifecycle::{KernelFault, LoadError};
use themis_messages::limits::EXPERIMENTS_MAX;

use super::assign::{WEIGHTS_SUM, Weights, WeightsError};
use super::lifecycle::NotNow;
use super::policy::{Allocation, GuardRail, Kind, Policy};
use super::recorder::NotFinite;

/// Longest name of an experiment, an arm or a metric, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// The name of an experiment, an arm or a metric: a label of metrics, so of few characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// The text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("want [a-z0-9][a-z0-9_.-]{{0,62}}, got {text:?}")]
pub struct LabelError {
    /// What was given, at most its first 80 characters.
    pub text: String,
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let other = |byte: u8| first(byte) || matches!(byte, b'_' | b'.' | b'-');
        let is_one = text.len() <= NAME_BYTES_MAX
            && text.bytes().next().is_some_and(first)
            && text.bytes().all(other);
        match is_one {
            true => Ok(Self(text.to_owned())),
            false => Err(LabelError { text: text.chars().take(80).collect() }),
        }
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl Label {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version beside the one that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Treatment {
    /// The arm's name.
    pub name: Label,
    /// Where the version lies: a directory or a bundle below the plugin root.
    pub path: PathBuf,
}

/// An experiment: the version that serves is the control, and its arm's name is `control`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its name.
    pub id: Label,
    /// Whose versions are compared.
    pub plugin: PluginName,
    /// What is compared with the control.
    pub treatments: Vec<Treatment>,
    /// Shares of the arms, the control first.
    pub weights: Weights,
    /// Share of units that take part, in hundredths of a percent; the others get the control and do not count.
    #[serde(default = "everybody")]
    pub exposure: u32,
    /// What is counted.
    #[serde(default = "conversions")]
    pub kind: Kind,
    /// What must not get worse.
    #[serde(default)]
    pub guards: Vec<GuardRail>,
    /// When it stops.
    #[serde(default)]
    pub policy: Policy,
    /// How units are dealt out.
    #[serde(default)]
    pub allocation: Allocation,
}

const fn everybody() -> u32 {
    WEIGHTS_SUM
}

const fn conversions() -> Kind {
    Kind::Conversion
}

/// The arm of the version that serves.
pub const CONTROL: &str = "control";

impl Spec {
    /// An experiment between what serves and these versions, with even shares and the default policy.
    ///
    /// # Errors
    /// [`ExperimentError::Weights`] for none or too many.
    pub fn new(
        id: Label,
        plugin: PluginName,
        treatments: Vec<Treatment>,
    ) -> Result<Self, ExperimentError> {
        let weights = Weights::even(treatments.len() + 1)?;
        Ok(Self {
            id,
            plugin,
            treatments,
            weights,
            exposure: WEIGHTS_SUM,
            kind: Kind::Conversion,
            guards: Vec::new(),
            policy: Policy::default(),
            allocation: Allocation::Fixed,
        })
    }

    /// The arms' names, the control first.
    #[must_use]
    pub fn arms(&self) -> Vec<&str> {
        let treatments = self.treatments.iter().map(|it| it.name.as_str());
        std::iter::once(CONTROL).chain(treatments).collect()
    }

    /// Whether it can be made.
    ///
    /// # Errors
    /// [`ExperimentError`].
    pub fn check(&self) -> Result<(), ExperimentError> {
        let arms = self.arms();
        let (weights, count) = (self.weights.as_slice().len(), arms.len());
        if weights != count {
            return Err(ExperimentError::Shares { arms: count, weights });
        }
        if self.allocation != Allocation::Fixed {
            return Err(ExperimentError::Allocation);
        }
        let twice = |(at, arm): (usize, &&str)| arms[..at].contains(arm);
        if let Some((_, arm)) = arms.iter().enumerate().find(|it| twice(*it)) {
            return Err(ExperimentError::Twice { arm: (*arm).to_owned() });
        }
        Ok(())
    }
}

/// Why an experiment is refused, or something about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExperimentError {
    /// There is none of that name.
    #[error("there is no experiment {id}")]
    Unknown {
        /// The name, shortened.
        id: String,
    },
    /// It has no such arm.
    #[error("experiment {id} has no arm {arm}")]
    UnknownArm {
        /// The experiment.
        id: String,
        /// The arm, shortened.
        arm: String,
    },
    /// There is one of that name already.
    #[error("there is an experiment {id} already: choose another name")]
    Exists {
        /// The name.
        id: Label,
    },
    /// One plugin has one experiment at a time.
    #[error("plugin {plugin} has experiment {other} already: end that first")]
    Busy {
        /// The plugin.
        plugin: PluginName,
        /// Its experiment.
        other: Label,
    },
    /// The control is what serves, and nothing does.
    #[error("plugin {plugin} is not loaded: the version that serves is the control")]
    NotServing {
        /// The plugin.
        plugin: PluginName,
    },
    /// No more are kept.
    #[error("there are {EXPERIMENTS_MAX} experiments, and no more are kept")]
    TooMany,
    /// Shares that are none.
    #[error("{0}")]
    Weights(WeightsError),
    /// Not one share for each arm.
    #[error("there are {weights} weights for {arms} arms, the control included")]
    Shares {
        /// How many arms.
        arms: usize,
        /// How many weights.
        weights: usize,
    },
    /// A bandit: it can be simulated, and not be run yet.
    #[error(
        "units are dealt out by fixed shares: Thompson allocation can be simulated and not be run yet"
    )]
    Allocation,
    /// Two arms of one name.
    #[error("two arms are called {arm}")]
    Twice {
        /// The name.
        arm: String,
    },
    /// It is not the time for that.
    #[error("{0}")]
    NotNow(NotNow),
    /// A value that cannot be counted.
    #[error("{0}")]
    Value(NotFinite),
    /// A version does not load.
    #[error("{message}")]
    Load {
        /// Its stable code.
        code: &'static str,
        /// Its sentence.
        message: String,
    },
    /// The kernel's machinery failed.
    #[error("{0}")]
    Kernel(KernelFault),
}

impl ExperimentError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "ab.unknown",
            Self::UnknownArm { .. } => "ab.unknown_arm",
            Self::Exists { .. } => "ab.exists",
            Self::Busy { .. } => "ab.busy",
            Self::NotServing { .. } => "ab.not_serving",
            Self::TooMany => "ab.too_many",
            Self::Weights(error) => error.code(),
            Self::Shares { .. } => "ab.weights",
            Self::Allocation => "ab.allocation",
            Self::Twice { .. } => "ab.twice",
            Self::NotNow(_) => "ab.not_now",
            Self::Value(_) => "ab.value",
            Self::Load { code, .. } => code,
            Self::Kernel(fault) => fault.code(),
        }
    }
}

impl From<WeightsError> for ExperimentError {
    fn from(error: WeightsError) -> Self {
        Self::Weights(error)
    }
}

impl From<NotNow> for ExperimentError {
    fn from(error: NotNow) -> Self {
        Self::NotNow(error)
    }
}

impl From<KernelFault> for ExperimentError {
    fn from(fault: KernelFault) -> Self {
        Self::Kernel(fault)
    }
}

impl From<&LoadError> for ExperimentError {
    fn from(error: &LoadError) -> Self {
        Self::Load { code: error.code(), message: error.to_string() }
    }
}
