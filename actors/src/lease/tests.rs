//! The promise of a stint: once it is reported drained, nobody is inside and nobody gets in.

use std::sync::atomic::{AtomicI64, AtomicU64};

use themis_messages::ids::{Digest, GenerationId, KeyId, Tier};
use themis_messages::instance::{
    CallStatus, HookError, ImageEvidence, Instance, ReplyBuffer, StateHooks,
};
use themis_messages::manifest::Manifest;

use super::*;
use crate::generation::Again;
use crate::telemetry::{self, Counted};

/// Counts who is inside it.
#[derive(Debug)]
struct Watched {
    concurrency: Concurrency,
    inside: AtomicI64,
    evidence: ImageEvidence,
}

impl Instance for Watched {
    fn call(&self, _method: u32, _request: &[u8], _reply: &mut ReplyBuffer<'_>) -> CallStatus {
        self.inside.fetch_add(1, Ordering::SeqCst);
        std::hint::spin_loop();
        self.inside.fetch_sub(1, Ordering::SeqCst);
        CallStatus::Ok
    }

    fn concurrency(&self) -> Concurrency {
        self.concurrency
    }

    fn health(&self) -> Result<(), HookError> {
        Ok(())
    }

    fn state_hooks(&self) -> StateHooks {
        StateHooks::default()
    }

    fn save_state(&self) -> Result<Vec<u8>, HookError> {
        Err(HookError::Missing)
    }

    fn reload(&self, _from_version: &str, _state: &[u8]) -> Result<(), HookError> {
        Err(HookError::Missing)
    }

    fn shutdown(&self) -> Result<(), HookError> {
        Ok(())
    }

    fn evidence(&self) -> &ImageEvidence {
        &self.evidence
    }
}

fn serving(concurrency: Concurrency) -> (Arc<Serving>, Arc<Watched>) {
    let manifest = format!(
        r#"{{"schema": 1, "name": "geo", "version": "1.0.0", "abi": "1.0",
            "files": [{{"path": "lib.so", "target": "linux-x86_64", "size": 1, "sha256": "{}"}}],
            "key_id": "0000000000000000", "methods": []}}"#,
        "0".repeat(64)
    );
    let digest = Digest([0; 32]);
    let evidence = ImageEvidence {
        digest,
        build_id: None,
        inode: 0,
        reused: false,
        bytes: 0,
        resident_bytes: 0,
    };
    let watched = Arc::new(Watched { concurrency, inside: AtomicI64::new(0), evidence });
    let generation = Arc::new(Generation {
        id: GenerationId(1),
        manifest: Arc::new(Manifest::parse("m.json".as_ref(), manifest.as_bytes()).unwrap()),
        tier: Tier::InProcess,
        digest,
        manifest_digest: None,
        key_id: KeyId([0; 8]),
        path: "geo/1.0.0".into(),
        instance: Arc::clone(&watched) as Arc<dyn Instance>,
        again: Again::new(|| Err(HookError::Missing)),
        sampled: Default::default(),
        _counted: Counted::start(),
    });
    let latency = telemetry::call_latency(&generation);
    (Serving::new(generation, latency), watched)
}

#[tokio::test(start_paused = true)]
async fn a_closed_stint_lets_nobody_in_and_drains_with_its_last_caller() {
    let (serving, _) = serving(Concurrency::Parallel);
    let first = serving.enter().unwrap();
    let held = HeldServing::enter(&serving).unwrap();
    serving.close();
    assert!(serving.enter().is_none());
    assert!(HeldServing::enter(&serving).is_none());
    assert_eq!(serving.in_flight(), 2);
    let limit = Duration::from_secs(30);
    assert!(tokio::time::timeout(limit, serving.drained()).await.is_err(), "two are inside");
    drop(first);
    assert!(tokio::time::timeout(limit, serving.drained()).await.is_err(), "one is inside");
    // The last one leaves on a thread of its own, as callers do.
    std::thread::spawn(move || drop(held)).join().unwrap();
    serving.drained().await;
    assert_eq!(serving.in_flight(), 0);
}

#[test]
fn a_serial_plugin_gives_one_turn_at_a_time() {
    let (serial, _) = serving(Concurrency::Serial);
    let turn = serial.take_turn(Duration::ZERO).unwrap();
    assert!(turn.is_some());
    assert!(serial.take_turn(Duration::from_millis(1)).is_err());
    drop(turn);
    assert!(serial.take_turn(Duration::ZERO).is_ok());
    let (parallel, _) = serving(Concurrency::Parallel);
    assert!(parallel.take_turn(Duration::ZERO).unwrap().is_none());
}

