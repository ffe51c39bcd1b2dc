//! The vocabulary of the kernel: what its parts can say to each other, and the bounds they keep.
//!
//! Nothing here does anything: no I/O, no threads, no actors. A type that crosses a crate border
//! lives here; once it is parsed, wrong states cannot be expressed any more.
//!
//! | module | what it says |
//! |---|---|
//! | [`limits`] | every deadline, bound and budget, each with its reason |
//! | [`ids`] | names, versions, digests, keys, generations: parsed once |
//! | [`strict_json`] | JSON that cannot be read two ways |
//! | [`manifest`] | what a signed plugin says of itself |
//! | [`instance`] | the one contract all isolation tiers fulfil |
//! | [`admit`] | every reason to refuse a plugin before its code runs |
//! | [`lifecycle`] | load, reload, rollback, unload: requests, receipts, errors |
//! | [`call`] | answers and errors of a call |
//! | [`event`] | what subscribers are told |
//! | [`wasm`] | wasm modules: why one is refused, why a call of one is stopped |
//! | [`sandbox`] | worker processes: limits, confinement, how they end |
//! | [`probation`] | how a new version is judged |
//! | [`audit`] | the records of the tamper-evident log |
//! | [`mailbox`] | bounded queues with a role, asks with a limit |

pub mod admit;
pub mod audit;
pub mod bundle;
pub mod call;
pub mod event;
pub mod ids;
pub mod instance;
pub mod lifecycle;
pub mod limits;
pub mod mailbox;
pub mod manifest;
pub mod probation;
pub mod registry;
pub mod sandbox;
pub mod strict_json;
pub mod wasm;
