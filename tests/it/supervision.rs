//! Any actor may be killed at any moment: callers notice nothing, whoever asked is answered or told, nothing that was
//! acknowledged is lost, and the next operation works.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use themis_kernel::audit::{AuditEvent, AuditOutcome};
use themis_kernel::drill::{self, Fate, Step, Victim};
use themis_kernel::event::LifecycleEvent;
use themis_kernel::lifecycle::{LoadError, ReloadReceipt, StateOutcome};
use themis_kernel::{Health, Kernel, PluginRef};
use themis_tests::{Fixture, Site};

/// What a stateful plugin's callers see: every answer of the version that gave it, every write counted once.
struct World {
    _site: Site,
    kernel: Kernel,
    plugin: PluginRef,
    paths: [String; 3],
}

impl World {
    fn new() -> Self {
        let site = Site::new();
        let paths = ["1.0.0", "2.0.0", "3.0.0"]
            .map(|version| site.add(&Fixture::c("stateful.c", "stateful", version)));
        let mut config = site.config(&["stateful"]);
        config.probation.window = Duration::from_millis(200);
        // Many of these run at once.
        config.hold_limit = themis_kernel::limits::HOLD_LIMIT_MAX;
        let kernel = Kernel::start_blocking(config).unwrap();
        let plugin = kernel.loader().load_blocking(&paths[0], None).unwrap();
        Self { _site: site, kernel, plugin, paths }
    }

