//! Questions to the open database, answered off the actor's thread.
//!
//! The actor keeps no state but the open store, which its arguments carry: when it dies nothing is lost.

use std::sync::Arc;

use ractor::{ActorCell, ActorProcessingErr};
use themis_messages::lifecycle::KernelFault;
use themis_messages::limits::AUDIT_DEADLINE;
use themis_messages::mailbox::{Admitted, Reply};
use themis_persistence::audit_log::error::{AuditError, VerifyFailure};
use themis_persistence::audit_log::read::{Direction, records};
use themis_persistence::audit_log::record::AuditRecord;
use themis_persistence::audit_log::verify::{VerifyReport, verify};
use themis_persistence::experiments;
use themis_persistence::registry::{self, Note, NoteError, Notes};
use themis_persistence::store::Store;

use crate::role::Role;
use crate::work;

/// What the store is asked.
#[derive(Debug)]
pub enum StoreMsg {
    /// Records of the audit log in order.
    ReadAudit {
        /// Number of the first record wanted.
        from: u64,
        /// At most this many.
        limit: usize,
        /// The records.
        reply: Reply<Result<Vec<AuditRecord>, StoreFault>>,
    },
    /// Replays the whole audit log.
    VerifyAudit {
        /// What was found.
        reply: Reply<Result<VerifyReport, StoreFault>>,
    },
    /// A note on the marketplace.
    Recall {
        /// Which.
        note: Note,
        /// Its value, if it was ever written.
        reply: Reply<Result<Option<serde_json::Value>, StoreFault>>,
    },
    /// Writes what is known of experiments, by name.
    KeepExperiments {
        /// The records.
        records: Vec<(String, Vec<u8>)>,
        /// Answered when they would outlive the process.
        reply: Reply<Result<(), StoreFault>>,
    },
    /// Writes notes on the marketplace, together and durably.
    Remember {
        /// Which.
        notes: Notes,
        /// Answered when they are on the disk.
        reply: Reply<Result<(), StoreFault>>,
    },
}

/// Why the store has no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The log could not be read.
    #[error("{0}")]
    Audit(AuditError),
    /// The log is not whole.
    #[error("{0}")]
    Broken(VerifyFailure),
    /// A note could not be read or written.
    #[error("{0}")]
    Note(NoteError),
    /// The kernel's machinery failed.
    #[error("{0}")]
    Kernel(KernelFault),
}

impl StoreFault {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Audit(error) => error.code(),
            Self::Broken(failure) => failure.code(),
            Self::Note(_) => "registry.memory",
            Self::Kernel(fault) => fault.code(),
        }
    }
}

impl From<KernelFault> for StoreFault {
    fn from(fault: KernelFault) -> Self {
        Self::Kernel(fault)
    }
}

/// Reads for others.
#[derive(Debug)]
pub struct StoreActor(Arc<Store>);

impl Role for StoreActor {
    type Msg = StoreMsg;
    type Seed = Arc<Store>;

    fn start(store: Arc<Store>) -> Self {
        Self(store)
    }

    async fn handle(
        &mut self,
        _me: &ActorCell,
        admitted: Admitted<StoreMsg>,
    ) -> Result<(), ActorProcessingErr> {
        // The permit goes along: the queue's bound also bounds the reads under way.
        tokio::spawn(answer(admitted, Arc::clone(&self.0)));
        Ok(())
    }
}

async fn answer(admitted: Admitted<StoreMsg>, store: Arc<Store>) {
    let Admitted { message, permit: _permit } = admitted;
    match message {
        StoreMsg::ReadAudit { from, limit, reply } => {
            let read = move || read(&store, from, limit).map_err(StoreFault::Audit);
            reply.send(off_thread(read).await);
        }
        StoreMsg::VerifyAudit { reply } => {
            let replay = move || verify(&store).map_err(StoreFault::Broken);
            reply.send(off_thread(replay).await);
        }
        StoreMsg::Recall { note, reply } => {
            let read = move || registry::read(&store, &note).map_err(StoreFault::Note);
            reply.send(off_thread(read).await);
        }
        StoreMsg::KeepExperiments { records, reply } => {
            let write = move || experiments::write(&store, &records).map_err(NoteError::from);
            reply.send(off_thread(move || write().map_err(StoreFault::Note)).await);
        }
        StoreMsg::Remember { notes, reply } => {
            let write = move || notes.write(&store).map_err(NoteError::from);
            reply.send(off_thread(move || write().map_err(StoreFault::Note)).await);
        }
    }
}

async fn off_thread<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, StoreFault> {
    match work::run("store", AUDIT_DEADLINE, job).await {
        Ok(result) => result,
        Err(error) => Err(KernelFault::Audit { what: error.to_string() }.into()),
    }
}

fn read(store: &Store, from: u64, limit: usize) -> Result<Vec<AuditRecord>, AuditError> {
    let records = records(store, Direction::OldestFirst { from })?;
    records.take(limit).map(|stored| Ok(stored?.record)).collect()
}
