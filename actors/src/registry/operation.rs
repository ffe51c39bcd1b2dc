//! One operation of the registry's client: how long it may try, what it took so far, and who is told.
//!
//! ```text
//! attempt ─ok─▶ done
//!    └─ failed ─▶ worth another? ─no─▶ the failure
//!                      └─yes─▶ pause (longer each time, by chance, at least what the server asks for)
//!                                └─ ends after the limit? ─yes─▶ out of time, at once
//!                                                         └─no─▶ attempt
//! ```
//!
//! The limit holds for everything together, attempts included. Nobody waits on a thread: a pause is a timer.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use parking_lot::Mutex;
use themis_messages::limits::{REGISTRY_PAUSE_MAX, REGISTRY_PAUSE_MIN};
use themis_messages::registry::{FetchFailure, Progress, RegistryError, RequestStats};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// An operation. Clones are the same operation.
#[derive(Debug, Clone)]
pub struct Operation(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    limit: Duration,
    stats: Mutex<RequestStats>,
    told: Option<mpsc::Sender<Progress>>,
}

impl Operation {
    /// Starts one that may take so long. A listener that is slow misses steps and holds nobody up.
    #[must_use]
    pub fn start(limit: Duration, told: Option<mpsc::Sender<Progress>>) -> Self {
        let stats = Mutex::new(RequestStats { from_cache: true, ..RequestStats::default() });
        Self(Arc::new(Inner { started: Instant::now(), limit, stats, told }))
    }

    /// Tells whoever listens how far it is.
    pub fn tell(&self, progress: Progress) {
        if let Some(told) = &self.0.told {
            // Full or gone: progress is not worth waiting for.
            drop(told.try_send(progress));
        }
    }

    /// Notes bytes that arrived.
    pub fn received(&self, bytes: u64) {
        let mut stats = self.0.stats.lock();
        stats.bytes = stats.bytes.saturating_add(bytes);
    }

    /// What it took so far.
    #[must_use]
    pub fn stats(&self) -> RequestStats {
        RequestStats { total_time: self.0.started.elapsed(), ..self.0.stats.lock().clone() }
    }

    /// Makes attempts until one succeeds, fails for good, or there is no time left.
    ///
    /// # Errors
    /// [`RegistryError::Fetch`] for what another attempt would not help, [`RegistryError::OutOfTime`].
    pub async fn retry<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, FetchFailure>>,
    {
        let until = self.0.started + self.0.limit;
        let pauses = ExponentialBuilder::default()
            .with_min_delay(REGISTRY_PAUSE_MIN)
            .with_max_delay(REGISTRY_PAUSE_MAX)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        let mut pauses = pauses.build();
        loop {
            self.count();
            let failure = match tokio::time::timeout_at(until, attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(failure)) => failure,
                Err(_elapsed) => return Err(self.out_of_time("an attempt that did not end")),
            };
            self.0.stats.lock().last_error = Some(failure.to_string());
            if !failure.is_transient() {
                return Err(failure.into());
            }
            let pause = pauses.next().unwrap_or(REGISTRY_PAUSE_MAX);
            let pause = pause.max(failure.retry_after().unwrap_or_default());
            // Waiting for longer than there is would only delay the answer.
            if until.saturating_duration_since(Instant::now()) <= pause {
                return Err(self.out_of_time(&failure.to_string()));
            }
            self.tell(Progress::Retrying { why: failure.to_string(), after: pause });
            tokio::time::sleep(pause).await;
        }
    }

    fn count(&self) {
        let mut stats = self.0.stats.lock();
        stats.attempts = stats.attempts.saturating_add(1);
        stats.from_cache = false;
    }

    fn out_of_time(&self, last: &str) -> RegistryError {
        let stats = self.stats();
        RegistryError::OutOfTime {
            attempts: stats.attempts,
            elapsed: stats.total_time,
            limit: self.0.limit,
            last: last.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const LIMIT: Duration = Duration::from_secs(30);

    fn server(retry_after: Option<u64>) -> FetchFailure {
        let retry_after = retry_after.map(Duration::from_secs);
        FetchFailure::Server { url: "https://x/".to_owned(), status: 503, retry_after }
    }

    async fn failing(failure: impl Fn() -> FetchFailure) -> (RegistryError, Duration, u32) {
        let operation = Operation::start(LIMIT, None);
        let started = Instant::now();
        let result = operation.retry(|| std::future::ready(Err::<(), _>(failure()))).await;
        (result.unwrap_err(), started.elapsed(), operation.stats().attempts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_keeps_failing_is_given_up_within_the_limit() {
        for _ in 0..50 {
            let (error, took, attempts) = failing(|| server(None)).await;
            assert_eq!(error.code(), "registry.out_of_time");
            assert!(took <= LIMIT, "{took:?}");
            assert!((4..=10).contains(&attempts), "{attempts}: few enough to be bearable");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_asks_for_more_patience_than_there_is_is_given_up_at_once() {
        let (error, took, attempts) = failing(|| server(Some(86_400))).await;
        assert_eq!((error.code(), attempts), ("registry.out_of_time", 1));
        assert_eq!(took, Duration::ZERO);
        let (_, took, attempts) = failing(|| server(Some(10))).await;
        assert!(attempts <= 3 && took >= Duration::from_secs(20), "{attempts} in {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_get_better_is_not_tried_again() {
        let tls = || FetchFailure::Tls { url: String::new(), what: "expired".to_owned() };
        let (error, took, attempts) = failing(tls).await;
        assert_eq!((error.code(), took, attempts), ("registry.tls", Duration::ZERO, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_never_ends_ends_at_the_limit() {
        let operation = Operation::start(LIMIT, None);
        let started = Instant::now();
        let result = operation.retry(std::future::pending::<Result<(), FetchFailure>>).await;
        assert_eq!(result.unwrap_err().code(), "registry.out_of_time");
        assert_eq!(started.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_shared_by_all_requests_of_an_operation() {
        let operation = Operation::start(LIMIT, None);
        let started = Instant::now();
        for _ in 0..5 {
            let failed = operation.retry(|| std::future::ready(Err::<(), _>(server(None)))).await;
            assert_eq!(failed.unwrap_err().code(), "registry.out_of_time");
        }
        assert!(started.elapsed() <= LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_succeeds_in_the_end_has_succeeded() {
        let (listener, mut steps) = mpsc::channel(1);
        let operation = Operation::start(LIMIT, Some(listener));
        let tried = AtomicU32::new(0);
        let result = operation.retry(|| {
            let tried = tried.fetch_add(1, Ordering::Relaxed);
            std::future::ready(if tried < 3 { Err(server(None)) } else { Ok(tried) })
        });
        assert_eq!(result.await, Ok(3));
        let stats = operation.stats();
        assert_eq!((stats.attempts, stats.from_cache), (4, false));
        assert!(stats.last_error.is_some_and(|error| error.contains("503")));
        assert!(matches!(steps.recv().await, Some(Progress::Retrying { .. })));
        assert!(steps.try_recv().is_err(), "a slow listener misses steps");
    }
}
