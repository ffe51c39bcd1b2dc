//! What one plugin's actor is asked and told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use themis_messages::ids::{Digest, GenerationId, PluginVersion};
use themis_messages::instance::HookError;
use themis_messages::lifecycle::{
    Operation, Quarantine, ReleaseError, ReloadReceipt, RollbackError, StateOutcome, UnloadError,
};
use themis_messages::mailbox::Reply;
use themis_messages::probation::Evidence;
use themis_messages::sandbox::Verdict;

use super::ledger::{Claim, Set};
use crate::generation::Generation;
use crate::lease::Hold;
use crate::reload::candidate::Candidate;

/// A claim, and what serves while it lasts.
#[derive(Debug)]
pub struct Claimed {
    /// The claim.
    pub claim: Arc<Claim>,
    /// What serves.
    pub current: Option<Arc<Generation>>,
    /// What a rollback would go back to.
    pub previous: Option<Arc<Generation>>,
}

/// Why a plugin cannot be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimRefusal {
    /// Another operation has it.
    Busy {
        /// That operation.
        operation: Operation,
    },
    /// This image misbehaved before.
    Quarantined {
        /// What it did.
        reason: String,
    },
}

/// A candidate that is to serve.
#[derive(Debug)]
pub struct Installation {
    /// The candidate. It is the plugin's actor's from here on: an asker that dies must not end what serves.
    pub(crate) candidate: Candidate,
    /// Callers are held since the state was taken from what serves; they must still be.
    pub hold: Option<Hold>,
    /// What is installed with it.
    pub set: Option<Arc<Set>>,
    /// Whether it is watched once it is confirmed.
    pub probation: bool,
}

/// A candidate that serves now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What served before.
    pub from: Option<PluginVersion>,
    /// How long the pointer store took.
    pub swap: Duration,
    /// For how long it is watched once it is confirmed.
    pub probation: Option<Duration>,
}

/// A rollback that was asked for.
#[derive(Debug)]
pub struct RollbackRequest {
    /// Who asked.
    pub actor: String,
    /// When.
    pub requested: Instant,
    /// The claim of an operation that rolls back a whole set.
    pub claim: Option<Arc<Claim>>,
    /// What serves now.
    pub reply: Reply<Result<ReloadReceipt, RollbackError>>,
}

/// What one plugin's actor is asked.
#[derive(Debug)]
pub enum PluginMsg {
    /// Asks for the right to change the plugin.
    Claim {
        /// What for.
        operation: Operation,
        /// The image that is to be loaded; none for a rollback.
        digest: Option<Digest>,
        /// The right.
        reply: Reply<Result<Claimed, ClaimRefusal>>,
    },
    /// Makes a proven candidate serve.
    Install {
        /// The candidate.
        installation: Installation,
        /// What it replaced; or the candidate again when callers were not held any more, and nothing has changed.
        reply: Reply<Result<Installed, Candidate>>,
    },
    /// Makes a proven candidate serve beside what serves, as an arm of an experiment.
    Join {
        /// The candidate.
        candidate: Candidate,
        /// Answered when callers can be let in.
        reply: Reply<()>,
    },
    /// An arm serves no more.
    Leave {
        /// The arm.
        generation: GenerationId,
        /// Answered when nobody new is let in.
        reply: Reply<()>,
    },
    /// The last install is on record.
    Confirm {
        /// What it came to.
        receipt: Box<ReloadReceipt>,
        /// The receipt again, with the first call if there was one by now.
        reply: Reply<ReloadReceipt>,
    },
    /// The last install could not be recorded, or its set failed: back to what was.
    Revert {
        /// The generation that is given up.
        generation: GenerationId,
        /// Answered when that is done.
        reply: Reply<()>,
    },
    /// Back to the warm previous generation.
    Rollback(RollbackRequest),
    /// Stops serving, drains, shuts down.
    Unload {
        /// Who asked.
        actor: String,
        /// Answered when nothing is inside any more.
        reply: Reply<Result<(), UnloadError>>,
    },
    /// Quarantined images may be loaded again.
    Release {
        /// Which; all of the plugin's when not given.
        digest: Option<Digest>,
        /// Who asked.
        actor: String,
        /// What was released.
        reply: Reply<Result<Vec<Quarantine>, ReleaseError>>,
    },
    /// Something happened.
    Fact(PluginFact),
}

/// What one plugin's actor is told. Facts are never refused, and the next incarnation hears those that the last
/// one did not live to hear.
#[derive(Debug)]
pub enum PluginFact {
    /// An image of this plugin is mapped, for good.
    Mapped {
        /// The image.
        digest: Digest,
        /// Its memory, in bytes.
        bytes: u64,
    },
    /// A load failed after the plugin's code had run.
    LoadFailed {
        /// The image.
        digest: Digest,
        /// Its version.
        version: PluginVersion,
        /// Stable code.
        code: &'static str,
        /// The sentence for people.
        reason: String,
        /// Whether a thread is inside for good.
        stuck: bool,
    },
    /// The state is where it can be: the rollback can be done.
    RollbackReady {
        /// The rollback.
        request: RollbackRequest,
        /// Callers are held while the state moves.
        hold: Option<Hold>,
        /// What became of the state.
        state: StateOutcome,
    },
    /// A version on probation has been judged, or its set has.
    Judged {
        /// The generation.
        generation: GenerationId,
        /// What was seen; without a fault it has passed.
        evidence: Evidence,
    },
    /// A health check is over.
    Health {
        /// Whose.
        generation: GenerationId,
        /// How it went.
        outcome: Result<(), HookError>,
    },
    /// The process of a generation ended by itself, or by what it did.
    Ended {
        /// Whose.
        generation: GenerationId,
        /// How.
        verdict: Arc<Verdict>,
    },
    /// The wait before a restart is over.
    RestartDue {
        /// What is to be started again.
        generation: GenerationId,
    },
    /// The first call was answered in the stint that serves.
    FirstCall {
        /// By which generation.
        generation: GenerationId,
    },
    /// A call of this generation did not end while another waited for its turn.
    CallStuck {
        /// The generation.
        generation: GenerationId,
        /// How long the other waited.
        limit: Duration,
    },
    /// The last caller left a closed stint.
    Drained {
        /// Whose stint.
        generation: GenerationId,
    },
    /// A closed stint is still leased after the drain limit.
    DrainOverdue {
        /// Whose stint.
        generation: GenerationId,
    },
    /// A shutdown hook is over.
    ShutdownEnded {
        /// Whose.
        generation: GenerationId,
        /// How.
        outcome: Result<(), HookError>,
    },
    /// An operation has given its claim back, or died with it.
    ClaimDropped,
}
