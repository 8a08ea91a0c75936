//! Cleaning up after those who never come back.
//!
//! Works in small batches, goes on past what fails, claims before it deletes, repeats what a late call could undo, and touches only what the catalog
//! recorded. Safe beside running servers: inside the server by cron, outside by `jumar prune`, the same code.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::create::count;
use super::{EngineError, Inner, PruneReport, Result};
use crate::catalog::{IntentKind, Leftover, Owner};
use crate::model::{StoreKey, Timestamp, UploadId};
use crate::store::{FoundMultipart, Parts, Shape};

const BATCH: u32 = 500;
/// How many ended uploads are swept at once: each costs calls to the store.
const SWEEPS: usize = 16;
/// The wall clock may be off from the monotonic one by this much before it counts as a jump.
const JUMP: Duration = Duration::from_mins(5);
/// How many jobs of one kind a round looks at: the rest waits for the next.
const MOST: u64 = 1_000_000;

/// Notices jumps of the wall clock.
pub(super) struct JumpGuard(Mutex<(Timestamp, Instant)>);

impl JumpGuard {
    pub(super) fn new(now: Timestamp) -> Self {
        Self(Mutex::new((now, Instant::now())))
    }

    /// Whether the wall clock has jumped since the last call that did not just look.
    fn jumped(&self, now: Timestamp, just_look: bool) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, monotonic) = *seen;
        if !just_look {
            *seen = (now, Instant::now());
        }
        let passed = monotonic.elapsed();
        let expected = wall.after(passed);
        now.since(expected).max(expected.since(now)) > JUMP
    }
}

impl Inner {
    pub(super) async fn prune(&self, dry_run: bool) -> Result<PruneReport> {
        let now = self.clock.now();
        let mut report = PruneReport::default();
        if !dry_run {
            let spool = std::sync::Arc::clone(&self.spool);
            if let Err(error) = super::settle::blocking(move || spool.keep_reserve()).await {
                tracing::warn!(%error, "the reserve file could not be kept");
            }
        }
        if self.jumps.jumped(now, dry_run) {
            tracing::warn!("the wall clock has jumped; nothing is expired this time");
        } else {
            let done = self.expire(now, dry_run, &mut report).await;
            report.go_on(done, "expiring")?;
            let done = self.discard_parts(now, dry_run, &mut report).await;
            report.go_on(done, "discarding parts")?;
        }
        let done = self.sweep_leftovers(now, dry_run, &mut report).await;
        report.go_on(done, "sweeping")?;
        let done = self.sweep_files(dry_run, &mut report).await;
        report.go_on(done, "sweeping files")?;
        if let Shape::Parts(parts) = self.store.shape() {
            let done = self.sweep_multipart(parts, now, dry_run, &mut report).await;
            report.go_on(done, "sweeping multipart uploads")?;
            if !dry_run {
                let before = now.before(self.settings.orphan_grace);
                match parts.remove_probes(before).await {
                    Ok(aborted) => report.multipart_aborted += aborted,
                    Err(error) => {
                        report.failed += 1;
                        tracing::warn!(%error, "what finding out about the store has left could not be removed this time");
                    }
                }
            }
        }
        let done = self.purge(now, dry_run, &mut report).await;
        report.go_on(done, "purging")?;
        report.count();
        if !dry_run {
            let told = serde_json::to_string(&report);
            let told = told.map_err(|error| EngineError::Internal(error.into()))?;
            self.catalog.record_prune(self.clock.now(), told).await?;
        }
        Ok(report)
    }

    async fn expire(&self, now: Timestamp, dry_run: bool, report: &mut PruneReport) -> Result<()> {
        let mut after = None;
        let mut seen = 0;
        while seen < MOST {
            let page = self.catalog.expired(now, after, BATCH).await?;
            let Some(last) = page.last() else { break };
            // Whatever becomes of these: the next page begins behind them.
            after = Some(*last);
            seen += page.len() as u64;
            if dry_run {
                report.expired += page.len() as u64;
                continue;
            }
            let mut outcomes = futures_util::stream::iter(page)
                .map(|due| async move { (due.id, self.expire_one(due.id, now).await) })
                .buffer_unordered(BATCH as usize);
            while let Some((id, outcome)) = outcomes.next().await {
                match outcome {
                    Ok(expired) => report.expired += u64::from(expired),
                    Err(error) => report.fail(error, |error| {
                        tracing::warn!(upload = %id, %error, "an upload could not be expired this time");
                    })?,
                }
            }
        }
        Ok(())
    }

