//! What the kernel remembers: one RocksDB store, opened by one process, with a tamper-evident audit log.
//!
//! Everything here blocks and nothing here is an actor; whoever calls brings the thread.
//!
//! | key space | holds | what is promised |
//! |---|---|---|
//! | `meta` | format number, head of the audit log | the format is synced once, at creation; the head is written in the same batch as the records it counts, so the two never disagree |
//! | `audit` | audit records by sequence number | what [`Durability::Synced`] answered survives kill -9 and loss of power; what [`Durability::Buffered`] answered survives kill -9, and loss of power after the next synced append or [`AuditLog::sync`] |
//!
//! A write-ahead log that is damaged anywhere but in its unfinished last record is refused when the store is
//! opened: skipping over it would forget records without a word.
//!
//! | module | what it does |
//! |---|---|
//! | [`store`] | opens the store, alone or read-only; format and permissions |
//! | [`moment`] | wall clock, monotonic clock and boot id of a record |
//! | [`audit_log`] | append, read and verify the hash chain |
//! | [`registry`] | notes on the marketplace: trust, floors, publishers |
//! | [`drill`] | damages one record on purpose, to see that verification finds it |

pub mod audit_log;
pub mod drill;
pub mod experiments;
mod keys;
pub mod moment;
pub mod registry;
pub mod store;

pub use audit_log::error::{AuditError, VerifyFailure, VerifyFault};
pub use audit_log::read::{Direction, Records, StoredRecord};
pub use audit_log::record::{AuditRecord, LeafHash};
pub use audit_log::verify::{VerifyReport, verify};
pub use audit_log::{AuditLog, Head};
pub use moment::{BootId, Moment};
pub use store::error::StoreError;
pub use store::{Durability, Store};
