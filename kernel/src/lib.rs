//! The Themis plugin kernel: what a database starts, and the references its modules call plugins through.
//!
//! ```no_run
//! use themis_kernel::{Config, Kernel};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Start: the kernel owns its threads.
//! let kernel = Kernel::start_blocking(Config::from_file("themis.toml".as_ref())?)?;
//!
//! // Load a signed plugin, once.
//! let receipt = kernel.loader().load_blocking("geo/1.0.0", None)?;
//! println!("{} {} serves", receipt.name(), receipt.info().version.ok_or("unloaded again")?);
//!
//! // Call it, from any thread, as often as needed: no lock, no message.
//! let geo = kernel.plugin("geo").ok_or("not loaded")?;
//! let answer = geo.call("distance_km", b"...")?;
//! println!("answered by {}", answer.served_by.version);
//!
//! // Replace it under load; the reference stays valid.
//! kernel.reloads().reload_module_blocking("geo", "geo/1.1.0")?;
//! kernel.reloads().rollback_blocking("geo")?;
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
//! | check a signature | [`SignatureVerifier`] |
//! | read the audit log | [`Kernel::audit_records`], [`Kernel::audit_verify`] |
//!
//! The control API is async, with `_blocking` twins that refuse to run on a runtime's thread. Calls are plain
//! functions.

mod admin;
mod autoload;
pub mod config;
mod kernel;
mod metrics_endpoint;
mod refs;
mod runtime;

pub use config::{Config, ConfigError};
pub use kernel::{Kernel, StartError};
pub use refs::{HotReloadManager, Lease, PluginLoader, PluginRef, SignatureVerifier};
pub use themis_actors::store::StoreFault;
pub use themis_actors::tree::Health;
pub use themis_messages::{admit, audit, call, ids, instance, lifecycle, limits, manifest};
pub use themis_persistence as persistence;
pub use themis_sandbox::admission;
pub use themis_sandbox::native::{end_process, loader_stuck};
