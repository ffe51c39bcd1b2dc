//! Callers that check every answer, while something happens to the plugin.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use themis_messages::call::CallError;
use themis_messages::manifest::Manifest;

use crate::PluginRef;

/// What calls must answer.
#[derive(Debug)]
pub(super) enum Oracle {
    /// The self-tests that are answered alike each time.
    SelfTests(Vec<Known>),
    /// Nothing is known: calls of a method that does not exist have to be refused as such.
    Unknown(u32),
}

/// A request and its answer.
#[derive(Debug)]
pub(super) struct Known {
    method: u32,
    request: Vec<u8>,
    reply: Vec<u8>,
}

/// How one call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Right,
    Wrong,
    Lost,
}

impl Oracle {
    /// Self-tests that depend on what was called before do not say what a later call must answer.
    pub(super) fn of(manifest: &Manifest, plugin: PluginRef) -> Self {
        let known = manifest.self_test.iter().filter_map(|test| {
            let (request, reply) = (test.request.clone(), test.reply.clone());
            Some(Known { method: manifest.method_id(&test.method)?, request, reply })
        });
        let stable = known.filter(|known| {
            let right =
                || plugin.call(known.method, &known.request).map(|it| it.bytes == known.reply);
            (0..3).all(|_| right() == Ok(true))
        });
        let stable: Vec<_> = stable.collect();
        if stable.is_empty() { Self::Unknown(unlisted(manifest)) } else { Self::SelfTests(stable) }
    }

    /// Makes one call, the `turn`th.
    pub(super) fn call(&self, plugin: PluginRef, turn: usize) -> Ending {
        match self {
            Self::SelfTests(known) => {
                let Some(known) = known.get(turn % known.len()) else { return Ending::Lost };
                match plugin.call(known.method, &known.request) {
                    Ok(answer) if answer.bytes == known.reply => Ending::Right,
                    Ok(_) | Err(CallError::Plugin { .. } | CallError::BadRequest { .. }) => {
                        Ending::Wrong
                    }
                    Err(_) => Ending::Lost,
                }
            }
            Self::Unknown(method) => match plugin.call(*method, b"") {
                Err(CallError::UnknownMethod { .. }) => Ending::Right,
                Ok(_) | Err(CallError::Plugin { .. } | CallError::BadRequest { .. }) => {
                    Ending::Wrong
                }
                Err(_) => Ending::Lost,
            },
        }
    }

    /// What is compared, for people.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::SelfTests(_) => "self-test answers compared",
            Self::Unknown(_) => "only refusals compared: add self-tests to the manifest",
        }
    }
}

/// A method number that the manifest does not list.
pub(super) fn unlisted(manifest: &Manifest) -> u32 {
    let listed = |id: &u32| manifest.methods.iter().any(|method| method.id == *id);
    (0..u32::MAX).rev().find(|id| !listed(id)).unwrap_or(u32::MAX)
}

/// What callers saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) calls: AtomicU64,
    pub(super) wrong: AtomicU64,
    pub(super) lost: AtomicU64,
}

impl Seen {
    pub(super) fn is_clean(&self) -> bool {
        self.wrong.load(Ordering::SeqCst) == 0 && self.lost.load(Ordering::SeqCst) == 0
    }

    pub(super) fn words(&self) -> String {
        let [calls, lost, wrong] =
            [&self.calls, &self.lost, &self.wrong].map(|count| count.load(Ordering::SeqCst));
        format!("{calls} calls, {lost} lost, {wrong} wrong")
    }
}

/// How often each caller has called at least: a scene may be over before a thread is given a core.
const CALLS_MIN: u64 = 50;
/// How long is waited for that.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Plays `scene` while so many threads call without pause.
pub(super) fn under_load<T>(
    plugin: PluginRef,
    oracle: &Oracle,
    callers: usize,
    scene: impl FnOnce() -> T,
) -> (T, Seen) {
    let (stop, seen) = (AtomicBool::new(false), Seen::default());
    let outcome = std::thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| {
                let mut turn = 0;
                while !stop.load(Ordering::SeqCst) {
                    let ending = oracle.call(plugin, turn);
                    turn += 1;
                    seen.calls.fetch_add(1, Ordering::Relaxed);
                    seen.wrong.fetch_add(u64::from(ending == Ending::Wrong), Ordering::Relaxed);
                    seen.lost.fetch_add(u64::from(ending == Ending::Lost), Ordering::Relaxed);
                }
            });
        }
        let called = |least: u64| {
            let until = Instant::now() + WAIT_MAX;
            while seen.calls.load(Ordering::Relaxed) < least && Instant::now() < until {
                std::thread::yield_now();
            }
        };
        called(callers as u64);
        let outcome = scene();
        called(callers as u64 * CALLS_MIN);
        stop.store(true, Ordering::SeqCst);
        outcome
    });
    (outcome, seen)
}
