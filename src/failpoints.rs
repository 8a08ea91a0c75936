//! Where the process can be made to die, and what a power cut takes with it: for the crash tests.
//!
//! A failpoint stands before and behind each system call, transaction and call of a store that changes what outlives the
//! process. Only a build with the feature `failpoints` has them; in any other they do nothing.
//!
//! | variable | what happens |
//! |---|---|
//! | `JUMAR_FAILPOINT=N` | at the N-th failpoint that it reaches, counted from 1 over all its threads, the process kills itself with `SIGKILL` |
//! | `JUMAR_FAILPOINT_POWER_CUT=1` | before it dies so, it takes back what was not synced, as a power cut may |

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(not(feature = "failpoints"))]
mod disarmed;

#[cfg(feature = "failpoints")]
use armed as kind;
#[cfg(not(feature = "failpoints"))]
use disarmed as kind;

pub use kind::{commit, making, reached, removing, sync, sync_folder, writing};