    /// Whether this call expired it.
    async fn expire_one(&self, id: UploadId, now: Timestamp) -> Result<bool> {
        // A writer's next commit moves the expiry; it is not cut off for being slow.
        let live = self.registry.get(id).await;
        if live.is_some_and(|live| !live.state().writers.is_empty()) {
            return Ok(false);
        }
        let Some((protocol, role)) = self.catalog.expire(id, now).await? else {
            return Ok(false);
        };
        if let Some(live) = self.registry.get(id).await {
            self.registry.remove(&live);
        }
        count(protocol, role, "expired");
        Ok(true)
    }

    /// Lets partial uploads go that are complete and have expired, or were put together. Their clients may still ask for a
    /// while after that.
    async fn discard_parts(
        &self,
        now: Timestamp,
        dry_run: bool,
        report: &mut PruneReport,
    ) -> Result<()> {
        let before = now.before(self.settings.orphan_grace);
        let mut after = None;
        loop {
            let page = self.catalog.spent_parts(before, after, BATCH).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            if dry_run {
                report.expired += page.len() as u64;
                continue;
            }
            let mut outcomes = futures_util::stream::iter(page)
                .map(|due| async move {
                    let discarded = self.catalog.discard_part(due.id, before, now).await;
                    (due.id, discarded)
                })
                .buffer_unordered(BATCH as usize);
            while let Some((id, outcome)) = outcomes.next().await {
                match outcome {
                    Ok(discarded) => report.expired += u64::from(discarded),
                    Err(error) => report.fail(error.into(), |error| {
                        tracing::warn!(upload = %id, %error, "a partial upload could not be discarded this time");
                    })?,
                }
            }
        }
    }

    /// Removes what ended uploads announced. The announcement is dropped once that was done so late that no call from
    /// before the end can still land.
    async fn sweep_leftovers(
        &self,
        now: Timestamp,
        dry_run: bool,
        report: &mut PruneReport,
    ) -> Result<()> {
        let mut after: Option<UploadId> = None;
        loop {
            let page = self.catalog.leftovers(after, BATCH).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            if dry_run {
                report.swept += page.len() as u64;
                continue;
            }
            let mut sweeps = futures_util::stream::iter(page)
                .map(|leftover| async move { (leftover.id, self.sweep_one(leftover, now).await) })
                .buffer_unordered(SWEEPS);
            while let Some((id, outcome)) = sweeps.next().await {
                match outcome {
                    Ok(aborted) => {
                        report.swept += 1;
                        report.multipart_aborted += aborted;
                    }
                    Err(error) => {
                        report.failed += 1;
                        tracing::warn!(upload = %id, %error, "what an ended upload left could not be removed this time");
                    }
                }
            }
        }
        Ok(())
    }

    async fn sweep_one(&self, leftover: Leftover, now: Timestamp) -> Result<u64> {
        let Leftover {
            id,
            completed,
            ended_at,
        } = leftover;
        let intents = self.catalog.intents(id).await?;
        let aborted = self.sweep_intents(&intents, completed).await?;
        if now >= ended_at.after(self.settings.orphan_grace) {
            self.catalog
                .settle(id, vec![IntentKind::Multipart, IntentKind::Object])
                .await?;
        }
        Ok(aborted)
    }

