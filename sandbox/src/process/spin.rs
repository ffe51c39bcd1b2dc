//! When to look for a reply again and again instead of sleeping: only while that pays, and only on cores to spare.
//!
//! A wake across cores costs tens of microseconds, looking costs none, but takes a core from somebody, and on a core that
//! the other side needs it only delays the reply. So a worker's callers look for as long as their replies have come that
//! quickly lately, and no more of them at once than there are pairs of cores.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The most rounds: some tens of microseconds, about what a wake costs.
const ROUNDS_MAX: u32 = 2_000;
/// Below this it is not worth beginning.
const ROUNDS_MIN: u32 = 64;
/// One in so many calls tries again whether looking pays.
const TRY_EVERY: u32 = 256;

/// Callers that look, in this process.
static LOOKING: AtomicU32 = AtomicU32::new(0);
/// Each needs a core, and so does what it waits for.
static PLACES: LazyLock<u32> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    u32::try_from(cores / 2).unwrap_or(u32::MAX)
});

/// How long callers of one worker look.
#[derive(Debug)]
pub(super) struct Spin {
    rounds: AtomicU32,
    calls: AtomicU32,
}

impl Default for Spin {
    fn default() -> Self {
        Self { rounds: AtomicU32::new(ROUNDS_MAX), calls: AtomicU32::new(0) }
    }
}

/// One wait; gives its place back when dropped.
pub(super) struct Looking<'a> {
    spin: &'a Spin,
    rounds: u32,
}

impl Spin {
    /// Takes a place, if there is one and looking pays.
    pub(super) fn begin(&self) -> Looking<'_> {
        let mut rounds = self.rounds.load(Ordering::Relaxed);
        if rounds < ROUNDS_MIN {
            let again = self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRY_EVERY);
            rounds = if again { ROUNDS_MAX } else { 0 };
        }
        if rounds > 0 && LOOKING.fetch_add(1, Ordering::Relaxed) >= *PLACES {
            LOOKING.fetch_sub(1, Ordering::Relaxed);
            rounds = 0;
        }
        Looking { spin: self, rounds }
    }
}

impl Looking<'_> {
    /// How often to look, for the other side as well.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Looks; whether it was met, at once or meanwhile.
    pub(super) fn run(&self, met: impl Fn() -> bool) -> bool {
        for _ in 0..self.rounds {
            if met() {
                self.learn(true);
                return true;
            }
            std::hint::spin_loop();
        }
        if self.rounds > 0 {
            self.learn(false);
        }
        met()
    }

    /// A success makes up for one failure: half of the time is a bad bargain.
    fn learn(&self, success: bool) {
        let rounds = self.spin.rounds.load(Ordering::Relaxed);
        let next = if success { ROUNDS_MAX.min(rounds * 2 + ROUNDS_MIN) } else { rounds / 2 };
        if next != rounds {
            self.spin.rounds.store(next, Ordering::Relaxed);
        }
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        if self.rounds > 0 {
            LOOKING.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_stops_looking_and_tries_again_now_and_then() {
        let spin = Spin::default();
        let mut looked = 0;
        for _ in 0..1_000 {
            let looking = spin.begin();
            looked += u32::from(looking.rounds() > 0);
            assert!(!looking.run(|| false));
        }
        if *PLACES == 0 {
            println!("skipped: there is one core, and nobody ever looks");
            return;
        }
        assert!((5..20).contains(&looked), "looked {looked} times of 1000");
        assert!(spin.begin().run(|| true) || spin.rounds.load(Ordering::Relaxed) < ROUNDS_MIN);
    }

    #[test]
    fn a_success_brings_it_back() {
        let spin = Spin { rounds: AtomicU32::new(ROUNDS_MIN), calls: AtomicU32::new(0) };
        for _ in 0..10 {
            spin.begin().run(|| true);
        }
        let rounds = spin.rounds.load(Ordering::Relaxed);
        assert!(rounds == ROUNDS_MAX || *PLACES == 0, "{rounds}");
    }

    #[test]
    fn no_more_look_at_once_than_there_are_places() {
        let (one, another) = (Spin::default(), Spin::default());
        let all: Vec<_> = (0..*PLACES).map(|_| one.begin()).collect();
        assert_eq!(another.begin().rounds(), 0);
        drop(all);
    }
}
