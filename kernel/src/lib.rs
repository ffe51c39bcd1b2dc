//! The Themis plugin kernel: what a database starts, and the references its modules call plugins through.
//!
//! ```
//! use themis_kernel::{Config, Kernel};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let _site = themis_tests::Site::of_examples();
//! // Start: the kernel owns its threads.
//! let kernel = Kernel::start_blocking(Config::from_file("themis.toml".as_ref())?)?;
//!
//! // Load a signed plugin: verified, mapped, initialised, on record.
//! let geo = kernel.loader().load_blocking("geo/1.0.0", None)?;
//!
//! // Call it, from any thread, as often as needed: no lock, no message.
//! let answer = geo.call("version", b"")?;
//! assert_eq!(answer.bytes, b"1.0.0");
//!
//! // Replace it under load; the reference stays valid.
//! let receipt = kernel.reloads().reload_module_blocking("geo", "geo/1.1.0")?;
//! assert_eq!(geo.call("version", b"")?.bytes, b"1.1.0");
//! println!("{} serves after {:?}, callers saw {:?}", receipt.to, receipt.total, receipt.swap);
//!
//! // Go back: the old version is still warm.
//! kernel.reloads().rollback_blocking("geo")?;
//! assert_eq!(kernel.plugin("geo").ok_or("gone")?.call("version", b"")?.bytes, b"1.0.0");
//!
//! kernel.shutdown_blocking();
//! # Ok(())
//! # }
//! ```
//!
//! | task | where |
//! |---|---|
//! | start, look up, list, stop | [`Kernel`] |
//! | load a plugin | [`PluginLoader`] |
//! | replace it, go back | [`HotReloadManager`] |
//! | call it | [`PluginRef`], [`Lease`] |
//! | see whether a plugin behaves | [`conformance`] |
//! | run a plugin in a worker process, without a kernel | [`PluginSandbox`] |
//! | check a signature | [`SignatureVerifier`] |
//! | test versions against each other | [`ExperimentManager`], [`PluginRef::call_for`] |
//! | find and install plugins | [`MarketplaceClient`], [`mirror`] |
//! | watch what happens | [`Kernel::subscribe`], [`Events`] |
//! | see and release what is quarantined | [`Kernel::quarantined`], [`Kernel::release`] |
//! | read the audit log | [`Kernel::audit_records`], [`Kernel::audit_verify`] |
//!
//! A host whose plugins run in worker processes is also what those are, unless it names another program: the first
//! line of its `main` is
//!
//! ```no_run
//! # use std::process::ExitCode;
//! fn main() -> ExitCode {
//!     if let Some(ended) = themis_kernel::process_entry() {
//!         return ended;
//!     }
//!     // The database starts here.
//! #    ExitCode::SUCCESS
//! }
//! ```
//!
//! The control API is async, with `_blocking` twins that refuse to run on a runtime's thread. Calls are plain
//! functions.

mod admin;
mod autoload;
pub mod config;
pub mod conformance;
#[doc(hidden)]
pub mod drill;
mod events;
mod experiments;
mod kernel;
mod marketplace;
mod metrics_endpoint;
mod plugin_sandbox;
mod refs;
mod runtime;

pub use config::{Config, ConfigError};
pub use events::Events;
pub use experiments::{Assigned, ExperimentManager, Served};
pub use kernel::{Kernel, StartError};
pub use marketplace::{MarketplaceClient, mirror};
pub use plugin_sandbox::{PluginSandbox, Sandbox, SandboxCallError, SandboxLoadError, Sandboxed};
pub use refs::{HotReloadManager, Lease, PluginLoader, PluginRef, SignatureVerifier};
pub use themis_actors::store::StoreFault;
pub use themis_actors::tree::Health;
pub use themis_actors::{ab, registry};
pub use themis_messages::{
    admit, audit, call, event, ids, instance, lifecycle, limits, manifest, probation,
    registry as market, sandbox, wasm,
};
pub use themis_persistence as persistence;
pub use themis_sandbox::native::{end_process, loader_stuck, refused_writes};
pub use themis_sandbox::process::{forbid_sockets, process_entry};
pub use themis_sandbox::wasm::{prepare_thread, probe as wasm_engine};
pub use themis_sandbox::{admission, machine};
