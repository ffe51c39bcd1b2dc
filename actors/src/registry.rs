//! The marketplace, both ends: a registry's client, and what a publisher does with one.
//!
//! A registry is a repository of The Update Framework (TUF): static files that any web server can serve over HTTPS.
//!
//! ```text
//! wanted ─▶ metadata ─▶ index ─▶ plan ─▶ bundles ─▶ verified ─▶ in place ─▶ loaded
//!           (trust)             (resolve) (fetch)   (admission)  (install)
//! ```
//!
//! | module | what it decides |
//! |---|---|
//! | [`reach`] | which addresses may be asked |
//! | [`tls`] | which servers are believed to be who they are |
//! | [`http`] | one request |
//! | [`operation`] | how often and how long it is tried |
//! | [`trust`] | which metadata is believed |

pub mod client;
pub mod entry;
pub mod fetch;
mod files;
pub mod graph;
pub mod http;
pub mod index;
pub mod install;
pub mod lock;
pub mod mirror;
pub mod operation;
mod place;
pub mod plan;
pub mod publish;
pub mod reach;
pub mod resolve;
pub mod tls;
pub mod trust;
