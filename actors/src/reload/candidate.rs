//! A generation that does not serve yet: it is shut down when nobody takes it over, also by an operation that dies.

use std::sync::Arc;
use std::time::Duration;

use themis_messages::instance::HookError;

use crate::generation::Generation;
use crate::plugin::shutdown_hook;

/// An initialised generation on its way.
#[derive(Debug)]
pub(super) struct Candidate {
    generation: Option<Arc<Generation>>,
    hook_deadline: Duration,
}

impl Candidate {
    pub(super) fn new(generation: Generation, hook_deadline: Duration) -> Self {
        Self { generation: Some(Arc::new(generation)), hook_deadline }
    }

    /// The generation; `None` once it was given away.
    pub(super) fn generation(&self) -> Option<Arc<Generation>> {
        self.generation.clone()
    }

    /// It serves, or a thread is inside one of its hooks for good: its end is not this operation's business.
    pub(super) fn let_go(&mut self) {
        self.generation = None;
    }

    /// Shuts it down.
    ///
    /// # Errors
    /// [`HookError`] of its shutdown hook.
    pub(super) async fn discard(mut self) -> Result<(), HookError> {
        match self.generation.take() {
            Some(generation) => shutdown_hook(generation, self.hook_deadline).await,
            None => Ok(()),
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let Some(generation) = self.generation.take() else { return };
        let limit = self.hook_deadline;
        tracing::warn!(
            plugin = %generation.name(), version = %generation.version(),
            "an operation died with its candidate, which is shut down"
        );
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = shutdown_hook(generation, limit).await {
                    tracing::warn!(%error, "an abandoned candidate did not shut down cleanly");
                }
            });
        }
    }
}
