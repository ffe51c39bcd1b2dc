//! What may be kept of replaced versions: in-process images are never unmapped, so somebody has to count.

use themis_messages::event::LifecycleEvent;
use themis_messages::ids::{Digest, PluginName};
use themis_messages::lifecycle::LoadError;
use themis_messages::limits::{BUDGET_GENERATIONS_MAX, BUDGET_IMAGE_BYTES_MAX};

use crate::environment::Environment;
use crate::slot::Slot;

/// The generation budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetRules {
    /// Generations of one plugin that may be initialised at once.
    pub generations: u64,
    /// Memory of all images, in bytes.
    pub image_bytes: u64,
    /// What happens when either is spent.
    pub when_spent: WhenSpent,
}

impl Default for BudgetRules {
    fn default() -> Self {
        Self {
            generations: BUDGET_GENERATIONS_MAX,
            image_bytes: BUDGET_IMAGE_BYTES_MAX,
            when_spent: WhenSpent::Refuse,
        }
    }
}

/// What happens to a load for which nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenSpent {
    /// It is refused.
    Refuse,
    /// It is told, logged and counted, and goes on.
    Warn,
}

/// Checks that there is room for one more generation, and for its image if that is not mapped yet.
///
/// # Errors
/// [`LoadError::BudgetSpent`].
pub(super) fn check(
    environment: &Environment,
    slot: &Slot,
    digest: &Digest,
    image_bytes: u64,
) -> Result<(), LoadError> {
    let rules = environment.settings.budget;
    let (ledger, plugin) = (slot.ledger(), slot.name());
    let initialised = ledger.initialised();
    if initialised >= rules.generations {
        let what = "generations are initialised";
        spent(environment, plugin, what, initialised, rules.generations)?;
    }
    if ledger.image_bytes(digest).is_some() {
        return Ok(());
    }
    let slots = environment.directory.slots();
    let used: u64 = slots.iter().map(|slot| slot.ledger().all_image_bytes()).sum();
    if used.saturating_add(image_bytes) > rules.image_bytes {
        spent(environment, plugin, "bytes of images are mapped", used, rules.image_bytes)?;
    }
    Ok(())
}

fn spent(
    environment: &Environment,
    plugin: &PluginName,
    what: &'static str,
    used: u64,
    max: u64,
) -> Result<(), LoadError> {
    let error = LoadError::BudgetSpent { plugin: plugin.clone(), what, used, max };
    metrics::counter!("themis_budget_spent_total", "plugin" => plugin.to_string()).increment(1);
    match environment.settings.budget.when_spent {
        WhenSpent::Refuse => Err(error),
        WhenSpent::Warn => {
            tracing::warn!(%plugin, used, max, "the generation budget is spent: {what}");
            let (plugin, what) = (plugin.clone(), format!("{used} {what}, the limit is {max}"));
            environment.events.emit(LifecycleEvent::BudgetExceeded { plugin, what });
            Ok(())
        }
    }
}
