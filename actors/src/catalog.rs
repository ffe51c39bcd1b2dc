//! Which names exist: the only writer of the map that readers look plugins up in.
//!
//! ```text
//! name unknown ──Ensure──▶ slot interned, actor started, map published
//! name known   ──Ensure──▶ the same slot; its actor started again if it is down
//! ```
//!
//! The map only grows, by names that were verified before; reloads do not touch it. When the catalog dies its
//! readers keep the last map, which is all its state: the next incarnation goes on from it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ractor::{ActorCell, ActorProcessingErr};
use themis_messages::ids::PluginName;
use themis_messages::lifecycle::KernelFault;
use themis_messages::limits::{ASK_DEADLINE, CATALOG_NAMES_MAX, PLUGIN_QUEUE};
use themis_messages::mailbox::{Admitted, Mailbox, Reply, Watched as _};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::environment::Environment;
use crate::plugin::PluginActor;
use crate::role::Role;
use crate::slot::Slot;
use crate::supervision::{ChildSpec, SupervisorMsg};

/// Hashes short names fast. Names are signed and allowed before they get here, so nobody floods the map.
#[derive(Debug, Clone, Copy, Default)]
struct NameHash;

#[derive(Debug, Clone, Copy)]
struct NameHasher(u64);

impl BuildHasher for NameHash {
    type Hasher = NameHasher;

    fn build_hasher(&self) -> NameHasher {
        NameHasher(0)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The terminator that `str` adds: names differ before it.
    fn write_u8(&mut self, _terminator: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

type Names = HashMap<&'static str, &'static Slot, NameHash>;

/// The published map: look-ups take no lock and send no message.
#[derive(Debug, Default)]
pub struct Directory {
    names: ArcSwap<Names>,
}

impl Directory {
    /// The slot of a name that was ever loaded.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'static Slot> {
        self.names.load().get(name).copied()
    }

    /// All slots, by name.
    #[must_use]
    pub fn slots(&self) -> Vec<&'static Slot> {
        let mut slots: Vec<_> = self.names.load().values().copied().collect();
        slots.sort_by(|a, b| a.name().cmp(b.name()));
        slots
    }

    /// Adds a slot. Only the catalog calls this.
    fn publish(&self, slot: &'static Slot) {
        let mut names = Names::clone(&self.names.load());
        names.insert(slot.name().as_str(), slot);
        self.names.store(Arc::new(names));
    }
}

/// What the catalog is asked.
#[derive(Debug)]
pub enum CatalogMsg {
    /// Makes sure that a verified name has a slot and a running actor.
    Ensure {
        /// The name.
        name: PluginName,
        /// Its slot.
        reply: Reply<Result<&'static Slot, KernelFault>>,
    },
}

/// Knows the names.
#[derive(Debug)]
pub struct Catalog(Arc<Environment>);

impl Role for Catalog {
    type Msg = CatalogMsg;
    type Seed = Arc<Environment>;

    fn start(environment: Arc<Environment>) -> Self {
        Self(environment)
    }

    async fn handle(
        &mut self,
        _me: &ActorCell,
        admitted: Admitted<CatalogMsg>,
    ) -> Result<(), ActorProcessingErr> {
        let CatalogMsg::Ensure { name, reply } = admitted.message;
        reply.send(ensure(&self.0, &name).await);
        Ok(())
    }
}

async fn ensure(
    environment: &Arc<Environment>,
    name: &PluginName,
) -> Result<&'static Slot, KernelFault> {
    let directory = &environment.directory;
    let slot = match directory.find(name.as_str()) {
        Some(slot) => slot,
        None => {
            let names = directory.names.load().len();
            if names >= CATALOG_NAMES_MAX {
                return Err(KernelFault::TooManyNames { names, max: CATALOG_NAMES_MAX });
            }
            let mailbox = Mailbox::new("plugin", PLUGIN_QUEUE);
            let slot = Slot::intern(name.clone(), mailbox, environment.settings.serial_wait);
            directory.publish(slot);
            slot
        }
    };
    if !slot.mailbox().is_alive() {
        start_actor(environment, slot).await?;
    }
    Ok(slot)
}

async fn start_actor(
    environment: &Arc<Environment>,
    slot: &'static Slot,
) -> Result<(), KernelFault> {
    let child = child(environment, slot);
    let plugins = &environment.roles.plugins;
    plugins.ask(ASK_DEADLINE, |reply| SupervisorMsg::Start { child, reply }).await?
}

fn child(environment: &Arc<Environment>, slot: &'static Slot) -> ChildSpec {
    let seed = (slot, Arc::clone(environment));
    ChildSpec::role::<PluginActor>(slot.name().as_str(), slot.mailbox(), seed)
}

/// The actors of all plugins that are known: what their supervisor starts when it comes back.
pub(crate) fn plugin_actors(environment: &Arc<Environment>) -> Vec<ChildSpec> {
    environment.directory.slots().into_iter().map(|slot| child(environment, slot)).collect()
}
