//! Room for one thing that threads hand each other without a lock, in one order with whatever else is sequentially consistent.
//!
//! A cell of a library would do, were its swaps ordered with other atomics: without that, giving something back needs a
//! fence, which is a tenth of a short call.

#![expect(unsafe_code, reason = "a box is owned by whoever swaps its address out")]

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Room for one, which is owned by whoever swaps it out.
pub(super) struct Slot<T> {
    /// From `Box::into_raw`, or null.
    at: AtomicPtr<T>,
    /// What it owns: it may be sent and shared as a box that is only ever moved.
    owns: PhantomData<Box<T>>,
}

// SAFETY: a `&Slot` gives out whole boxes, each to one thread, and never a `&T`.
unsafe impl<T: Send> Sync for Slot<T> {}
// SAFETY: the box goes with the slot.
unsafe impl<T: Send> Send for Slot<T> {}

impl<T> Slot<T> {
    pub(super) fn new(first: Box<T>) -> Self {
        Self { at: AtomicPtr::new(Box::into_raw(first)), owns: PhantomData }
    }

    /// Takes it out.
    pub(super) fn take(&self) -> Option<Box<T>> {
        self.swap(ptr::null_mut())
    }

    /// Puts one in, and hands out the one that was there.
    pub(super) fn put(&self, one: Box<T>) -> Option<Box<T>> {
        self.swap(Box::into_raw(one))
    }

    fn swap(&self, with: *mut T) -> Option<Box<T>> {
        let before = self.at.swap(with, Ordering::SeqCst);
        // SAFETY: what is in the slot came from `Box::into_raw`, and whoever swaps it out is the only one who has it.
        (!before.is_null()).then(|| unsafe { Box::from_raw(before) })
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}
