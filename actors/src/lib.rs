//! Policy: who owns which fact, which messages change it, and what happens when its owner dies.
//!
//! ```text
//! Kernel             one_for_one; spent: the kernel reports itself failed, the host goes on
//! ├─ Services        Store · Audit
//! ├─ Plugins         one PluginActor per plugin
//! └─ Control         Catalog · ReloadCoordinator ── Reload × operations under way
//! ```
//!
//! Control goes by messages, downwards only, each ask with a limit. Data goes by leases: a call never passes
//! through a mailbox ([`lease`], [`slot`]). State machines are pure and live beside their actor in
//! `machine.rs`; the actor itself only translates messages to events and carries out effects.
//!
//! | module | owner of |
//! |---|---|
//! | [`lease`] | how a caller holds a generation, and how a replaced one knows it is free |
//! | [`slot`] | the published pointer of one plugin; the call path |
//! | [`catalog`] | which names exist |
//! | [`plugin`] | the generations of one plugin |
//! | [`reload`] | one load or reload under way |
//! | [`coordinator`] | accepting lifecycle requests |
//! | [`audit`] | the tail of the log |
//! | [`store`] | the open database |
//! | [`supervision`] | who is restarted, and when that ends |
//! | [`work`] | the only way off an actor's thread |
//! | [`tree`] | starting and stopping all of it |

pub mod audit;
pub mod catalog;
pub mod coordinator;
pub mod environment;
pub mod generation;
pub mod lease;
pub mod plugin;
pub mod reload;
pub mod slot;
pub mod store;
pub mod supervision;
pub mod telemetry;
pub mod tree;
pub mod work;
