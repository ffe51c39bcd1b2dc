//! The mechanism of trust and isolation: what may be mapped into the host, and how that is done.
//!
//! # What is defended against
//!
//! - **Files that are not what their author made.** Nothing of a plugin is executed, not even a
//!   constructor, before an Ed25519 signature by a key the operator pinned has been verified, strictly, over
//!   the manifest, and SHA-256 over every file it lists. An extra file is as wrong as a changed one.
//! - **Whoever can swap files between check and use.** A file is opened once, copied into sealed memory,
//!   hashed there and mapped from there.
//! - **Paths that lead elsewhere.** Names are opened one by one below the plugin root, never through a link;
//!   the root, its directories and files must be writable by nobody but root and the kernel's own user.
//! - **Valid signatures in the wrong place.** Name and version are in the manifest, in the directory's
//!   names, in the binary, and all are the same; keys are pinned per plugin; keys and digests can be revoked
//!   and versions have floors.
//! - **Hostile input to the checks themselves.** Manifests, keys, signatures and ELF files are capped before
//!   they are parsed, and no parser here panics or allocates by a number it was given.
//!
//! # What is not
//!
//! - **A signed plugin in the host's address space.** It can do what the host can. Pre-flight keeps
//!   accidents out (text relocations, executable stacks, foreign libraries, symbols shared between versions),
//!   not malice: that is why in-process loading needs the operator's word for each name.
//! - **Root, and processes of the kernel's own user**, which can change the host's memory anyway.
//! - **A stolen signing key**, until the operator revokes it.

pub mod admission;
mod bucket;
pub mod machine;
pub mod native;
pub mod process;
pub mod wasm;
