//! Instances that nobody is in: the one that came back last is taken without a lock, the others under one.
//!
//! ```text
//! take ─▶ the hot one ─none─▶ an idle one ─none─▶ room for another ─none─▶ wait for one that comes back, or give up
//! give ─▶ becomes the hot one; the one before becomes idle, or ends when enough are idle
//! ```
//!
//! A caller that dies inside has told before: what it was in is never given back, and [`Pool::forget`] makes room.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::slot::Slot;

/// A pool of at most `most`, of which `keeps` and the hot one stay when nobody wants them.
pub(super) struct Pool<T> {
    hot: Slot<T>,
    /// Callers that wait, or are about to.
    waiting: AtomicUsize,
    shelf: Mutex<Shelf<T>>,
    came_back: Condvar,
    most: usize,
    keeps: usize,
}

struct Shelf<T> {
    idle: Vec<Box<T>>,
    /// All there are, in use or not.
    live: usize,
    closed: bool,
}

/// What a caller gets.
pub(super) enum Taken<T> {
    /// One that was idle.
    One(Box<T>),
    /// Room for another one, which counts from now on.
    Room,
    /// All were in use for so long.
    Busy,
}

impl<T> Pool<T> {
    /// A pool of the one there is so far.
    pub(super) fn new(first: Box<T>, most: usize, keeps: usize) -> Self {
        Self {
            hot: Slot::new(first),
            waiting: AtomicUsize::new(0),
            shelf: Mutex::new(Shelf { idle: Vec::new(), live: 1, closed: false }),
            came_back: Condvar::new(),
            most,
            keeps,
        }
    }

    /// Takes one, waiting at most so long.
    pub(super) fn take(&self, limit: Duration) -> Taken<T> {
        match self.hot.take() {
            Some(one) => Taken::One(one),
            None => self.take_slowly(limit),
        }
    }

    fn take_slowly(&self, limit: Duration) -> Taken<T> {
        let until = Instant::now() + limit;
        let mut shelf = self.shelf.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // All in one order with `give`: either it sees somebody waiting, or we see what it gave.
        let taken = loop {
            if let Some(one) = self.hot.take().or_else(|| shelf.idle.pop()) {
                break Taken::One(one);
            }
            if shelf.live < self.most {
                shelf.live += 1;
                break Taken::Room;
            }
            if self.came_back.wait_until(&mut shelf, until).timed_out() {
                break Taken::Busy;
            }
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        taken
    }

    /// Gives one back, or one that was made for the room that was there.
    pub(super) fn give(&self, one: Box<T>) {
        if let Some(before) = self.hot.put(one) {
            self.shelve(before);
        }
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Under the lock, so that whoever has looked in vain is asleep by now.
            let _shelf = self.shelf.lock();
            self.came_back.notify_one();
        }
    }

    fn shelve(&self, one: Box<T>) {
        let mut shelf = self.shelf.lock();
        if shelf.closed || shelf.idle.len() >= self.keeps {
            shelf.live -= 1;
            drop(shelf);
            drop(one);
        } else {
            shelf.idle.push(one);
        }
    }

    /// One that was taken is gone.
    pub(super) fn forget(&self) {
        self.shelf.lock().live -= 1;
        self.came_back.notify_one();
    }

    /// Takes all that nobody is in, and keeps none from now on.
    pub(super) fn close(&self) -> Vec<Box<T>> {
        let mut shelf = self.shelf.lock();
        shelf.closed = true;
        let mut idle = std::mem::take(&mut shelf.idle);
        idle.extend(self.hot.take());
        shelf.live -= idle.len();
        idle
    }

    #[cfg(test)]
    fn live(&self) -> usize {
        self.shelf.lock().live
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn there_are_never_more_than_allowed() {
        let pool = Pool::new(Box::new(0), 3, 1);
        let Taken::One(first) = pool.take(SOON) else { panic!("the first is there") };
        assert!(matches!(pool.take(SOON), Taken::Room));
        assert!(matches!(pool.take(SOON), Taken::Room));
        assert!(matches!(pool.take(SOON), Taken::Busy));
        pool.forget();
        assert!(matches!(pool.take(SOON), Taken::Room));
        for one in [first, Box::new(1), Box::new(2)] {
            pool.give(one);
        }
        assert_eq!(pool.live(), 2, "the hot one and one more");
        assert_eq!(pool.close().len(), 2);
        assert_eq!(pool.live(), 0);
    }

    /// With one instance and many threads, whoever waits gets it as soon as it comes back.
    #[test]
    fn nobody_sleeps_through_what_comes_back() {
        let pool = Pool::new(Box::new(0_u64), 1, 1);
        let inside = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let Taken::One(mut one) = pool.take(LONG) else { panic!("it came back") };
                        assert!(!inside.swap(true, Ordering::SeqCst));
                        *one += 1;
                        inside.store(false, Ordering::SeqCst);
                        pool.give(one);
                    }
                });
            }
        });
        assert_eq!(*pool.close()[0], 40_000);
    }
}
