//! Takes the state of the version that serves to another one, without losing a write.
//!
//! ```text
//! hold new leases ──▶ wait for those inside ──▶ save_state ──▶ reload on the target ──▶ (the swap, by the plugin's actor)
//!       └──────────── any failure, or the limit: the door opens, what served serves on ────────────┘
//! ```
//!
//! The limit is for all of it together, and holds whatever the hooks do: a hold ends by itself. A `save_state` that
//! overstays it runs on beside calls; what it saves is thrown away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use themis_messages::lifecycle::{HandOverError, StateOutcome};

use crate::generation::Generation;
use crate::lease::Hold;
use crate::plugin::hook_error;
use crate::slot::Slot;
use crate::work;

/// State that has arrived, while callers are still held.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) hold: Hold,
    pub(crate) outcome: StateOutcome,
}

/// Whether there is state to move from one version to the other.
pub(crate) fn moves_state(from: &Generation, to: &Generation) -> bool {
    from.instance.state_hooks().saves && to.instance.state_hooks().takes
}

/// Moves it.
///
/// # Errors
/// [`HandOverError`]; callers are not held any more then.
pub(crate) async fn carry(
    slot: &'static Slot,
    from: &Arc<Generation>,
    to: &Arc<Generation>,
    limit: Duration,
) -> Result<Carried, HandOverError> {
    let until = Instant::now() + limit;
    let left = || until.saturating_duration_since(Instant::now());
    let serving = slot
        .current()
        .filter(|serving| serving.generation.id == from.id)
        .ok_or(HandOverError::Overtaken)?;
    let hold = serving.hold(until).ok_or(HandOverError::Overtaken)?;
    if tokio::time::timeout(left(), serving.drained()).await.is_err() {
        return Err(HandOverError::Leased { limit });
    }
    let name = format!("hook-{}", from.name());
    let saving = Arc::clone(from);
    let saved = work::run(&name, left(), move || saving.instance.save_state()).await;
    let state = saved.map_err(hook_error).and_then(|it| it).map_err(HandOverError::Save)?;
    let bytes = state.len() as u64;
    let (taking, version) = (Arc::clone(to), from.version().to_string());
    let taken = work::run(&name, left(), move || taking.instance.reload(&version, &state)).await;
    taken.map_err(hook_error).and_then(|it| it).map_err(HandOverError::Take)?;
    let outcome = StateOutcome::HandedOver { bytes, held: hold.elapsed() };
    Ok(Carried { hold, outcome })
}
