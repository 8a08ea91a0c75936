//! The received ranges, as rows that never touch or overlap.
//!
//! Adding one looks only at its neighbours, so that 10,000 chunks out of order cost 10,000 look-ups.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{integer, number};
use crate::catalog::Result;
use crate::model::{ByteRange, Length, UploadId};

/// Adds a range, merged with what it touches or overlaps.
pub(super) fn insert(tx: &Connection, id: UploadId, range: ByteRange) -> Result<()> {
    // Only one range can start before this one and reach it: any other would touch that one.
    let before = tx
        .prepare_cached(
            "SELECT start, stop FROM upload_ranges
             WHERE upload_id = ?1 AND start <= ?2 ORDER BY start DESC LIMIT 1",
        )?
        .query_row(params![id.as_bytes(), integer(range.start())?], |row| {
            Ok(number(row, "start").and_then(|start| Ok((start, number(row, "stop")?))))
        })
        .optional()?
        .transpose()?
        .filter(|(_, stop)| *stop >= range.start());
    let (start, mut stop) = match before {
        Some((_, stop)) if stop >= range.end() => return Ok(()),
        Some((start, stop)) => (start, stop.max(range.end())),
        None => (range.start(), range.end()),
    };
    let within = params![
        id.as_bytes(),
        integer(range.start())?,
        integer(range.end())?
    ];
    let reaches: Option<i64> = tx
        .prepare_cached(
            "SELECT max(stop) FROM upload_ranges
             WHERE upload_id = ?1 AND start > ?2 AND start <= ?3",
        )?
        .query_row(within, |row| row.get(0))?;
    if let Some(reaches) = reaches {
        tx.prepare_cached(
            "DELETE FROM upload_ranges WHERE upload_id = ?1 AND start > ?2 AND start <= ?3",
        )?
        .execute(within)?;
        stop = stop.max(u64::try_from(reaches).unwrap_or(0));
    }
    tx.prepare_cached(
        "INSERT INTO upload_ranges (upload_id, start, stop) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET stop = excluded.stop",
    )?
    .execute(params![id.as_bytes(), integer(start)?, integer(stop)?])?;
    Ok(())
}

/// Whether every byte of `length` is there.
pub(super) fn cover(tx: &Connection, id: UploadId, length: Length) -> Result<bool> {
    if length.get() == 0 {
        return Ok(true);
    }
    let first: Option<i64> = tx
        .prepare_cached("SELECT stop FROM upload_ranges WHERE upload_id = ?1 AND start = 0")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(first.is_some_and(|stop| u64::try_from(stop).is_ok_and(|stop| stop >= length.get())))
}

/// Whether a byte is there that lies at or after `length`.
pub(super) fn exceed(tx: &Connection, id: UploadId, length: Length) -> Result<bool> {
    let last: Option<i64> = tx
        .prepare_cached(
            "SELECT stop FROM upload_ranges WHERE upload_id = ?1 ORDER BY start DESC LIMIT 1",
        )?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(last.is_some_and(|stop| u64::try_from(stop).is_ok_and(|stop| stop > length.get())))
}
