//! Decides whether a plugin may be mapped, and hands over exactly the bytes it decided about.
//!
//! ```text
//! path ─▶ manifest ─▶ name ─▶ key ─▶ signature ─▶ dates, floor, ABI ─▶ tier ─▶ files ─▶ ELF ─▶ descriptor
//!   └──────────── any doubt: AdmitError; nothing has been mapped, no code of the plugin has run ────────┘
//! ```
//!
//! There are no actors here and no state between two admissions: [`admit`] blocks and may be called from
//! any number of threads at once. When it fails or its thread dies, what it had copied is freed.

mod admit;
pub mod bundle;
mod descriptor;
mod detached;
mod discover;
mod elf;
pub mod gpg;
mod inspect;
mod keys;
mod policy;
mod root;
mod sealed;
mod sign;
mod signed;
mod source;
mod verify;

pub use admit::{AdmittedPlugin, admit};
pub use descriptor::Descriptor;
pub use detached::{Verified, VerifyError, sign_detached, verify_detached};
pub use discover::{Discovered, discover};
pub use inspect::{
    BundleInspection, Described, Entry, Finding, Import, Inspected, Inspection, Metered,
    ModuleInspection, Packed, Segment, Symbols, inspect, remedy,
};
pub use keys::{KeyError, PublicKey, SignatureFault, SigningKey};
pub use policy::{NameSet, Policy, TrustedKey};
pub use root::PluginRoot;
pub use sealed::SealedFile;
pub use sign::{SignError, sign_dir};
pub use signed::Summary;
pub use verify::{VerifiedBundle, pack_dir, verify_plugin};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
