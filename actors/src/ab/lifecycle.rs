//! What an experiment is in the course of its life: a pure machine.
//!
//! ```text
//! Draft ──start──▶ Running ──winner──▶ Concluded ──promoted, or not and why──▶ Concluded
//!   │                 ├──given up──▶ RolledBack
//!   └────cancel───────┴──cancel───▶ Cancelled
//! ```
//!
//! What is over stays over: outcomes that come late change nothing.

use serde::{Deserialize, Serialize};

use super::policy::GivenUp;

/// Where an experiment is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum Status {
    /// It is described, and its arms are not loaded yet.
    #[default]
    Draft,
    /// Units are dealt out.
    Running,
    /// An arm has won.
    Concluded {
        /// Which.
        arm: usize,
        /// What became of it.
        promotion: Promotion,
    },
    /// The control serves everybody again.
    RolledBack {
        /// Why.
        why: GivenUp,
    },
    /// Somebody has ended it.
    Cancelled,
}

/// What became of a winner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "promotion")]
pub enum Promotion {
    /// It is on its way to become the current version.
    Pending,
    /// It is the current version.
    Promoted,
    /// It did not become that.
    Failed {
        /// Stable code.
        code: String,
        /// The sentence.
        reason: String,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All arms serve.
    Start,
    /// There is evidence for an arm, or somebody has chosen it.
    Won {
        /// Which.
        arm: usize,
    },
    /// It is given up.
    GaveUp(GivenUp),
    /// Somebody has ended it.
    Cancel,
    /// The winner is the current version.
    Promoted,
    /// The winner did not become that.
    PromotionFailed {
        /// Stable code.
        code: String,
        /// The sentence.
        reason: String,
    },
}

/// The event does not apply to what the experiment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the experiment is {status}")]
pub struct NotNow {
    /// What it is, in a word.
    pub status: &'static str,
}

impl Status {
    /// In a word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Running => "running",
            Self::Concluded { .. } => "concluded",
            Self::RolledBack { .. } => "rolled back",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more is counted.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Draft | Self::Running => false,
            Self::Concluded { .. } | Self::RolledBack { .. } | Self::Cancelled => true,
        }
    }

    /// What it is after an event.
    ///
    /// # Errors
    /// [`NotNow`]; then it is what it was.
    pub fn step(&self, event: Event) -> Result<Self, NotNow> {
        let pending = |promotion: &Promotion| *promotion == Promotion::Pending;
        match (self, event) {
            (Self::Draft, Event::Start) => Ok(Self::Running),
            (Self::Running, Event::Won { arm }) => {
                Ok(Self::Concluded { arm, promotion: Promotion::Pending })
            }
            (Self::Running, Event::GaveUp(why)) => Ok(Self::RolledBack { why }),
            (Self::Draft | Self::Running, Event::Cancel) => Ok(Self::Cancelled),
            // Somebody tries again what has failed.
            (
                Self::Concluded { promotion: Promotion::Failed { .. }, arm },
                Event::Won { arm: again },
            ) if *arm == again => Ok(Self::Concluded { arm: *arm, promotion: Promotion::Pending }),
            (Self::Concluded { arm, promotion }, Event::Promoted) if pending(promotion) => {
                Ok(Self::Concluded { arm: *arm, promotion: Promotion::Promoted })
            }
            (Self::Concluded { arm, promotion }, Event::PromotionFailed { code, reason })
                if pending(promotion) =>
            {
                Ok(Self::Concluded { arm: *arm, promotion: Promotion::Failed { code, reason } })
            }
            (
                Self::Draft
                | Self::Running
                | Self::Concluded { .. }
                | Self::RolledBack { .. }
                | Self::Cancelled,
                Event::Start
                | Event::Won { .. }
                | Event::GaveUp(_)
                | Event::Cancel
                | Event::Promoted
                | Event::PromotionFailed { .. },
            ) => Err(NotNow { status: self.as_str() }),
        }
    }
}

#[cfg(test)]
mod tests;
