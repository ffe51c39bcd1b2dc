//! The tables of `themis.toml` about versions that turn out bad: probation, health, state, the generation budget.

use std::time::Duration;

use serde::Deserialize;
use themis_actors::reload::budget::{BudgetRules, WhenSpent};
use themis_messages::limits::{HOLD_LIMIT_MAX, PROBATION_WINDOW_MAX};
use themis_messages::probation::Rules;
use toml::Spanned;

use super::Config;
use super::error::ConfigError;
use super::source::Source;

/// A day: nobody who wants to know waits longer.
const HEALTH_PERIOD_MAX: Duration = Duration::from_secs(86_400);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ProbationToml {
    window_ms: Option<Spanned<u64>>,
    errors_min: Option<Spanned<u64>>,
    error_percent: Option<Spanned<u64>>,
    latency_factor: Option<Spanned<u64>>,
    latency_floor_ms: Option<Spanned<u64>>,
    samples_min: Option<Spanned<u64>>,
    stall_ms: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct WatchdogToml {
    health_period_ms: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct StateToml {
    hold_ms: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct BudgetToml {
    generations: Option<Spanned<u64>>,
    image_bytes: Option<Spanned<u64>>,
    when_spent: Option<WhenSpentToml>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum WhenSpentToml {
    Refuse,
    Warn,
}

/// Lays the tables over what the configuration has.
pub(super) fn read(
    source: &Source<'_>,
    config: &mut Config,
    (probation, watchdog, state, budget): &(ProbationToml, WatchdogToml, StateToml, BudgetToml),
) -> Result<(), ConfigError> {
    config.probation = rules(source, probation, config.probation)?;
    if let Some(period) =
        number(source, &watchdog.health_period_ms, (0, millis(HEALTH_PERIOD_MAX)))?
    {
        config.health_period = Duration::from_millis(period);
    }
    if let Some(hold) = number(source, &state.hold_ms, (1, millis(HOLD_LIMIT_MAX)))? {
        config.hold_limit = Duration::from_millis(hold);
    }
    let BudgetRules { generations, image_bytes, when_spent } = config.budget;
    config.budget = BudgetRules {
        generations: number(source, &budget.generations, (2, u64::MAX))?.unwrap_or(generations),
        image_bytes: number(source, &budget.image_bytes, (1, u64::MAX))?.unwrap_or(image_bytes),
        when_spent: match budget.when_spent {
            Some(WhenSpentToml::Refuse) => WhenSpent::Refuse,
            Some(WhenSpentToml::Warn) => WhenSpent::Warn,
            None => when_spent,
        },
    };
    Ok(())
}

fn rules(source: &Source<'_>, file: &ProbationToml, rules: Rules) -> Result<Rules, ConfigError> {
    let some = (1, u64::MAX);
    let window = number(source, &file.window_ms, (0, millis(PROBATION_WINDOW_MAX)))?;
    let floor = number(source, &file.latency_floor_ms, (0, millis(PROBATION_WINDOW_MAX)))?;
    let stall = number(source, &file.stall_ms, (1, millis(PROBATION_WINDOW_MAX)))?;
    Ok(Rules {
        window: window.map_or(rules.window, Duration::from_millis),
        errors_min: number(source, &file.errors_min, some)?.unwrap_or(rules.errors_min),
        error_percent: number(source, &file.error_percent, (0, 100))?
            .unwrap_or(rules.error_percent),
        latency_factor: number(source, &file.latency_factor, some)?.unwrap_or(rules.latency_factor),
        latency_floor: floor.map_or(rules.latency_floor, Duration::from_millis),
        samples_min: number(source, &file.samples_min, some)?.unwrap_or(rules.samples_min),
        stall: stall.map_or(rules.stall, Duration::from_millis),
    })
}

/// A number within bounds, if there is one.
fn number(
    source: &Source<'_>,
    number: &Option<Spanned<u64>>,
    (min, max): (u64, u64),
) -> Result<Option<u64>, ConfigError> {
    let Some(number) = number else { return Ok(None) };
    let value = *number.get_ref();
    if (min..=max).contains(&value) {
        return Ok(Some(value));
    }
    let what = match max {
        u64::MAX => format!("want {min} or more, got {value}"),
        _ => format!("want {min} to {max}, got {value}"),
    };
    Err(source.invalid(number.span(), what))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
