//! The only way off an actor's thread: blocking work on a kernel-owned thread, with a limit.
//!
//! Hooks of plugins never run on the runtime's blocking pool: its threads end at the runtime's will, and a
//! plugin's thread-local destructors with them. A job that misses its limit is written off: its thread may
//! hang for ever, its result is dropped, and its caller has its answer at the limit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::sync::oneshot;

/// Why a job has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// It did not end in time; its thread is written off.
    #[error("did not end within {limit:?}; its thread is written off")]
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// The system gave no thread.
    #[error("no thread could be started: {what}")]
    Spawn {
        /// The system's words.
        what: String,
    },
    /// It panicked.
    #[error("panicked: {what}")]
    Panicked {
        /// The panic's text.
        what: String,
    },
}

/// Runs `job` on a thread named `themis-{name}` and waits for it, at most `limit`.
///
/// # Errors
/// [`WorkError`]; on `Deadline` the job may still be running.
pub async fn run<T: Send + 'static>(
    name: &str,
    limit: Duration,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkError> {
    let (sender, receiver) = oneshot::channel();
    let spawned = std::thread::Builder::new().name(format!("themis-{name}")).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(job));
        // Nobody waits any more when the limit has passed; the result has no other use.
        drop(sender.send(result));
    });
    if let Err(error) = spawned {
        return Err(WorkError::Spawn { what: error.to_string() });
    }
    match tokio::time::timeout(limit, receiver).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(panic))) => Err(WorkError::Panicked { what: panic_text(panic.as_ref()) }),
        Ok(Err(_ended_silently)) => {
            Err(WorkError::Panicked { what: "the thread ended without a result".to_owned() })
        }
        Err(_elapsed) => Err(WorkError::Deadline { limit }),
    }
}

/// The text of a panic, when it has one.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_job_runs_on_a_named_thread_of_its_own() {
        let name = run("hook-geo", LIMIT, || std::thread::current().name().map(str::to_owned));
        assert_eq!(name.await, Ok(Some("themis-hook-geo".to_owned())));
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let result = run::<()>("t", LIMIT, || panic!("boom")).await;
        assert_eq!(result, Err(WorkError::Panicked { what: "boom".to_owned() }));
    }

    #[tokio::test]
    async fn a_job_that_never_ends_is_answered_at_its_limit() {
        let (_keep, never) = std::sync::mpsc::channel::<()>();
        let limit = Duration::from_millis(20);
        let result = run("t", limit, move || never.recv().is_ok()).await;
        assert_eq!(result, Err(WorkError::Deadline { limit }));
    }
}
