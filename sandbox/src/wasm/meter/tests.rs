//! Tests of the meter, one file per question.
//!
//! | file | question |
//! |---|---|
//! | `spec.rs` | does the specification's own suite see any difference? |
//! | `random.rs` | does a generated module? And is its fuel the same however it is metered and sliced? |
//! | `exact.rs` | is what is charged what was run, instruction by instruction? |
//! | `laws.rs` | does everything that goes on for ever end? Are names, indices and limits right? |
//! | `snapshots.rs` | what does the code look like? |
//!
//! `host.rs` is the host they share, `programs.rs` and `counting.rs` write random programs, `naive.rs` is a meter to compare with.

mod counting;
mod exact;
mod host;
mod laws;
mod naive;
mod programs;
mod random;
mod snapshots;
mod spec;