/// Callers race the closing of many stints; after each is reported drained nobody may be inside.
#[test]
fn nobody_is_inside_a_drained_stint() {
    const STINTS: usize = 2_000;
    const CALLERS: usize = 4;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let entered = AtomicU64::new(0);
    for _ in 0..STINTS {
        let (serving, watched) = serving(Concurrency::Parallel);
        let start = std::sync::Barrier::new(CALLERS + 1);
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    start.wait();
                    while let Some(visit) = serving.enter() {
                        visit.count_call();
                        entered.fetch_add(1, Ordering::Relaxed);
                        let mut reply = Vec::new();
                        let reply = &mut ReplyBuffer::new(&mut reply);
                        serving.generation.instance.call(0, b"", reply);
                    }
                });
            }
            start.wait();
            serving.close();
            runtime.block_on(serving.drained());
            assert_eq!(watched.inside.load(Ordering::SeqCst), 0);
        });
        // Those that came too late have counted themselves out again.
        assert_eq!(serving.in_flight(), 0);
    }
    println!("{} calls raced {STINTS} closings", entered.into_inner());
}

/// Far enough away that no test gets there.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

#[tokio::test]
async fn held_callers_wait_and_go_on_when_the_hold_is_given_up() {
    let (serving, _) = serving(Concurrency::Parallel);
    let inside = serving.enter().unwrap();
    let hold = serving.hold(later()).unwrap();
    assert!(serving.hold(later()).is_none(), "one hold at a time");
    assert!(serving.enter().is_none());
    drop(inside);
    serving.drained().await;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            serving.wait_at_door();
            serving.enter().is_some()
        });
        drop(hold);
        assert!(waiting.join().unwrap());
    });
}

/// A hand-over may wait for the same stint that something else has closed meanwhile: both are told.
#[tokio::test]
async fn everybody_who_waits_for_the_last_caller_is_told() {
    let (serving, _) = serving(Concurrency::Parallel);
    let held = HeldServing::enter(&serving).unwrap();
    let hold = serving.hold(later()).unwrap();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let serving = Arc::clone(&serving);
            tokio::spawn(async move { serving.drained().await })
        })
        .collect();
    tokio::task::yield_now().await;
    serving.close();
    drop(held);
    for waiter in waiting {
        waiter.await.unwrap();
    }
    assert!(!hold.close(), "somebody else has closed it");
}

#[test]
fn a_hold_ends_at_its_limit_whatever_became_of_its_holder() {
    let (serving, _) = serving(Concurrency::Parallel);
    let hold = serving.hold(Instant::now() + Duration::from_millis(5)).unwrap();
    serving.wait_at_door();
    assert!(serving.enter().is_some(), "callers go on");
    assert!(!hold.close(), "and its holder learns that they did");
    assert!(serving.enter().is_some());
}

#[test]
fn a_hold_that_is_closed_in_time_lets_nobody_in_any_more() {
    let (serving, _) = serving(Concurrency::Parallel);
    let hold = serving.hold(later()).unwrap();
    assert!(hold.close());
    serving.wait_at_door();
    assert!(serving.enter().is_none(), "a newer stint is published");
}

/// Callers race holds that lapse, are given up, or close: between a drained hold and its close nobody gets in.
#[test]
fn nobody_gets_in_between_a_drained_hold_and_its_close() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut closed = 0;
    for round in 0..500_u64 {
        let (serving, watched) = serving(Concurrency::Parallel);
        let calls = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        match serving.enter() {
                            Some(visit) => {
                                visit.count_call();
                                calls.fetch_add(1, Ordering::SeqCst);
                                let mut reply = Vec::new();
                                let reply = &mut ReplyBuffer::new(&mut reply);
                                serving.generation.instance.call(0, b"", reply);
                            }
                            None if serving.door.load(Ordering::SeqCst) == CLOSED => return,
                            None => serving.wait_at_door(),
                        }
                    }
                });
            }
            // Some of these limits pass before the close, some do not.
            let until = Instant::now() + Duration::from_micros(round * 4);
            let hold = serving.hold(until).unwrap();
            // A door that opened again lets callers in for ever.
            let left = until.saturating_duration_since(Instant::now());
            let drained = runtime
                .block_on(async { tokio::time::timeout(left, serving.drained()).await.is_ok() });
            let (seen, inside) =
                (calls.load(Ordering::SeqCst), watched.inside.load(Ordering::SeqCst));
            std::thread::yield_now();
            let after = calls.load(Ordering::SeqCst);
            if hold.close() && drained {
                closed += 1;
                assert_eq!((seen, inside), (after, 0), "a call came between");
            }
            serving.close();
        });
    }
    println!("{closed} of 500 holds were closed in time");
    assert!(closed > 0);
}
