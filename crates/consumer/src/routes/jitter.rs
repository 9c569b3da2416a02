//! Random times, so that clients which were cut off together do not come back together.

use std::{
    hash::{BuildHasher as _, RandomState},
    ops::Range,
    time::Duration,
};

/// A random time of this range, evenly distributed.
pub(super) fn jittered(range: Range<Duration>) -> Duration {
    let part = f64::from(random_number()) / f64::from(u32::MAX);
    range.start + range.end.saturating_sub(range.start).mul_f64(part)
}

/// A random number below `end`, which must not be 0.
pub(super) fn random_below(end: usize) -> usize {
    usize::try_from(random_number()).unwrap_or(0) % end
}

fn random_number() -> u32 {
    // The keys of the standard library's hashes are random, and differ each time.
    u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_within_their_range_and_spread_over_it() {
        let range = Duration::from_millis(500)..Duration::from_millis(1500);
        let times: Vec<_> = (0..1000).map(|_| jittered(range.clone())).collect();
        assert!(times.iter().all(|time| (range.start..=range.end).contains(time)));
        for tenth in 0..10 {
            let from = range.start + Duration::from_millis(100) * tenth;
            let to = from + Duration::from_millis(100);
            let count = times.iter().filter(|time| (from..to).contains(time)).count();
            assert!((50..=160).contains(&count), "{count} of 1000 from {from:?}");
        }
        assert_eq!(jittered(Duration::ZERO..Duration::ZERO), Duration::ZERO);
    }
}
