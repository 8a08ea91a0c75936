//! How long the calls of a store take.
//!
//! Each call goes into `jumar_store_call_duration_seconds{call,outcome}`. A call that nobody waited for any more counts as
//! `dropped`. Each is between two failpoints, too.

use std::time::Instant;

use super::call::Call;
use super::hooked::Hook;
use super::{Result, StoreError};
use crate::failpoints;

/// Times each call.
#[derive(Debug, Clone, Copy)]
pub struct Measured;

impl Hook for Measured {
    async fn around<T: Send>(
        &self,
        call: Call,
        run: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let mut timer = Timer {
            call,
            outcome: "dropped",
            start: Instant::now(),
        };
        failpoints::reached();
        let result = run.await;
        failpoints::reached();
        timer.outcome = match &result {
            Ok(_) => "ok",
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(StoreError::Full(_)) => "full",
            Err(StoreError::NotFound) => "not_found",
            Err(StoreError::Taken) => "taken",
            Err(StoreError::Changed(_)) => "changed",
            Err(StoreError::Refused(_)) => "refused",
        };
        result
    }
}

/// Records when it goes, so that a call whose future is dropped is counted too.
struct Timer {
    call: Call,
    outcome: &'static str,
    start: Instant,
}

impl Drop for Timer {
    fn drop(&mut self) {
        metrics::histogram!(
            "jumar_store_call_duration_seconds",
            "call" => self.call.name(),
            "outcome" => self.outcome,
        )
        .record(self.start.elapsed());
    }
}
