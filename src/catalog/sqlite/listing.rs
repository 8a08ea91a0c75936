//! Looking at what is there, for those who look after the server.

use rusqlite::{Connection, params};

use super::rows::{column, number, read_id, upload};
use crate::catalog::{CatalogError, Filter, Result, SpaceUsage};
use crate::model::{SpaceName, Upload, UploadId};

/// Ids begin with the time of their making, so that their order is that of the uploads' creation.
const LIST: &str = "SELECT id FROM upload_sessions
    WHERE (?1 IS NULL OR id < ?1) AND (?2 IS NULL OR space = ?2) AND (?3 IS NULL OR state = ?3)
      AND (?4 IS NULL OR created_at <= ?4)
    ORDER BY id DESC LIMIT ?5";

pub(super) fn list(tx: &Connection, filter: &Filter, limit: u32) -> Result<Vec<Upload>> {
    let ids: Vec<UploadId> = tx
        .prepare_cached(LIST)?
        .query_and_then(
            params![
                filter.after.as_ref().map(UploadId::as_bytes),
                filter.space.as_ref().map(SpaceName::as_str),
                filter.state,
                filter.created_until.map(|at| at.0),
                limit,
            ],
            |row| read_id(row, "id"),
        )?
        .collect::<Result<_>>()?;
    ids.into_iter()
        .map(|id| upload(tx, id)?.ok_or(CatalogError::NotFound))
        .collect()
}

pub(super) fn spaces(tx: &Connection) -> Result<Vec<SpaceUsage>> {
    tx.prepare_cached(
        "SELECT name, uploads, bytes,
                (SELECT count(*) FROM upload_sessions s
                 WHERE s.state IN ('pending', 'uploading') AND s.space = usage.name) AS open
         FROM usage WHERE kind = 'space' ORDER BY name",
    )?
    .query_and_then([], |row| {
        Ok(SpaceUsage {
            space: column(row, "name")?,
            uploads: number(row, "uploads")?,
            bytes: number(row, "bytes")?,
            open: number(row, "open")?,
        })
    })?
    .collect()
}