    /// Plays `scene` while callers write without pause; answers how many writes were acknowledged.
    fn under_load<T>(&self, scene: impl FnOnce() -> T) -> (T, u64) {
        let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
        let outcome = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        let answer = self.plugin.call(6, b"").expect("no caller notices");
                        assert_eq!(answer.bytes.len(), 8);
                        writes.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            let outcome = scene();
            stop.store(true, Ordering::SeqCst);
            outcome
        });
        (outcome, writes.into_inner())
    }

    fn version(&self) -> String {
        String::from_utf8(self.plugin.call(1, b"").unwrap().bytes).unwrap()
    }

    fn count(&self) -> u64 {
        u64::from_le_bytes(self.plugin.call(7, b"").unwrap().bytes.try_into().unwrap())
    }

    fn reload(&self, path: usize) -> Result<ReloadReceipt, LoadError> {
        self.kernel.reloads().reload_module_blocking("stateful", &self.paths[path])
    }

    /// A killed operation gives its claim back a moment after its asker was told.
    fn reload_when_free(&self, path: usize) -> ReloadReceipt {
        loop {
            match self.reload(path) {
                Err(error) if error.code() == "kernel.busy" => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
    }

    fn victims(&self) -> Vec<Victim> {
        let roles = drill::roles(&self.kernel).into_iter().map(Victim::Role);
        roles.chain([Victim::Plugin("stateful".to_owned())]).collect()
    }
}

/// What must hold after `victim` died at `step` of a reload that ended with `outcome`.
fn check(world: &World, outcome: &Result<ReloadReceipt, LoadError>, writes: u64, about: &str) {
    let version = world.version();
    match outcome {
        Ok(receipt) => {
            assert_eq!(version, "2.0.0", "{about}: acknowledged and lost");
            assert_eq!(receipt.to.to_string(), "2.0.0", "{about}");
        }
        Err(error) => {
            let told = ["kernel.stopped", "kernel.no_answer", "audit.refused"];
            assert!(told.contains(&error.code()), "{about}: {error}");
        }
    }
    // A swap that was not on record is undone; the writes since then are those of the version that was given up.
    if outcome.is_ok() {
        assert_eq!(world.count(), writes, "{about}: a write was lost");
    }
    // Whatever happened, the next operation works, and goes on from what serves.
    let receipt = world.reload_when_free(2);
    assert_eq!(receipt.to.to_string(), "3.0.0", "{about}");
    assert_eq!(world.version(), "3.0.0", "{about}");
    let back = world.kernel.reloads().rollback_blocking("stateful").unwrap();
    assert_eq!(Some(&back.to), receipt.from.as_ref(), "{about}");
    assert_eq!(*world.kernel.health().borrow(), Health::Running, "{about}");
    let records = world.kernel.audit_records_blocking(0, 1_000).unwrap();
    if outcome.is_ok() {
        let done = records.iter().any(|it| {
            it.event == AuditEvent::Reload
                && it.outcome == AuditOutcome::Done
                && it.version.as_ref().is_some_and(|version| version.to_string() == "2.0.0")
        });
        assert!(done, "{about}: acknowledged and not on record");
    }
    world.kernel.audit_verify_blocking().unwrap();
}

fn kill_at_each_step(victims: &[Victim]) {
    let (mut done, mut told) = (0, 0);
    for victim in victims {
        for step in &Step::WAY[..Step::WAY.len() - 1] {
            let world = World::new();
            let (killer, step, victim) = (drill::killer(&world.kernel), *step, victim.clone());
            let about = format!("{victim:?} killed at {step:?}");
            let mut events = world.kernel.subscribe();
            let name = name_of(&victim).to_owned();
            drill::play(&world.kernel, move |reached| {
                if reached == step {
                    killer.kill(&victim);
                }
                Fate::Live
            });
            let (outcome, writes) = world.under_load(|| {
                let outcome = world.reload(1);
                drill::end(&world.kernel);
                outcome
            });
            wait_for_restart(&mut events, &name);
            check(&world, &outcome, writes, &about);
            world.kernel.shutdown_blocking();
            *if outcome.is_ok() { &mut done } else { &mut told } += 1;
        }
    }
    println!(
        "{} deaths: {done} reloads were done all the same, {told} askers were told",
        done + told
    );
}

fn name_of(victim: &Victim) -> &str {
    match victim {
        Victim::Role(name) => name,
        Victim::Plugin(name) => name,
    }
}

/// The victim did die.
fn wait_for_restart(events: &mut themis_kernel::Events, name: &str) {
    loop {
        match events.next_blocking().unwrap().unwrap().what {
            LifecycleEvent::ActorRestarted { actor, .. } if actor == name => return,
            _ => {}
        }
    }
}

#[test]
fn every_service_may_die_at_every_step_of_a_reload() {
    kill_at_each_step(&["services", "store", "audit", "registry"].map(Victim::Role));
}

#[test]
fn every_controller_may_die_at_every_step_of_a_reload() {
    let controllers = ["control", "catalog", "coordinator", "experiments", "watchdog"];
    kill_at_each_step(&controllers.map(Victim::Role));
}

#[test]
fn every_plugins_actor_may_die_at_every_step_of_a_reload() {
    kill_at_each_step(&[Victim::Role("plugins"), Victim::Plugin("stateful".to_owned())]);
}

#[test]
fn the_list_of_victims_is_complete() {
    let world = World::new();
    let named = [
        "services",
        "store",
        "audit",
        "registry",
        "control",
        "catalog",
        "coordinator",
        "experiments",
        "watchdog",
        "plugins",
    ];
    let mut roles = drill::roles(&world.kernel);
    roles.sort_unstable();
    let mut named = named.to_vec();
    named.sort_unstable();
    assert_eq!(roles, named);
    world.kernel.shutdown_blocking();
}

#[test]
fn a_reload_may_die_at_each_of_its_steps_and_leaves_nothing_behind() {
    for step in &Step::WAY[..Step::WAY.len() - 1] {
        let world = World::new();
        let step = *step;
        drill::play(
            &world.kernel,
            move |reached| {
                if reached == step { Fate::Die } else { Fate::Live }
            },
        );
        let (outcome, writes) = world.under_load(|| {
            let outcome = world.reload(1);
            drill::end(&world.kernel);
            outcome
        });
        let about = format!("the reload killed at {step:?}");
        assert_eq!(outcome.as_ref().unwrap_err().code(), "kernel.stopped", "{about}");
        // Claims go back, a swap that was not confirmed is undone, the candidate is shut down.
        while world.version() != "1.0.0" || world.plugin.info().budget.generations.len() > 1 {
            std::thread::yield_now();
        }
        check(&world, &outcome, writes, &about);
        world.kernel.shutdown_blocking();
    }
}

#[test]
fn any_actor_may_die_when_nothing_happens() {
    let world = World::new();
    for victim in world.victims() {
        let world = World::new();
        let lease = world.plugin.lease().unwrap();
        let mut events = world.kernel.subscribe();
        let ((), _) = world.under_load(|| {
            assert!(drill::killer(&world.kernel).kill(&victim), "{victim:?} was there");
            assert_eq!(world.kernel.list().len(), 1, "{victim:?}");
            wait_for_restart(&mut events, name_of(&victim));
        });
        assert_eq!(lease.call(1, b"").unwrap().bytes, b"1.0.0", "{victim:?}");
        drop(lease);
        let receipt = world.reload_when_free(1);
        assert_eq!(
            receipt.from.unwrap().to_string(),
            "1.0.0",
            "{victim:?}: its generations are found"
        );
        world.kernel.shutdown_blocking();
    }
    world.kernel.shutdown_blocking();
}

#[test]
fn any_actor_may_die_while_a_rollback_moves_state() {
    for victim in [Victim::Plugin("stateful".to_owned()), Victim::Role("coordinator")] {
        for _ in 0..8 {
            let world = World::new();
            world.reload(1).unwrap();
            let (outcome, writes) = world.under_load(|| {
                std::thread::scope(|scope| {
                    let rollback =
                        scope.spawn(|| world.kernel.reloads().rollback_blocking("stateful"));
                    drill::killer(&world.kernel).kill(&victim);
                    rollback.join().unwrap()
                })
            });
            match &outcome {
                // It died with the question: whether it was done is for whoever asked to look.
                Err(error) => {
                    let told = ["kernel.stopped", "kernel.no_answer"];
                    assert!(told.contains(&error.code()), "{victim:?}: {error}");
                }
                Ok(receipt) => {
                    assert_eq!(world.version(), "1.0.0", "{victim:?}: acknowledged and lost");
                    if matches!(receipt.state, StateOutcome::HandedOver { .. }) {
                        assert_eq!(world.count(), writes, "{victim:?}: a write was lost");
                    }
                }
            }
            assert_eq!(world.reload_when_free(2).to.to_string(), "3.0.0");
            world.kernel.shutdown_blocking();
        }
    }
}

#[test]
fn a_plugins_actor_that_dies_on_probation_still_hears_the_verdict_and_keeps_the_way_back() {
    let world = World::new();
    let mut events = world.kernel.subscribe();
    world.reload(1).unwrap();
    assert!(world.plugin.info().probation.is_some());
    assert!(drill::killer(&world.kernel).kill(&Victim::Plugin("stateful".to_owned())));
    loop {
        if let LifecycleEvent::Settled { .. } = events.next_blocking().unwrap().unwrap().what {
            break;
        }
    }
    let back = world.kernel.reloads().rollback_blocking("stateful").unwrap();
    assert_eq!(back.to.to_string(), "1.0.0", "the warm version was not forgotten");
    world.kernel.unload_blocking("stateful").unwrap();
    assert_eq!(world.plugin.info().budget.generations.len(), 0, "both were shut down");
    world.kernel.shutdown_blocking();
}

#[test]
fn a_drain_that_ends_while_the_plugins_actor_is_dead_is_not_missed() {
    let world = World::new();
    let lease = world.plugin.lease().unwrap();
    std::thread::scope(|scope| {
        let unloading = scope.spawn(|| world.kernel.unload_blocking("stateful"));
        while world.plugin.call(1, b"").is_ok() {
            std::thread::yield_now();
        }
        assert!(drill::killer(&world.kernel).kill(&Victim::Plugin("stateful".to_owned())));
        drop(lease);
        // Who waited for the end is told that the actor died with the question; the end comes all the same.
        assert_eq!(unloading.join().unwrap().unwrap_err().code(), "kernel.stopped");
    });
    while !world.plugin.info().budget.generations.is_empty() {
        std::thread::yield_now();
    }
    world.kernel.shutdown_blocking();
}

#[test]
fn a_kernel_whose_actors_fail_too_often_reports_itself_failed_and_its_plugins_go_on() {
    let world = World::new();
    let killer = drill::killer(&world.kernel);
    let ((), _writes) = world.under_load(|| {
        while *world.kernel.health().borrow() == Health::Running {
            killer.kill(&Victim::Role("catalog"));
            killer.kill(&Victim::Role("audit"));
            std::thread::yield_now();
        }
    });
    assert_eq!(*world.kernel.health().borrow(), Health::Failed);
    assert_eq!(world.version(), "1.0.0", "what is loaded goes on");
    let told = world.reload(1).unwrap_err();
    assert_eq!(told.code(), "kernel.stopped", "{told}");
    world.kernel.shutdown_blocking();
}
