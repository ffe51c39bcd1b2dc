//! Faults on purpose, for tests and benches: kills actors, and plays scenes at the steps of an operation.

pub use themis_actors::drill::Fate;
pub use themis_actors::reload::machine::Effect as Step;
use themis_messages::mailbox::Watched as _;

use crate::kernel::Kernel;

/// An actor to kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Victim {
    /// The one behind a role: `services`, `plugins`, `control`, `store`, `audit`, `catalog`, `coordinator`, `watchdog`.
    Role(&'static str),
    /// That of a plugin.
    Plugin(String),
}

/// A way to kill actors of one kernel, from any thread.
#[derive(Debug, Clone)]
pub struct Killer(std::sync::Arc<themis_actors::environment::Environment>);

/// Every role there is but those of single plugins.
#[must_use]
pub fn roles(kernel: &Kernel) -> Vec<&'static str> {
    kernel.control.environment.roles.all().iter().map(|role| role.role()).collect()
}

/// A killer for this kernel.
#[must_use]
pub fn killer(kernel: &Kernel) -> Killer {
    Killer(std::sync::Arc::clone(&kernel.control.environment))
}

impl Killer {
    /// Kills an actor; whether there was one. It ends at its next await.
    pub fn kill(&self, victim: &Victim) -> bool {
        match victim {
            Victim::Role(name) => {
                let roles = self.0.roles.all();
                let role = roles.iter().find(|role| role.role() == *name && role.is_alive());
                role.map(|role| role.kill()).is_some()
            }
            Victim::Plugin(name) => {
                let slot = self.0.directory.find(name);
                slot.filter(|slot| slot.mailbox().is_alive())
                    .map(|slot| slot.mailbox().kill())
                    .is_some()
            }
        }
    }
}

/// Plays `scene` at every step of every load and reload from now on.
pub fn play(kernel: &Kernel, scene: impl FnMut(Step) -> Fate + Send + 'static) {
    kernel.control.environment.drill.play(scene);
}

/// No more scenes.
pub fn end(kernel: &Kernel) {
    kernel.control.environment.drill.end();
}
