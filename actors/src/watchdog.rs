//! Asks plugins whether they are well, and actors for a sign of life.
//!
//! ```text
//! tick ──▶ each serving plugin whose check is due ──▶ health hook, on a thread, with its deadline ──▶ the plugin's actor
//!      └─▶ each role: knock; no beat for HEARTBEAT_LIMIT ──▶ killed, its supervisor does the rest
//! ```
//!
//! It decides nothing about plugins: it tells their actors what it found. When it dies the next incarnation
//! begins a new round; checks under way tell their results all the same. The ticker, which is no actor, watches
//! the watchdog.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorProcessingErr};
use themis_messages::event::LifecycleEvent;
use themis_messages::ids::GenerationId;
use themis_messages::instance::HookError;
use themis_messages::limits::{HEARTBEAT_LIMIT, HEARTBEAT_PERIOD};
use themis_messages::mailbox::{Admitted, Watched};

use crate::environment::Environment;
use crate::events::Events;
use crate::generation::Generation;
use crate::plugin::{PluginFact, hook_error};
use crate::role::{self, Role};
use crate::slot::Slot;
use crate::work;

/// Each takes a thread for a moment; what is due and finds no place is asked at the next tick.
const CHECKS_AT_ONCE: usize = 64;

/// What the watchdog is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchdogMsg {
    /// Time has passed.
    Tick,
    /// A health check is over.
    Checked {
        /// Whose.
        generation: GenerationId,
    },
}

/// Asks for signs of life.
#[derive(Debug)]
pub struct Watchdog {
    environment: Arc<Environment>,
    checks: HashMap<GenerationId, Check>,
    /// When the roles were last knocked at, by [`role::now`].
    knocked: u64,
}

/// The last check of one generation.
#[derive(Debug, Clone, Copy)]
struct Check {
    /// When it began, or when the generation was first seen; by [`role::now`].
    at: u64,
    running: bool,
}

impl Role for Watchdog {
    type Msg = WatchdogMsg;
    type Seed = Arc<Environment>;

    fn start(environment: Arc<Environment>) -> Self {
        Self { environment, checks: HashMap::new(), knocked: 0 }
    }

    async fn handle(
        &mut self,
        _me: &ActorCell,
        admitted: Admitted<WatchdogMsg>,
    ) -> Result<(), ActorProcessingErr> {
        match admitted.message {
            WatchdogMsg::Tick => {
                let now = role::now();
                self.check_plugins(now);
                if now.saturating_sub(self.knocked) >= millis(HEARTBEAT_PERIOD) {
                    self.knocked = now;
                    self.knock_at_roles(now);
                }
            }
            WatchdogMsg::Checked { generation } => {
                if let Some(check) = self.checks.get_mut(&generation) {
                    check.running = false;
                }
            }
        }
        Ok(())
    }
}

impl Watchdog {
    fn check_plugins(&mut self, now: u64) {
        let period = self.environment.settings.health_period;
        if period.is_zero() {
            return;
        }
        let serving: Vec<_> = self
            .environment
            .directory
            .slots()
            .into_iter()
            .filter_map(|slot| Some((slot, Arc::clone(&slot.current()?.generation))))
            .collect();
        self.checks.retain(|id, check| check.running || serving.iter().any(|(_, it)| it.id == *id));
        for (slot, generation) in serving {
            // The probe has just asked a generation that is seen for the first time.
            if self.checks.values().filter(|check| check.running).count() >= CHECKS_AT_ONCE {
                return;
            }
            let check =
                self.checks.entry(generation.id).or_insert(Check { at: now, running: false });
            if check.running || now.saturating_sub(check.at) < millis(period) {
                continue;
            }
            *check = Check { at: now, running: true };
            tokio::spawn(ask(Arc::clone(&self.environment), slot, generation));
        }
    }

    fn knock_at_roles(&self, now: u64) {
        let events = &self.environment.events;
        for role in self.environment.roles.all() {
            knock(events, role.as_ref(), now);
        }
        for slot in self.environment.directory.slots() {
            knock(events, slot.mailbox().as_ref(), now);
        }
    }
}

/// Asks one generation, and tells its plugin's actor.
async fn ask(environment: Arc<Environment>, slot: &'static Slot, generation: Arc<Generation>) {
    let (id, limit) = (generation.id, environment.settings.hook_deadline);
    // A thread is inside a hook for good already: another one would only join it.
    let outcome = if slot.ledger().is_pinned(id) {
        Err(HookError::Deadline { limit })
    } else {
        let name = format!("hook-{}", slot.name());
        let limit = generation.patience(limit);
        let asked = work::run(&name, limit, move || generation.instance.health()).await;
        asked.map_err(hook_error).and_then(|health| health)
    };
    slot.tell(PluginFact::Health { generation: id, outcome });
    environment.roles.watchdog.tell(WatchdogMsg::Checked { generation: id });
}

/// Wakes a role; ends it when it has not shown life for too long.
fn knock(events: &Events, role: &dyn Watched, now: u64) {
    if !role.is_alive() {
        return;
    }
    if now.saturating_sub(role.last_beat()) <= millis(HEARTBEAT_LIMIT) {
        return role.knock();
    }
    let name = role.role();
    tracing::error!(role = name, limit = ?HEARTBEAT_LIMIT, "an actor shows no life and is ended");
    metrics::counter!("themis_stuck_actors_total", "role" => name).increment(1);
    events.emit(LifecycleEvent::ActorStuck { role: name });
    role.kill();
}

/// Wakes the watchdog now and then, and watches it; ends when `environment` is let go.
pub(crate) async fn tick(environment: std::sync::Weak<Environment>) {
    loop {
        let Some(alive) = environment.upgrade() else { return };
        alive.roles.watchdog.send(WatchdogMsg::Tick).unwrap_or_else(|fault| {
            tracing::debug!(%fault, "the watchdog was not woken");
        });
        knock(&alive.events, alive.roles.watchdog.as_ref(), role::now());
        let period = alive.settings.health_period / 4;
        drop(alive);
        tokio::time::sleep(period.clamp(Duration::from_millis(5), Duration::from_secs(1))).await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use themis_messages::mailbox::Reader;

    use super::*;

    /// A role that showed life once, and counts what is done to it.
    #[derive(Default)]
    struct Silent {
        knocks: AtomicU64,
        kills: AtomicU64,
    }

    struct Shared(Arc<Silent>);

    impl Reader for Shared {
        fn knock(&self) {
            self.0.knocks.fetch_add(1, Ordering::SeqCst);
        }

        fn is_alive(&self) -> bool {
            true
        }

        fn kill(&self) {
            self.0.kills.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_role_that_shows_no_life_is_asked_until_its_limit_and_then_ended() {
        let silent = Arc::new(Silent::default());
        let mailbox = themis_messages::mailbox::Mailbox::<()>::new("silent", 1);
        mailbox.connect(Shared(Arc::clone(&silent)));
        mailbox.beat(1_000);
        let events = Events::default();
        let mut watching = events.subscribe();
        let limit = millis(HEARTBEAT_LIMIT);
        let counts = || (silent.knocks.load(Ordering::SeqCst), silent.kills.load(Ordering::SeqCst));
        knock(&events, mailbox.as_ref(), 1_000 + limit);
        assert_eq!(counts(), (1, 0), "asked");
        knock(&events, mailbox.as_ref(), 1_001 + limit);
        assert_eq!(counts(), (1, 1), "ended");
        let told = watching.next().await.map(|event| event.what);
        assert_eq!(told, Some(LifecycleEvent::ActorStuck { role: "silent" }));
    }
}
