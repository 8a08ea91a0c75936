//! Signed tokens that were verified a moment ago, so that a signature is not computed again for each chunk.
//!
//! Whether such a token is still good is looked at each time; only who brings it is remembered.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::claims::Validity;
use crate::model::Caller;

/// The SHA-256 of a token: of the token itself, nothing is kept.
pub(super) type Print = [u8; 32];

pub(super) fn print_of(token: &str) -> Print {
    Sha256::digest(token).into()
}

/// What a token came to.
pub(super) struct Known {
    pub(super) caller: Caller,
    pub(super) validity: Validity,
    /// Which generation of keys there was when it was verified.
    pub(super) generation: u64,
}

/// At most so many tokens, those that were not used for longest forgotten first.
pub(super) struct Verified {
    half: usize,
    halves: Mutex<Halves>,
}

/// What was used lately, and what was before that. When the one is full it takes the other's place.
#[derive(Default)]
struct Halves {
    recent: HashMap<Print, Arc<Known>>,
    older: HashMap<Print, Arc<Known>>,
}

impl Verified {
    pub(super) fn new(at_most: usize) -> Self {
        Self {
            half: at_most.div_ceil(2),
            halves: Mutex::default(),
        }
    }

    pub(super) fn get(&self, print: &Print) -> Option<Arc<Known>> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = halves.recent.get(print) {
            return Some(Arc::clone(known));
        }
        let known = halves.older.remove(print)?;
        self.put(&mut halves, *print, Arc::clone(&known));
        Some(known)
    }

    pub(super) fn insert(&self, print: Print, known: Arc<Known>) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&mut halves, print, known);
    }

    fn put(&self, halves: &mut Halves, print: Print, known: Arc<Known>) {
        if halves.recent.len() >= self.half {
            halves.older = mem::take(&mut halves.recent);
        }
        halves.recent.insert(print, known);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::claims::Claims;
    use super::*;

    fn known() -> Arc<Known> {
        let claims = Claims([("exp".to_owned(), json!(1))].into_iter().collect());
        Arc::new(Known {
            caller: Caller::anonymous(),
            validity: claims.validity(Duration::ZERO).expect("a time"),
            generation: 0,
        })
    }

    #[test]
    fn bounded_and_what_is_used_stays() {
        let verified = Verified::new(8);
        let used = print_of("used");
        verified.insert(used, known());
        for n in 0..100 {
            verified.insert(print_of(&n.to_string()), known());
            assert!(verified.get(&used).is_some(), "{n}");
            let halves = verified.halves.lock().expect("not poisoned");
            assert!(halves.recent.len() + halves.older.len() <= 8);
        }
        assert!(verified.get(&print_of("0")).is_none());
        assert!(verified.get(&print_of("99")).is_some());
    }
}
