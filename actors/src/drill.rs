//! Faults on purpose, at a chosen step of an operation: how tests see what the death of an actor costs.
//!
//! Nothing here does anything unless a test has set it.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::reload::machine::Effect;

/// What becomes of the operation that reached a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Live,
    /// Its actor is killed.
    Die,
}

type Scene = Box<dyn FnMut(Effect) -> Fate + Send>;

/// A scene that is played at every step.
#[derive(Default)]
pub struct Drill {
    armed: AtomicBool,
    scene: Mutex<Option<Scene>>,
}

impl std::fmt::Debug for Drill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drill").field("armed", &self.armed).finish_non_exhaustive()
    }
}

impl Drill {
    /// Plays `scene` at every step from now on.
    pub fn play(&self, scene: impl FnMut(Effect) -> Fate + Send + 'static) {
        *self.scene.lock() = Some(Box::new(scene));
        self.armed.store(true, Ordering::SeqCst);
    }

    /// No more.
    pub fn end(&self) {
        self.armed.store(false, Ordering::SeqCst);
        *self.scene.lock() = None;
    }

    /// An operation is about to take this step.
    pub(crate) fn reached(&self, step: Effect) -> Fate {
        if !self.armed.load(Ordering::SeqCst) {
            return Fate::Live;
        }
        self.scene.lock().as_mut().map_or(Fate::Live, |scene| scene(step))
    }
}
