//! Several plugins back to their previous versions, or none of them.
//!
//! All are claimed first, and what they would go back to is checked as a whole; then each goes back, dependents
//! before what they depend on. Should one fail all the same, those that went back return: rolling back twice is
//! where one was.

use std::sync::Arc;
use std::time::Instant;

use themis_messages::ids::PluginName;
use themis_messages::lifecycle::{KernelFault, LoadError, Operation, ReloadReceipt, RollbackError};
use themis_messages::limits::{ASK_DEADLINE, ROLLBACK_DEADLINE};

use crate::environment::Environment;
use crate::plugin::{Claim, ClaimRefusal, PluginMsg, RollbackRequest};
use crate::reload::dependencies::{self, World};
use crate::slot::Slot;

/// A plugin that is claimed for going back.
struct Member {
    slot: &'static Slot,
    claim: Arc<Claim>,
}

/// Rolls the set back.
///
/// # Errors
/// [`RollbackError`] of the first plugin that cannot go back; then none has.
pub(crate) async fn run(
    environment: &Environment,
    mut plugins: Vec<PluginName>,
    actor: String,
    requested: Instant,
) -> Result<Vec<ReloadReceipt>, RollbackError> {
    plugins.sort();
    plugins.dedup();
    let mut members = Vec::new();
    let mut world = World::default();
    for plugin in plugins {
        let (member, manifest) = claim(environment, plugin).await?;
        members.push(member);
        world.add(manifest);
    }
    let order = dependencies::order(&environment.directory, &world).map_err(refused)?;
    members
        .sort_by_key(|it| std::cmp::Reverse(order.iter().position(|name| name == it.slot.name())));
    let mut receipts = Vec::new();
    for member in &members {
        match back(member, &actor, requested).await {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => {
                for undone in members.iter().take(receipts.len()).rev() {
                    if let Err(error) = back(undone, "kernel", requested).await {
                        tracing::error!(plugin = %undone.slot.name(), %error, "did not return");
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(receipts)
}

type Manifest = Arc<themis_messages::manifest::Manifest>;

async fn claim(
    environment: &Environment,
    plugin: PluginName,
) -> Result<(Member, Manifest), RollbackError> {
    let not_loaded = || RollbackError::NotLoaded { plugin: plugin.clone() };
    let slot = environment.directory.find(plugin.as_str()).ok_or_else(not_loaded)?;
    let operation = Operation::Rollback;
    let asked = slot.mailbox().ask(ASK_DEADLINE, |reply| PluginMsg::Claim {
        operation,
        digest: None,
        reply,
    });
    let claimed = asked.await?.map_err(|refusal| match refusal {
        ClaimRefusal::Busy { operation } => {
            let (plugin, operation) = (plugin.clone(), operation.as_str());
            RollbackError::Kernel(KernelFault::Busy { plugin, operation })
        }
        // Only images are quarantined, and none is named.
        ClaimRefusal::Quarantined { .. } => not_loaded(),
    })?;
    let previous =
        claimed.previous.ok_or_else(|| RollbackError::NoPrevious { plugin: plugin.clone() })?;
    Ok((Member { slot, claim: claimed.claim }, Arc::clone(&previous.manifest)))
}

async fn back(
    member: &Member,
    actor: &str,
    requested: Instant,
) -> Result<ReloadReceipt, RollbackError> {
    let (claim, actor) = (Some(Arc::clone(&member.claim)), actor.to_owned());
    let asked = member.slot.mailbox().ask(ROLLBACK_DEADLINE, |reply| {
        PluginMsg::Rollback(RollbackRequest { actor, requested, claim, reply })
    });
    asked.await?
}

/// What the set would go back to does not fit together.
fn refused(error: LoadError) -> RollbackError {
    RollbackError::Dependency { what: error.to_string() }
}
