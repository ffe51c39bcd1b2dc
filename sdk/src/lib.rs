//! What authors of Themis plugins build against: a trait, a macro and safe access to the host.
//!
//! ```
//! use themis_plugin::{Config, Error, Host, Plugin};
//!
//! pub struct Greeter {
//!     host: Host,
//! }
//!
//! impl Plugin for Greeter {
//!     fn init(host: Host, _config: Config) -> Result<Self, Error> {
//!         Ok(Self { host })
//!     }
//! }
//!
//! impl Greeter {
//!     // A typed method: argument and answer travel as MessagePack.
//!     fn greet(&self, name: String) -> Result<String, Error> {
//!         themis_plugin::info!(self.host, "greeting {name}");
//!         Ok(format!("Hello, {name}"))
//!     }
//!
//!     // A raw method: bytes in, bytes out.
//!     fn echo(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
//!         Ok(request.to_vec())
//!     }
//! }
//!
//! themis_plugin::export! {
//!     plugin: Greeter, name: "greeter", version: "1.0.0", thread_safe: true,
//!     methods: { 1 => greet, 2 => raw echo }
//! }
//! # fn main() {}
//! ```
//!
//! Build it as a `cdylib`. A panic in any method or hook is caught and answered as an error; that needs
//! the default `panic = "unwind"`. The library is never unmapped and statics survive a reload of the same
//! file, so state belongs into the plugin's value, not into statics.
//!
//! | module | what it is |
//! |---|---|
//! | [`abi`] | the C ABI, the only definition of it |
//! | [`Plugin`], [`Stateful`] | what a plugin is |
//! | [`export!`] | makes a library of it |
//! | [`Host`] | what the kernel offers, safely |
//! | [`Error`] | how a plugin refuses |

pub mod abi;
mod error;
mod export;
mod host;
mod plugin;
#[doc(hidden)]
pub mod runtime;

pub use error::{Error, ErrorKind};
pub use host::{Host, Level};
pub use plugin::{Config, Plugin, Stateful};

#[cfg(test)]
mod tests;
