//! What runs by the clock: pruning by its cron expression, recovering completions every few seconds.
//!
//! Owns when things run, and that no job overlaps with itself. What they do is the engine's.

mod scheduler;

pub use scheduler::{Jobs, check_schedule};