    /// Removes files of ended uploads. What the catalog does not know is not ours to judge.
    async fn sweep_files(&self, dry_run: bool, report: &mut PruneReport) -> Result<()> {
        let mut ids = self.spool.uploads();
        if let Shape::InPlace(files) = self.store.shape() {
            match files.staged().await {
                Ok(staged) => ids.extend(staged),
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(%error, "what is staged could not be listed this time");
                }
            }
        }
        ids.sort_unstable();
        ids.dedup();
        for batch in ids.chunks(BATCH as usize) {
            let known = self.catalog.known_among(batch.to_vec()).await?;
            report.foreign += (batch.len() - known.len()) as u64;
            for upload in known.into_iter().filter(|upload| upload.ended) {
                if dry_run {
                    report.files_removed += 1;
                    continue;
                }
                match self.remove_files(upload.id).await {
                    Ok(files) => report.files_removed += files.max(1),
                    Err(error) => {
                        report.failed += 1;
                        tracing::warn!(upload = %upload.id, %error, "a file of an ended upload could not be removed this time");
                    }
                }
            }
        }
        Ok(())
    }

    /// Aborts multipart uploads under keys of ours that no upload goes on with, and counts the ones that are not ours.
    async fn sweep_multipart(
        &self,
        parts: &dyn Parts,
        now: Timestamp,
        dry_run: bool,
        report: &mut PruneReport,
    ) -> Result<()> {
        let mut after: Option<FoundMultipart> = None;
        loop {
            let page = match parts.multipart_uploads(after.as_ref(), BATCH).await {
                Ok(page) => page,
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(%error, "the store's multipart uploads could not be listed this time");
                    return Ok(());
                }
            };
            let Some(last) = page.last().cloned() else {
                return Ok(());
            };
            let keys: Vec<StoreKey> = page.iter().map(|found| found.key.clone()).collect();
            let owners: HashMap<StoreKey, Owner> = self
                .catalog
                .owners(keys)
                .await?
                .into_iter()
                .map(|owner| (owner.key.clone(), owner))
                .collect();
            for found in &page {
                let Some(owner) = owners.get(&found.key) else {
                    report.foreign += 1;
                    continue;
                };
                if !self.is_orphan(found, owner, now) {
                    continue;
                }
                if dry_run {
                    report.multipart_aborted += 1;
                    continue;
                }
                match parts.abort(&found.key, &found.id).await {
                    Ok(()) => report.multipart_aborted += 1,
                    Err(error) => {
                        report.failed += 1;
                        tracing::warn!(key = %found.key, %error, "an orphaned multipart upload could not be aborted this time");
                    }
                }
            }
            if page.len() < BATCH as usize {
                return Ok(());
            }
            after = Some(last);
        }
    }

    fn is_orphan(&self, found: &FoundMultipart, owner: &Owner, now: Timestamp) -> bool {
        if owner.at_address && !owner.upload.ended {
            // It may be the copy that is on its way.
            return false;
        }
        let superseded = owner.upload.ended || owner.store_upload_id.as_ref() != Some(&found.id);
        let grace = self.settings.orphan_grace;
        match found.initiated {
            Some(at) => superseded && now >= at.after(grace),
            // It may have been begun just now, and not be named yet.
            None => owner.upload.ended,
        }
    }

    async fn purge(&self, now: Timestamp, dry_run: bool, report: &mut PruneReport) -> Result<()> {
        let before = now.before(self.settings.retention);
        if dry_run {
            report.purged = self.catalog.count_ended(before, now).await?;
            return Ok(());
        }
        let ended = self.purge_ended(before, now, report).await;
        report.go_on(ended, "purging uploads")?;
        while self.catalog.purge_records(now, before, BATCH).await? > 0 {}
        Ok(())
    }

    async fn purge_ended(
        &self,
        before: Timestamp,
        now: Timestamp,
        report: &mut PruneReport,
    ) -> Result<()> {
        while report.purged < MOST {
            let purged = self.catalog.purge_ended(before, now, BATCH).await?;
            report.purged += purged;
            if purged == 0 {
                break;
            }
        }
        Ok(())
    }
}

impl PruneReport {
    /// Counts and tells a failure that stops nothing. A catalog that cannot be used now does: then all would fail.
    fn fail(&mut self, error: EngineError, tell: impl FnOnce(EngineError)) -> Result<()> {
        if matches!(error, EngineError::Unavailable { .. }) {
            return Err(error);
        }
        self.failed += 1;
        tell(error);
        Ok(())
    }

    /// One kind of work that breaks off does not keep the next from being done.
    fn go_on(&mut self, done: Result<()>, work: &'static str) -> Result<()> {
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.fail(error, |error| {
                tracing::error!(%error, work, "a part of pruning broke off; the next round tries again");
            }),
        }
    }

    fn count(&self) {
        let kinds = [
            ("expired", self.expired),
            ("purged", self.purged),
            ("swept", self.swept),
            ("multipart", self.multipart_aborted),
            ("file", self.files_removed),
        ];
        for (kind, count) in kinds {
            metrics::counter!("jumar_pruned_total", "kind" => kind).increment(count);
        }
    }
}
