//! Buckets of requests, one a key, in bounded memory.
//!
//! A bucket holds a burst, and is filled again at a steady rate (`governor`'s GCRA). A full one says nothing that a new one
//! would not, so that its place may be given away at any time. Where all places are taken, a newcomer looks at a few of them,
//! in turn, for a full bucket; where it finds none, it shares one bucket with all newcomers in the same situation. So the work
//! for a request is bounded, too, and nobody gets a fresh bucket by making others.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use indexmap::IndexMap;
use tokio::time::Instant;

/// How many places a newcomer looks at.
const LOOKS: usize = 8;

/// A steady rate, and how much may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_minute: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

/// Buckets of one rate.
pub struct Buckets<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, Places<K>, Uptime, StateInformationMiddleware>,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// For at most so many keys.
    #[must_use]
    pub fn new(rate: Rate, max_keys: usize) -> Self {
        let quota = Quota::per_minute(rate.per_minute).allow_burst(rate.burst);
        let places = Places(Mutex::new(Taken {
            buckets: IndexMap::new(),
            most: max_keys.max(1),
            hand: 0,
            shared: None,
        }));
        Self {
            limiter: RateLimiter::new(quota, places, Uptime(Instant::now())),
        }
    }

    /// Takes one out of a key's bucket: how many are left, or how long there will be none.
    pub fn take(&self, key: &K) -> Result<u32, Duration> {
        match self.limiter.check_key(key) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(until) => Err(until.wait_time_from(self.limiter.clock().now())),
        }
    }
}

/// Time since the limiter began, by the clock that tests can move.
#[derive(Debug, Clone)]
struct Uptime(Instant);

impl Clock for Uptime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// Where the buckets are kept.
struct Places<K>(Mutex<Taken<K>>);

struct Taken<K> {
    /// When each key's bucket is full again.
    buckets: IndexMap<K, Nanos>,
    most: usize,
    /// The place to look at next.
    hand: usize,
    /// The bucket of those who have found no place.
    shared: Option<Nanos>,
}

impl<K: Hash + Eq> Taken<K> {
    /// Makes a place for a newcomer, if one is found that `is_full`.
    fn make_room(&mut self, is_full: impl Fn(Nanos) -> bool) -> bool {
        for _ in 0..LOOKS {
            if self.buckets.len() < self.most {
                return true;
            }
            self.hand = (self.hand + 1) % self.buckets.len();
            if is_full(self.buckets[self.hand]) {
                self.buckets.swap_remove_index(self.hand);
            }
        }
        self.buckets.len() < self.most
    }
}

impl<K: Hash + Eq + Clone> StateStore for Places<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let after = |bucket| judge(bucket).ok().map(|(_, after)| after);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = taken.buckets.get(key).copied();
        let fresh = after(None);
        let at_home = known.is_some() || taken.make_room(|bucket| after(Some(bucket)) == fresh);
        let (outcome, bucket) = judge(if at_home { known } else { taken.shared })?;
        if at_home {
            taken.buckets.insert(key.clone(), bucket);
        } else {
            taken.shared = Some(bucket);
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
