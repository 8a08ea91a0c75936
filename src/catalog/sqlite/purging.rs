//! Counting what is there and removing what has had its time.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::quota;
use super::rows::{number, read_id};
use super::tokens;
use crate::catalog::{Known, Open, Owner, Result};
use crate::model::upload::StoreUploadId;
use crate::model::{StoreKey, Timestamp, UploadId};

/// Ranges, parts and idempotency records go with their upload's row; objects and events stay.
pub(super) fn purge_ended(
    tx: &Connection,
    before: Timestamp,
    now: Timestamp,
    limit: u32,
) -> Result<u64> {
    let mut removed = 0;
    for (sql, moment) in [(PURGE_ENDED, before), (PURGE_RETAINED, now)] {
        removed += tx.prepare_cached(sql)?.execute(params![moment.0, limit])? as u64;
    }
    Ok(removed)
}

pub(super) fn count_ended(tx: &Connection, before: Timestamp, now: Timestamp) -> Result<u64> {
    Ok(count(tx, COUNT_ENDED, [before.0])? + count(tx, COUNT_RETAINED, [now.0])?)
}

/// What may go of the uploads whose time `$when` has come.
macro_rules! that_may_go {
    ($select:literal, $when:literal) => {
        concat!(
            "SELECT ",
            $select,
            " FROM upload_sessions s WHERE s.ended_at IS NOT NULL AND ",
            $when,
            " AND NOT (s.role = 'partial' AND s.state = 'completed')
              AND NOT EXISTS (SELECT 1 FROM intents i WHERE i.upload_id = s.id)"
        )
    };
}

pub(super) const PURGE_ENDED: &str = concat!(
    "DELETE FROM upload_sessions WHERE id IN (",
    that_may_go!("s.id", "s.retention_ms IS NULL AND s.ended_at < ?1"),
    " ORDER BY s.ended_at LIMIT ?2)"
);
pub(super) const COUNT_ENDED: &str = that_may_go!(
    "count(*) AS n",
    "s.retention_ms IS NULL AND s.ended_at < ?1"
);
pub(super) const PURGE_RETAINED: &str = concat!(
    "DELETE FROM upload_sessions WHERE id IN (",
    that_may_go!(
        "s.id",
        "s.retention_ms IS NOT NULL AND s.ended_at + s.retention_ms < ?1"
    ),
    " ORDER BY s.ended_at + s.retention_ms LIMIT ?2)"
);
pub(super) const COUNT_RETAINED: &str = that_may_go!(
    "count(*) AS n",
    "s.retention_ms IS NOT NULL AND s.ended_at + s.retention_ms < ?1"
);

pub(super) fn purge_records(
    tx: &Connection,
    now: Timestamp,
    events_before: Timestamp,
    limit: u32,
) -> Result<u64> {
    let forgotten = tx
        .prepare_cached(
            "DELETE FROM idempotency WHERE key_hash IN
                (SELECT key_hash FROM idempotency WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )?
        .execute(params![now.0, limit])? as u64;
    let left = u64::from(limit).saturating_sub(forgotten);
    let forgotten = forgotten + tokens::forget(tx, now, left)?;
    let told = tx
        .prepare_cached(
            "DELETE FROM events WHERE seq IN
                (SELECT seq FROM events WHERE at < ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute(params![
            events_before.0,
            u64::from(limit).saturating_sub(forgotten).cast_signed()
        ])? as u64;
    // What ended since may still have to be settled on the day that it began.
    let day = quota::day(events_before);
    let days = tx
        .prepare_cached(
            "DELETE FROM usage WHERE (kind, name, day) IN
                (SELECT kind, name, day FROM usage WHERE day >= 0 AND day < ?1 LIMIT ?2)",
        )?
        .execute(params![day, limit])? as u64;
    Ok(forgotten + told + days)
}

pub(super) fn record(tx: &Connection, at: Timestamp, report: &str) -> Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO last_prune (one, at, report) VALUES (1, ?1, ?2)")?
        .execute(params![at.0, report])?;
    Ok(())
}

pub(super) fn last(tx: &Connection) -> Result<Option<(Timestamp, String)>> {
    Ok(tx
        .prepare_cached("SELECT at, report FROM last_prune")?
        .query_row([], |row| Ok((Timestamp(row.get(0)?), row.get(1)?)))
        .optional()?)
}

pub(super) fn known_among(tx: &Connection, ids: &[UploadId]) -> Result<Vec<Known>> {
    let mut statement =
        tx.prepare_cached("SELECT ended_at IS NOT NULL FROM upload_sessions WHERE id = ?1")?;
    let mut known = Vec::new();
    for id in ids {
        // Not the whole upload: one that cannot be read may not hide the others.
        let ended = statement.query_row([id.as_bytes()], |row| row.get(0));
        if let Some(ended) = ended.optional()? {
            known.push(Known { id: *id, ended });
        }
    }
    Ok(known)
}

pub(super) fn owners(tx: &Connection, keys: &[StoreKey]) -> Result<Vec<Owner>> {
    let mut statement = tx.prepare_cached(
        "SELECT id, ended_at IS NOT NULL, store_upload_id FROM upload_sessions WHERE store_key = ?1",
    )?;
    let mut owners = Vec::new();
    for key in keys {
        let found = statement.query_and_then([key.as_str()], |row| -> Result<Owner> {
            let id = read_id(row, "id")?;
            let store_upload_id: Option<String> = row.get(2)?;
            Ok(Owner {
                key: key.clone(),
                upload: Known {
                    id,
                    ended: row.get(1)?,
                },
                store_upload_id: store_upload_id.map(StoreUploadId),
                at_address: false,
            })
        })?;
        let found: Vec<Owner> = found.collect::<Result<_>>()?;
        if found.is_empty() {
            owners.extend(owner_of_address(tx, key)?);
        }
        owners.extend(found);
    }
    Ok(owners)
}

/// Whose an object at an address is: of the upload that brought it, or is about to.
fn owner_of_address(tx: &Connection, key: &StoreKey) -> Result<Option<Owner>> {
    let mut statement = tx.prepare_cached(
        "SELECT o.upload_id AS id, s.ended_at IS NOT NULL OR s.id IS NULL
         FROM objects o LEFT JOIN upload_sessions s ON s.id = o.upload_id WHERE o.key = ?1",
    )?;
    statement
        .query_and_then([key.as_str()], |row| {
            Ok(Owner {
                key: key.clone(),
                upload: Known {
                    id: read_id(row, "id")?,
                    ended: row.get(1)?,
                },
                store_upload_id: None,
                at_address: true,
            })
        })?
        .next()
        .transpose()
}

/// Walks the two partial indices of what is open, and never what has ended.
pub(super) fn open(tx: &Connection) -> Result<Open> {
    Ok(Open {
        uploads: count(tx, OPEN, [])?,
    })
}

pub(super) const OPEN: &str = "SELECT
    (SELECT count(*) FROM upload_sessions WHERE state IN ('pending', 'uploading')) +
    (SELECT count(*) FROM upload_sessions WHERE state = 'assembling') AS n";

/// Changes the one row that is there to be changed.
pub(super) fn beat(tx: &Connection) -> Result<()> {
    tx.prepare_cached("UPDATE heartbeat SET beats = beats + 1")?
        .execute([])?;
    Ok(())
}

fn count(tx: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<u64> {
    tx.prepare_cached(sql)?
        .query_row(params, |row| Ok(number(row, "n")))?
}
