//! Where the kernel's futures run: on threads of its own, or on a runtime it was started in.

use std::sync::Arc;

use themis_messages::lifecycle::KernelFault;
use tokio::runtime::{Handle, Runtime};

/// A way to run futures; the runtime behind it lives as long as any clone.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    handle: Handle,
    /// Present when the kernel started it.
    _own: Option<Arc<OwnRuntime>>,
}

/// A runtime that is ended without waiting for threads that may hang inside a plugin.
#[derive(Debug)]
struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Executor {
    /// Uses the runtime this is called in.
    pub(crate) fn current() -> Result<Self, std::io::Error> {
        let handle = Handle::try_current().map_err(std::io::Error::other)?;
        Ok(Self { handle, _own: None })
    }

    /// Starts a runtime: two workers, as control work is rare and short.
    pub(crate) fn start() -> Result<Self, std::io::Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .on_thread_start(themis_sandbox::wasm::prepare_thread)
            .worker_threads(2)
            .thread_name("themis-kernel")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { handle, _own: Some(Arc::new(OwnRuntime(Some(runtime)))) })
    }

    /// Runs `future` on the kernel's runtime and waits for it from any executor. Dropping the wait does not
    /// cancel the work.
    ///
    /// # Errors
    /// [`KernelFault::Stopped`] when the runtime ended first.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, KernelFault> {
        let ended = self.handle.spawn(future).await;
        ended.map_err(|error| {
            tracing::error!(%error, "a kernel task ended without a result");
            KernelFault::Stopped { role: "kernel" }
        })
    }

    /// Runs `future` and blocks for it.
    ///
    /// # Errors
    /// [`KernelFault::OnRuntimeThread`] on a thread of any tokio runtime.
    pub(crate) fn block<T>(&self, future: impl Future<Output = T>) -> Result<T, KernelFault> {
        if Handle::try_current().is_ok() {
            return Err(KernelFault::OnRuntimeThread);
        }
        Ok(self.handle.block_on(future))
    }
}
