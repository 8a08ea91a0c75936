//! The scheduler of the jobs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::engine::Engine;

/// How often completions that nobody works on are looked for.
const RECOVER_EVERY: Duration = Duration::from_secs(5);

/// The jobs while they run. Dropping it does not end them; [`stop`](Self::stop) does.
pub struct Jobs {
    scheduler: JobScheduler,
    recover: JoinHandle<()>,
}

/// Whether a cron expression (with seconds, in UTC) can be used, and if not, why.
pub fn check_schedule(schedule: &str) -> Result<(), String> {
    // The scheduler also takes plain English; an expression that is meant as cron and mistyped has to be refused instead.
    if !matches!(schedule.split_whitespace().count(), 6 | 7) {
        return Err(format!(
            "{schedule:?} has to have six fields: second, minute, hour, day, month, weekday"
        ));
    }
    Job::new(schedule, |_, _| {})
        .map(|_| ())
        .map_err(|error| format!("{schedule:?}: {error}"))
}

impl Jobs {
    /// Starts pruning by `schedule`, and recovering at once and then every few seconds.
    pub async fn start(engine: Engine, schedule: &str) -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        let running = Arc::new(Mutex::new(()));
        let pruning = engine.clone();
        let job = Job::new_async(schedule, move |_, _| {
            let engine = pruning.clone();
            let running = Arc::clone(&running);
            Box::pin(async move {
                let Ok(_alone) = running.try_lock() else {
                    tracing::info!("pruning is still at the last round; this one is left out");
                    return;
                };
                prune(&engine).await;
            })
        })?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        Ok(Self {
            scheduler,
            recover: tokio::spawn(recover(engine)),
        })
    }

    /// Starts no further rounds. A round that is running is cut; each of its steps can be repeated.
    pub async fn stop(mut self) {
        self.recover.abort();
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::warn!(%error, "the scheduler did not stop");
        }
    }
}

async fn prune(engine: &Engine) {
    match engine.prune(false).await {
        Ok(report) => {
            tracing::info!(
                expired = report.expired,
                purged = report.purged,
                swept = report.swept,
                multipart_aborted = report.multipart_aborted,
                files_removed = report.files_removed,
                foreign = report.foreign,
                failed = report.failed,
                "pruned"
            );
        }
        Err(error) => tracing::error!(%error, "pruning failed; the next round tries again"),
    }
}

async fn recover(engine: Engine) {
    let mut ticks = tokio::time::interval(RECOVER_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut at_start = true;
    loop {
        ticks.tick().await;
        if let Err(error) = engine.recover(at_start).await {
            tracing::warn!(%error, "recovering failed; the next round tries again");
        }
        at_start = false;
        match engine.open_uploads().await {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a gauge is a float, and no one counts 2^52 uploads"
            )]
            Ok(open) => metrics::gauge!("jumar_open_uploads").set(open as f64),
            Err(error) => tracing::debug!(%error, "open uploads could not be counted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_checked() {
        for good in ["0 0 * * * *", "*/5 * * * * *", "0 30 3 * * Sun"] {
            assert_eq!(check_schedule(good), Ok(()), "{good}");
        }
        for bad in ["", "0 * * * *", "61 0 * * * *", "every hour", "a b c d e f"] {
            assert!(check_schedule(bad).is_err(), "{bad}");
        }
    }
}
