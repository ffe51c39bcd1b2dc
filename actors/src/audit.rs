//! The tail of the audit log: one writer thread, group commit, no record dropped.
//!
//! ```text
//! Append ──▶ actor ──bounded channel──▶ writer thread ──one write batch──▶ RocksDB
//!                                            └── replies once the batch is durable
//! ```
//!
//! Records that nobody waits for (rollback, unload, retire) are written at once and made durable with the
//! next batch that is, at the latest after a tenth of a second. When the actor dies, the thread writes what it was
//! given and ends; the next incarnation opens the log again and continues the chain.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ractor::{ActorCell, ActorProcessingErr};
use themis_messages::audit::AuditEntry;
use themis_messages::lifecycle::KernelFault;
use themis_messages::limits::{AUDIT_BATCH_MAX, AUDIT_QUEUE};
use themis_messages::mailbox::{Admitted, Reply};
use themis_persistence::audit_log::AuditLog;
use themis_persistence::audit_log::error::AuditError;
use themis_persistence::moment::Moment;
use themis_persistence::store::{Durability, Store};

use crate::role::Role;

/// How long a record that nobody waits for may stay in memory.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// What the audit actor is told.
#[derive(Debug)]
pub enum AuditMsg {
    /// Appends one record.
    Append {
        /// What happened.
        entry: AuditEntry,
        /// Answered with the record's number once it is durable.
        durable: Option<Reply<Result<u64, KernelFault>>>,
    },
    /// Answers once everything appended before can be read.
    Settle {
        /// Answered then.
        reply: Reply<()>,
    },
    /// Makes everything appended before durable, and lets go of the store.
    Close {
        /// Answered when that is done.
        reply: Reply<()>,
    },
}

/// The right to extend the chain. A writer thread holds it while it lives: the thread of a new incarnation waits
/// until that of the old one has written what it was given, or both would continue from the same record.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<()>>);

/// Hands entries to its writer thread.
#[derive(Debug)]
pub struct Audit {
    store: Arc<Store>,
    tail: Tail,
    writer: Option<SyncSender<AuditMsg>>,
}

impl Role for Audit {
    type Msg = AuditMsg;
    type Seed = (Arc<Store>, Tail);

    fn start((store, tail): Self::Seed) -> Self {
        Self { store, tail, writer: None }
    }

    async fn handle(
        &mut self,
        _me: &ActorCell,
        admitted: Admitted<AuditMsg>,
    ) -> Result<(), ActorProcessingErr> {
        let writer = match &self.writer {
            Some(writer) => writer,
            None => self.writer.insert(start_writer(Arc::clone(&self.store), &self.tail)?),
        };
        match writer.try_send(admitted.message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => {
                refuse(message, "the disk does not keep up");
                Ok(())
            }
            Err(TrySendError::Disconnected(message)) => {
                refuse(message, "its writer has stopped");
                Err("the audit writer has stopped".into())
            }
        }
    }
}

fn start_writer(
    store: Arc<Store>,
    tail: &Tail,
) -> Result<SyncSender<AuditMsg>, ActorProcessingErr> {
    let (sender, receiver) = sync_channel(AUDIT_QUEUE);
    let writer = Writer { store, log: None, unsynced: None };
    let thread = std::thread::Builder::new().name("themis-audit".to_owned());
    let tail = tail.clone();
    thread.spawn(move || {
        let _only_writer = tail.0.lock();
        writer.run(&receiver);
    })?;
    Ok(sender)
}

fn refuse(message: AuditMsg, what: &str) {
    let fault = KernelFault::Audit { what: what.to_owned() };
    match message {
        AuditMsg::Append { durable: Some(reply), .. } => reply.send(Err(fault)),
        AuditMsg::Append { entry, durable: None } => {
            tracing::error!(event = ?entry.event, what, "an audit record is lost");
            metrics::counter!("themis_audit_lost_total").increment(1);
        }
        AuditMsg::Settle { reply } | AuditMsg::Close { reply } => reply.send(()),
    }
}

struct Writer {
    store: Arc<Store>,
    /// Opened when first needed, and again after a failed write: only that reads back what is on the disk.
    log: Option<AuditLog>,
    /// Since when records wait for the disk.
    unsynced: Option<Instant>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<AuditMsg>) {
        loop {
            let first = match self.unsynced {
                None => receiver.recv().map_err(|_ended| RecvTimeoutError::Disconnected),
                Some(since) => receiver.recv_timeout(FLUSH_AFTER.saturating_sub(since.elapsed())),
            };
            match first {
                Ok(first) => {
                    let rest = receiver.try_iter().take(AUDIT_BATCH_MAX - 1);
                    if let Some(close) = self.commit(std::iter::once(first).chain(rest)) {
                        self.sync();
                        drop(self);
                        return close.send(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
        }
    }

    /// Writes one batch, durable when anybody waits for it; answers a request to close.
    fn commit(&mut self, batch: impl Iterator<Item = AuditMsg>) -> Option<Reply<()>> {
        let mut entries = Vec::new();
        let mut waiting = Vec::new();
        let mut settled = Vec::new();
        let mut close = None;
        for message in batch {
            match message {
                AuditMsg::Append { entry, durable } => {
                    waiting.extend(durable.map(|reply| (entries.len(), reply)));
                    entries.push(entry);
                }
                AuditMsg::Settle { reply } => settled.push(reply),
                AuditMsg::Close { reply } => close = Some(reply),
            }
        }
        if !entries.is_empty() {
            self.append(&entries, waiting);
        }
        for reply in settled {
            reply.send(());
        }
        close
    }

    fn append(
        &mut self,
        entries: &[AuditEntry],
        waiting: Vec<(usize, Reply<Result<u64, KernelFault>>)>,
    ) {
        let synced = !waiting.is_empty();
        let durability = if synced { Durability::Synced } else { Durability::Buffered };
        let appended = self
            .open_log()
            .and_then(|log| log.append(entries, Moment::now(), durability))
            .map_err(|error| {
                self.log = None;
                tracing::error!(%error, records = entries.len(), "the audit log refused a batch");
                KernelFault::Audit { what: error.to_string() }
            });
        match &appended {
            Ok(numbers) => {
                metrics::counter!("themis_audit_records_total").increment(numbers.len() as u64);
                self.unsynced = if synced { None } else { self.unsynced.or(Some(Instant::now())) };
            }
            Err(_) => {
                let lost = entries.len() - waiting.len();
                metrics::counter!("themis_audit_lost_total").increment(lost as u64);
            }
        }
        for (index, reply) in waiting {
            reply.send(appended.clone().map(|numbers| numbers.get(index).copied().unwrap_or(0)));
        }
    }

    fn open_log(&mut self) -> Result<&mut AuditLog, AuditError> {
        match &mut self.log {
            Some(log) => Ok(log),
            closed => Ok(closed.insert(AuditLog::open(Arc::clone(&self.store))?)),
        }
    }

    fn sync(&mut self) {
        self.unsynced = None;
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.sync() {
            tracing::error!(%error, "the audit log could not be made durable");
            self.log = None;
        }
    }
}
