//! What happens, as a host watches it.

use themis_actors::events::Subscription;
use themis_messages::event::Event;
use themis_messages::lifecycle::KernelFault;

use crate::refs::Control;
use crate::runtime::Executor;

/// A stream of events, from [`Kernel::subscribe`](crate::Kernel::subscribe).
///
/// Whoever reads it slower than events come misses some, and is told how many in their place.
#[derive(Debug)]
pub struct Events {
    subscription: Subscription,
    executor: Executor,
}

impl Events {
    pub(crate) fn new(control: &Control) -> Self {
        let subscription = control.environment.events.subscribe();
        Self { subscription, executor: control.executor.clone() }
    }

    /// The next event; `None` when the kernel is no more.
    pub async fn next(&mut self) -> Option<Event> {
        self.subscription.next().await
    }

    /// Blocking twin of [`Events::next`].
    ///
    /// # Errors
    /// [`KernelFault::OnRuntimeThread`] on a runtime's thread.
    pub fn next_blocking(&mut self) -> Result<Option<Event>, KernelFault> {
        self.executor.block(self.subscription.next())
    }
}
