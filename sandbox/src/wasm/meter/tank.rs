//! The host's side of metering: a budget of fuel that is handed to the guest slice by slice.
//!
//! The guest counts down a global of its own and asks for more when that is negative. The tank answers from what is
//! left of the budget. The size of a slice decides how often the guest asks (and so how soon a deadline is seen), and
//! nothing else: what was spent is what was granted less what the global still holds.

/// What a call may still spend, and what it was given so far.
#[derive(Debug, Clone)]
pub struct Tank {
    /// Units of the budget not yet granted.
    remaining: u64,
    /// Units granted to the guest.
    granted: u64,
    /// Units granted at a time, at least.
    slice: u64,
}

/// The budget of a call does not cover what the guest did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fuel exhausted after {spent} units; raise `fuel_per_call` or do less in one call")]
pub struct Exhausted {
    /// Units spent, those past the budget included.
    pub spent: u64,
}

impl Tank {
    /// Greatest budget and greatest slice, in units: sums of the two stay far from the ends of an `i64`.
    pub const UNITS_MAX: u64 = 1 << 61;

    /// A tank for one call with `budget` units, granted `slice` at a time; both are capped at [`Self::UNITS_MAX`].
    #[must_use]
    pub fn new(budget: u64, slice: u64) -> Self {
        Self {
            remaining: budget.min(Self::UNITS_MAX),
            granted: 0,
            slice: slice.clamp(1, Self::UNITS_MAX),
        }
    }

    /// As [`Self::new`], for a guest whose global still holds `held` units of an earlier call: they count as granted.
    /// `None` when that is more than the budget.
    #[must_use]
    pub fn holding(budget: u64, slice: u64, held: u64) -> Option<Self> {
        let mut tank = Self::new(budget, slice);
        tank.remaining = tank.remaining.checked_sub(held)?;
        tank.granted = held;
        Some(tank)
    }

    /// Answers the guest's request for fuel: the number of units to return from the import.
    ///
    /// `left` is the import's argument, what is left of the guest's slice, negative when more was spent than granted.
    ///
    /// # Errors
    /// [`Exhausted`] if the budget does not cover what was spent already: trap the guest.
    pub fn refill(&mut self, left: i64) -> Result<i64, Exhausted> {
        self.refill_from(left, u64::MAX)
    }

    /// As [`Self::refill`], of a store that several calls draw from and that holds `available` units.
    ///
    /// # Errors
    /// [`Exhausted`] if the budget or the store does not cover what was spent already.
    pub fn refill_from(&mut self, left: i64, available: u64) -> Result<i64, Exhausted> {
        let missing = left.min(0).unsigned_abs();
        let most = self.remaining.min(available);
        if missing > most {
            return Err(Exhausted { spent: self.granted.saturating_add(missing) });
        }
        let grant = missing.max(self.slice).min(most);
        self.remaining = self.remaining.saturating_sub(grant);
        self.granted = self.granted.saturating_add(grant);
        Ok(i64::try_from(grant).unwrap_or(i64::MAX))
    }

    /// Units granted so far.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.granted
    }

    /// Units spent so far, from the value of the guest's global.
    ///
    /// # Errors
    /// [`Exhausted`] if that is more than the budget: a guest is told so at its next check, and one that returned
    /// before its next check is told by this.
    pub fn spent(&self, global: i64) -> Result<u64, Exhausted> {
        let missing = global.min(0).unsigned_abs();
        let spent =
            self.granted.saturating_add(missing).saturating_sub(global.max(0).unsigned_abs());
        if missing > self.remaining { Err(Exhausted { spent }) } else { Ok(spent) }
    }
}
