//! The in-process tier: the only place that maps a plugin's code into the host.
//!
//! ```text
//!             map                    init                     shutdown
//! verified ────────▶ Image ─────────────────▶ Instance ─────────────────▶ gone
//!   file    (kept for good,   (as often as     │  ▲
//!            one per digest)    wanted)        └──┘ call, health
//! ```
//!
//! An image is never unmapped: its code may be on some thread's stack, in a destructor the system runs at a
//! thread's end, or behind a `'static` reference. So a digest is mapped once and every load of it reuses
//! the image; [`IMAGES_MAX`](themis_messages::limits::IMAGES_MAX) bounds how many there are.
//!
//! What goes wrong here goes wrong in the host. A hook that hangs takes its thread with it: its instance,
//! and what the host lent to it, then stay alive for as long as the thread does. A *constructor* that hangs
//! also holds the system loader's lock, and nothing can be mapped in this process any more: [`map`] then
//! answers [`MapError::LoaderStuck`] at once, [`loader_stuck`] names the plugin, and what runs goes on.
//! A plugin that aborts, or lets a panic or exception out of an entry, ends the host: that is the limit of
//! this tier.
//!
//! Everything here blocks. The caller runs [`map`], [`Image::init`] and the hooks on threads of the
//! kernel's own, with a deadline.
//!
//! [`MapError::LoaderStuck`]: themis_messages::lifecycle::MapError::LoaderStuck

mod exit;
mod image;
mod instance;
mod loader;
mod proof;
mod services;
mod sink;

pub use exit::end_process;
pub(crate) use image::Entries;
pub use image::Image;
pub use loader::{loader_stuck, map, mapped_images};
pub use proof::resident_bytes;
pub(crate) use proof::{build_id_of, entries_in_memory};
pub use services::{CounterSink, HostServices, LogLevel, LogSink};
pub(crate) use services::{admits_counter, clean_text, counter_name, guarded, prefix};
pub use sink::refused_writes;
pub(crate) use sink::{Target, count_refused_writes, lend};

#[cfg(test)]
mod tests;
