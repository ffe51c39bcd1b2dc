//! Plugins as WebAssembly modules: examined before anything is compiled, metered, and run in pooled instances.
//!
//! ```text
//! bytes ─examine─▶ known to ask for nothing else ─meter─▶ counts its own fuel ─compile, or from the cache─▶ image
//! image ─instantiate─▶ start, _initialize, themis_init ─▶ idle ⇄ in a call
//!                                                          └── trap, fuel, deadline: thrown away; the next call takes another
//! ```
//!
//! A module that exports `themis_save_state` has one instance, which takes its calls in turn; what it keeps goes with it
//! when it is thrown away, and the plugin is started again as a worker process would be.

pub use engine::{Options, Wasm, prepare_thread, probe};
pub use image::{WasmImage, WasmLimits};

mod cache;
mod engine;
pub(crate) mod examine;
mod host;
mod image;
mod instance;
pub mod meter;
mod pool;
mod slot;
