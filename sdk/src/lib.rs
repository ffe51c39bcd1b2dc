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
//! # As wasm
//!
//! The same source, built for `wasm32-unknown-unknown`, is a module for the kernel's wasm tier:
//!
//! ```text
//! rustup target add wasm32-unknown-unknown
//! cargo build --release --target wasm32-unknown-unknown
//! ```
//!
//! What is different there:
//!
//! - The module imports what of [`Host`] the plugin uses, and nothing else; the kernel refuses a module that imports more
//!   than the manifest's capabilities.
//! - Each of several instances is initialised with the same configuration, and calls come to any of them: what one keeps,
//!   another does not know. With `stateful: true` there is one, and its calls come in turn.
//! - A panic is a trap: the caller gets an error that names the functions, the instance is thrown away, and the next call
//!   gets another. Its text is logged if the plugin has logged anything before.
//! - There are no threads, no files and no clock but the host's. Whoever wants the same answer to the last bit everywhere
//!   takes sines and the like from the `libm` crate, as the example `geo` does.
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
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub mod native;
mod plugin;
#[doc(hidden)]
pub mod runtime;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod wasm;

pub use error::{Error, ErrorKind};
pub use host::{Host, Level};
pub use plugin::{Config, Plugin, Stateful};

#[cfg(test)]
mod tests;
