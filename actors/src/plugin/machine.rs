//! Which generation of a plugin serves, which is warm, which may end: a pure machine.
//!
//! ```text
//!            install                 install, confirm
//! (new) ───────────────▶ current ───────────────▶ previous ──────────▶ retiring ──drained──▶ ended
//!                           ▲  ◀────rollback────▶    ▲      parked      ▲
//!                           └────────revert──────────┘                  └── unload
//! stuck: current ──▶ pinned (never ended: a thread is inside)
//! ```
//!
//! `parked` is the previous generation of an install that is not confirmed yet: a revert needs it again.

use std::collections::{BTreeMap, BTreeSet};

use themis_messages::ids::GenerationId;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A proven candidate takes over.
    Install(GenerationId),
    /// The last install is on record: what it replaced twice over may go.
    Confirm,
    /// The last install could not be recorded: back to what was.
    Revert,
    /// Back to the previous generation.
    Rollback,
    /// Nothing serves any more.
    Unload,
    /// A call of this generation does not end.
    Stuck(GenerationId),
    /// The last caller left a closed stint of this generation.
    Drained(GenerationId),
    /// Its shutdown hook is over, one way or the other.
    Ended(GenerationId),
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Swap the published pointer; the stint that was published closes.
    Publish(Option<GenerationId>),
    /// Run its shutdown hook: nobody is inside, nothing will need it.
    Shutdown(GenerationId),
    /// Drop it.
    Forget(GenerationId),
}

/// Why an event does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing serves.
    NotServing,
    /// There is no previous generation.
    NoPrevious,
}

/// The generations of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    current: Option<GenerationId>,
    previous: Option<GenerationId>,
    parked: Option<GenerationId>,
    pinned: BTreeSet<GenerationId>,
    retiring: BTreeSet<GenerationId>,
    /// Closed stints that still have callers inside.
    leased: BTreeMap<GenerationId, usize>,
}

impl Machine {
    /// A machine that finds `current` serving already: its actor was restarted.
    #[must_use]
    pub fn found(current: Option<GenerationId>) -> Self {
        Self { current, ..Self::default() }
    }

    /// What serves.
    #[must_use]
    pub fn current(&self) -> Option<GenerationId> {
        self.current
    }

    /// What a rollback would go back to.
    #[must_use]
    pub fn previous(&self) -> Option<GenerationId> {
        self.previous
    }

    /// Generations that are on their way out.
    #[must_use]
    pub fn retiring(&self) -> usize {
        self.retiring.len()
    }

    /// Generations replaced but still leased.
    #[must_use]
    pub fn draining(&self) -> usize {
        self.leased.len()
    }

    /// Applies one event.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn step(&mut self, event: Event) -> Result<Vec<Effect>, Refusal> {
        match event {
            Event::Install(candidate) => Ok(self.install(candidate)),
            Event::Confirm => Ok(self.retire(self.parked).into_iter().collect()),
            Event::Revert => self.revert(),
            Event::Rollback => self.rollback(),
            Event::Unload => self.unload(),
            Event::Stuck(generation) => Ok(self.stuck(generation)),
            Event::Drained(generation) => Ok(self.drained(generation)),
            Event::Ended(generation) => Ok(self.ended(generation)),
        }
    }

    fn install(&mut self, candidate: GenerationId) -> Vec<Effect> {
        let mut effects = Vec::from_iter(self.retire(self.parked));
        self.close_current();
        self.parked = self.previous;
        self.previous = self.current;
        self.current = Some(candidate);
        effects.push(Effect::Publish(self.current));
        effects
    }

    fn revert(&mut self) -> Result<Vec<Effect>, Refusal> {
        let failed = self.current.ok_or(Refusal::NotServing)?;
        self.close_current();
        self.current = self.previous;
        self.previous = self.parked.take();
        let mut effects = vec![Effect::Publish(self.current)];
        effects.extend(self.retire(Some(failed)));
        Ok(effects)
    }

    fn rollback(&mut self) -> Result<Vec<Effect>, Refusal> {
        let target = self.previous.ok_or(match self.current {
            Some(_) => Refusal::NoPrevious,
            None => Refusal::NotServing,
        })?;
        self.close_current();
        self.previous = self.current;
        self.current = Some(target);
        Ok(vec![Effect::Publish(self.current)])
    }

    fn unload(&mut self) -> Result<Vec<Effect>, Refusal> {
        let leaving = [self.current, self.previous, self.parked];
        if leaving.iter().all(Option::is_none) {
            return Err(Refusal::NotServing);
        }
        self.close_current();
        (self.current, self.previous) = (None, None);
        let mut effects = vec![Effect::Publish(None)];
        effects.extend(leaving.into_iter().filter_map(|generation| self.retire(generation)));
        Ok(effects)
    }

    /// A thread is inside for good: whatever its role was, it is never shut down or dropped.
    fn stuck(&mut self, generation: GenerationId) -> Vec<Effect> {
        let known = self.current == Some(generation)
            || self.previous == Some(generation)
            || self.parked == Some(generation)
            || self.retiring.contains(&generation);
        if !known {
            return Vec::new();
        }
        self.pinned.insert(generation);
        self.retiring.remove(&generation);
        for place in [&mut self.previous, &mut self.parked] {
            if *place == Some(generation) {
                *place = None;
            }
        }
        if self.current == Some(generation) {
            self.close_current();
            self.current = None;
            return vec![Effect::Publish(None)];
        }
        Vec::new()
    }

    fn drained(&mut self, generation: GenerationId) -> Vec<Effect> {
        if let Some(stints) = self.leased.get_mut(&generation) {
            *stints -= 1;
            if *stints == 0 {
                self.leased.remove(&generation);
            }
        }
        Vec::from_iter(self.shutdown_when_free(generation))
    }

    fn ended(&mut self, generation: GenerationId) -> Vec<Effect> {
        self.retiring.remove(&generation);
        vec![Effect::Forget(generation)]
    }

    /// The published stint is about to close: it counts as leased until told otherwise.
    fn close_current(&mut self) {
        if let Some(current) = self.current {
            *self.leased.entry(current).or_default() += 1;
        }
    }

    fn retire(&mut self, generation: Option<GenerationId>) -> Option<Effect> {
        let generation = generation?;
        if self.parked == Some(generation) {
            self.parked = None;
        }
        self.retiring.insert(generation);
        self.shutdown_when_free(generation)
    }

    fn shutdown_when_free(&self, generation: GenerationId) -> Option<Effect> {
        let free = self.retiring.contains(&generation) && !self.leased.contains_key(&generation);
        free.then_some(Effect::Shutdown(generation))
    }
}

#[cfg(test)]
mod tests;
