//! A generation that does not serve yet: it is shut down when nobody takes it over, also by an operation that dies.
//!
//! It goes with the request to install it, so there is one owner at any time: the operation, the message, the
//! plugin's actor.

use std::sync::Arc;
use std::time::Duration;

use themis_messages::instance::HookError;

use crate::generation::Generation;
use crate::plugin::shutdown_hook;

/// An initialised generation on its way.
#[derive(Debug)]
pub struct Candidate {
    generation: Arc<Generation>,
    hook_deadline: Duration,
    /// Nobody else will shut it down.
    owes_shutdown: bool,
}

impl Candidate {
    pub(super) fn new(generation: Generation, hook_deadline: Duration) -> Self {
        Self { generation: Arc::new(generation), hook_deadline, owes_shutdown: true }
    }

    pub(super) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// It serves from now on: its end is the plugin's actor's business.
    pub(crate) fn into_generation(mut self) -> Arc<Generation> {
        self.owes_shutdown = false;
        Arc::clone(&self.generation)
    }

    /// A thread is inside one of its hooks or calls: in this process for good, and it cannot be ended.
    pub(super) fn abandon(mut self) {
        self.owes_shutdown = false;
        self.generation.instance.abandon(self.hook_deadline);
    }

    /// Shuts it down.
    ///
    /// # Errors
    /// [`HookError`] of its shutdown hook.
    pub(super) async fn discard(mut self) -> Result<(), HookError> {
        self.owes_shutdown = false;
        shutdown_hook(Arc::clone(&self.generation), self.hook_deadline).await
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if !self.owes_shutdown {
            return;
        }
        let (generation, limit) = (Arc::clone(&self.generation), self.hook_deadline);
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
