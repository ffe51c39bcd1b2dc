//! Accepts lifecycle requests and hands each to who carries it out.
//!
//! ```text
//! Replace  ──▶ a Reload actor of its own, linked here
//! Rollback ──▶ the plugin's actor
//! Unload   ──▶ the plugin's actor, unless others need the plugin
//! ```
//!
//! A request keeps its place in the queue until it is answered, so the queue's bound is also the bound of
//! operations under way. The coordinator keeps no state: when it dies, operations under way die with it, which
//! gives their claims back, and whoever asked is told.

use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use themis_messages::ids::PluginName;
use themis_messages::lifecycle::{KernelFault, ReloadReceipt, RollbackError, UnloadError};
use themis_messages::mailbox::{Admitted, Reply};

use crate::environment::Environment;
use crate::plugin::PluginMsg;
use crate::reload::{Reload, Request, Run, dependencies};
use crate::slot::Slot;

/// What the coordinator is asked.
#[derive(Debug)]
pub enum CoordinatorMsg {
    /// Load a first version, or replace one.
    Replace(Box<Request>),
    /// Back to the warm previous version.
    Rollback {
        /// The plugin.
        plugin: PluginName,
        /// Who asked.
        actor: String,
        /// When.
        requested: Instant,
        /// What serves now.
        reply: Reply<Result<ReloadReceipt, RollbackError>>,
    },
    /// Stop serving, drain, shut down.
    Unload {
        /// The plugin.
        plugin: PluginName,
        /// Who asked.
        actor: String,
        /// Answered when nothing is inside any more.
        reply: Reply<Result<(), UnloadError>>,
    },
}

/// Accepts lifecycle requests.
#[derive(Debug)]
pub struct Coordinator;

impl Actor for Coordinator {
    type Msg = Admitted<CoordinatorMsg>;
    type State = Arc<Environment>;
    type Arguments = Arc<Environment>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        environment: Arc<Environment>,
    ) -> Result<Arc<Environment>, ActorProcessingErr> {
        Ok(environment)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        admitted: Self::Msg,
        environment: &mut Arc<Environment>,
    ) -> Result<(), ActorProcessingErr> {
        let Admitted { message, permit } = admitted;
        match message {
            CoordinatorMsg::Replace(request) => {
                let given = Arc::clone(environment);
                let started = Actor::spawn_linked(None, Reload, given, myself.get_cell()).await;
                match started {
                    Ok((reload, _ended)) => {
                        reload.cast(Run { request: *request, _permit: permit })?
                    }
                    Err(error) => {
                        tracing::error!(%error, "a reload could not be started");
                        let stopped = KernelFault::Stopped { role: "reload" };
                        request.reply.send(Err(stopped.into()));
                    }
                }
            }
            CoordinatorMsg::Rollback { plugin, actor, requested, reply } => {
                rollback(environment, plugin, actor, requested, reply);
            }
            CoordinatorMsg::Unload { plugin, actor, reply } => {
                unload(environment, plugin, actor, reply);
            }
        }
        Ok(())
    }

    /// Operations are temporary: their end, good or bad, is their own.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        _environment: &mut Arc<Environment>,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_who, error) = event {
            tracing::error!(%error, "a reload died; what served before still serves");
        }
        Ok(())
    }
}

fn rollback(
    environment: &Environment,
    plugin: PluginName,
    actor: String,
    requested: Instant,
    reply: Reply<Result<ReloadReceipt, RollbackError>>,
) {
    let Some(slot) = environment.directory.find(plugin.as_str()) else {
        return reply.send(Err(RollbackError::NotLoaded { plugin }));
    };
    forward(slot, PluginMsg::Rollback { actor, requested, reply });
}

fn unload(
    environment: &Environment,
    plugin: PluginName,
    actor: String,
    reply: Reply<Result<(), UnloadError>>,
) {
    let directory = &environment.directory;
    let Some(slot) = directory.find(plugin.as_str()) else {
        return reply.send(Err(UnloadError::NotLoaded { plugin }));
    };
    if let Some((needed_by, _versions)) = dependencies::dependents(directory, &plugin).pop() {
        return reply.send(Err(UnloadError::Needed { plugin, needed_by }));
    }
    forward(slot, PluginMsg::Unload { actor, reply });
}

/// A request that its plugin's actor does not take loses its reply, which its sender sees at once.
fn forward(slot: &Slot, request: PluginMsg) {
    if let Err(fault) = slot.mailbox().send(request) {
        tracing::warn!(plugin = %slot.name(), %fault, "a request was not taken");
    }
}
