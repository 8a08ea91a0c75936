//! How long a body may pause, and how slowly it may come.

use std::time::Duration;

use super::error::BodyError;

/// What is expected of a body. Only the time in which it is waited for counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyPace {
    /// How long it may pause.
    pub stall: Duration,
    /// What it brings at least, each second; told by what it brought in as long as it may pause. 0: anything will do.
    pub least_bytes_per_sec: u64,
}

/// What is left of the patience with one body.
pub(super) struct Patience {
    pace: BodyPace,
    /// For the next bytes.
    idle: Duration,
    /// For enough bytes, and how many have come.
    slow: Duration,
    came: u64,
}

impl Patience {
    pub(super) fn new(pace: BodyPace) -> Self {
        Self {
            pace,
            idle: pace.stall,
            slow: pace.stall,
            came: 0,
        }
    }

    /// How long it may be waited for the next bytes.
    pub(super) fn left(&self) -> Duration {
        self.idle
    }

    /// It was waited so long, in which so many bytes came.
    pub(super) fn waited(&mut self, time: Duration, bytes: usize) -> Result<(), BodyError> {
        self.slow = self.slow.saturating_sub(time);
        if bytes == 0 {
            self.idle = self.idle.saturating_sub(time);
            return if self.idle.is_zero() {
                Err(BodyError::Stalled(self.pace.stall))
            } else {
                Ok(())
            };
        }
        self.idle = self.pace.stall;
        self.came += bytes as u64;
        if self.slow.is_zero() {
            let least = self.pace.least_bytes_per_sec;
            if u128::from(self.came) * 1000 < u128::from(least) * self.pace.stall.as_millis() {
                return Err(BodyError::Slow(least));
            }
            self.slow = self.pace.stall;
            self.came = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn patience(least_bytes_per_sec: u64) -> Patience {
        Patience::new(BodyPace {
            stall: Duration::from_mins(1),
            least_bytes_per_sec,
        })
    }

    /// After how many seconds a body is given up that brings so many bytes in each.
    fn given_up(mut patience: Patience, bytes: impl Fn(u64) -> usize) -> Option<(u64, BodyError)> {
        (1..1000).find_map(|second| {
            let error = patience.waited(SECOND, bytes(second)).err()?;
            Some((second, error))
        })
    }

    #[test]
    fn a_body_that_pauses_is_given_up() {
        let paused = given_up(patience(0), |second| usize::from(second <= 100));
        assert!(
            matches!(paused, Some((160, BodyError::Stalled(_)))),
            "{paused:?}"
        );
        assert!(given_up(patience(0), |second| usize::from(second % 60 == 0)).is_none());
    }

    #[test]
    fn a_body_that_trickles_is_given_up() {
        let trickles = given_up(patience(100), |_| 99);
        assert!(
            matches!(trickles, Some((60, BodyError::Slow(100)))),
            "{trickles:?}"
        );
        assert!(given_up(patience(100), |_| 100).is_none());
        let at_last = given_up(patience(100), |second| if second <= 60 { 1000 } else { 1 });
        assert!(
            matches!(at_last, Some((120, BodyError::Slow(100)))),
            "{at_last:?}"
        );
    }

    #[test]
    fn what_comes_in_bursts_is_waited_for() {
        assert!(
            given_up(patience(100), |second| if second % 50 == 0 {
                10_000
            } else {
                0
            })
            .is_none()
        );
    }
}
