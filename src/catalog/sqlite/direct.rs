//! Until when URLs of an upload's parts may be good.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::rows::{small, time};
use super::writing::owned;
use crate::catalog::{CatalogError, Result};
use crate::model::upload::Epoch;
use crate::model::{PartNumber, Timestamp, UploadId};

pub(super) fn open(
    tx: &Connection,
    id: UploadId,
    epoch: Epoch,
    numbers: &[PartNumber],
    until: Timestamp,
) -> Result<()> {
    if !owned(tx, id, epoch)?.takes_bytes() {
        return Err(CatalogError::Stale);
    }
    let mut statement = tx.prepare_cached(
        "INSERT INTO direct_parts (upload_id, number, until) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
    )?;
    for number in numbers {
        statement.execute(params![id.as_bytes(), number.0, until.0])?;
    }
    Ok(())
}

pub(super) fn close(tx: &Connection, id: UploadId, numbers: &[PartNumber]) -> Result<()> {
    for number in numbers {
        tx.prepare_cached("DELETE FROM direct_parts WHERE upload_id = ?1 AND number = ?2")?
            .execute(params![id.as_bytes(), number.0])?;
    }
    Ok(())
}

pub(super) fn forget(tx: &Connection, id: UploadId) -> Result<()> {
    tx.prepare_cached("DELETE FROM direct_parts WHERE upload_id = ?1")?
        .execute([id.as_bytes()])?;
    Ok(())
}

pub(super) fn of(tx: &Connection, id: UploadId) -> Result<BTreeMap<PartNumber, Timestamp>> {
    tx.prepare_cached(
        "SELECT number, until FROM direct_parts WHERE upload_id = ?1 ORDER BY number",
    )?
    .query_and_then([id.as_bytes()], |row| {
        Ok((PartNumber(small(row, "number")?), time(row, "until")?))
    })?
    .collect()
}
