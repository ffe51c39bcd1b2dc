//! How many log lines a plugin may have per second: a token bucket without a clock of its own.

use std::time::Instant;

use themis_messages::limits::LOG_LINES_PER_SECOND;

/// So many at once, and as many each second.
#[derive(Debug)]
pub(crate) struct Bucket {
    lines: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn full(at: Instant) -> Self {
        Self { lines: f64::from(LOG_LINES_PER_SECOND), at }
    }

    /// Whether one more may be told.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let most = f64::from(LOG_LINES_PER_SECOND);
        let came = now.saturating_duration_since(self.at).as_secs_f64() * most;
        self.lines = (self.lines + came).min(most);
        self.at = now;
        let has = self.lines >= 1.0;
        if has {
            self.lines -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_fills_at_its_rate_and_no_further() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        let most = LOG_LINES_PER_SECOND as usize;
        assert_eq!((0..2 * most).filter(|_| bucket.take(start)).count(), most);
        let later = start + Duration::from_millis(100);
        assert_eq!((0..2 * most).filter(|_| bucket.take(later)).count(), most / 10);
        let much_later = start + Duration::from_secs(3_600);
        assert_eq!((0..2 * most).filter(|_| bucket.take(much_later)).count(), most);
    }
}
