//! Policy: who owns which fact, which messages change it, and what happens when its owner dies.
//!
//! ```text
//! Kernel             one_for_one; spent: the kernel reports itself failed, the host goes on
//! ├─ Services        rest_for_one   Store · Audit · RegistryClient
//! ├─ Plugins         one_for_one    one PluginActor per plugin, each with an intensity of its own
//! └─ Control         one_for_one    Catalog · ReloadCoordinator ── Reload × operations under way · Watchdog
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
//! | [`registry`] | the marketplace, both ends |
//! | [`ab`] | the statistics of experiments between versions |
//! | [`coordinator`] | accepting lifecycle requests |
//! | [`audit`] | the tail of the log |
//! | [`store`] | the open database |
//! | `handover` | moving state from one version to another |
//! | [`watchdog`] | asking plugins and actors for signs of life |
//! | [`events`] | the stream of what happens |
//! | [`role`] | the shell of every role: one actor type |
//! | [`supervision`] | who is restarted, and when that ends |
//! | [`work`] | the only way off an actor's thread |
//! | [`tree`] | starting and stopping all of it |

pub mod ab;
pub mod audit;
pub mod catalog;
pub mod coordinator;
pub mod drill;
pub mod environment;
pub mod events;
pub mod generation;
mod handover;
pub mod lease;
pub mod plugin;
pub mod registry;
pub mod reload;
pub mod role;
mod rollback_set;
pub mod slot;
pub mod store;
pub mod supervision;
pub mod telemetry;
pub mod tree;
pub mod usage;
pub mod watchdog;
pub mod work;
