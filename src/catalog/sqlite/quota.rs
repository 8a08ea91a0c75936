//! Counting what is used up against what is allowed, in the transactions that use it.
//!
//! An upload is on the accounts of its device and its subject for the day that it was created on, and on those of its token and
//! its space for good. What it takes is charged when it is created, or with its bytes as they arrive where its length is not
//! known; when it ends, what it took is settled: a day keeps what arrived, a token and a space keep what is stored.
//!
//! Partial uploads count as none, their bytes as any. The final one that is made of them has brought none: its bytes count only
//! as stored, and theirs no longer once they are discarded.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::error::corrupt;
use super::rows::{self, column, integer, json, time, word};
use crate::catalog::{CatalogError, NewUpload, Result};
use crate::model::quota::Used;
use crate::model::upload::Role;
use crate::model::{
    Length, LimitHit, LimitName, Limits, Subject, Timestamp, UploadId, UploadOwner, UploadState,
};

const DAY_MS: i64 = 86_400_000;
/// What stands for a day where nothing begins anew.
const FOR_GOOD: i64 = -1;
/// Stands between the parts of an account's name, in none of which it can be.
const BETWEEN: char = '\n';

/// The day of a moment, counted from 1970-01-01.
pub(super) fn day(at: Timestamp) -> i64 {
    at.0.div_euclid(DAY_MS)
}

/// Where something is counted.
struct Account {
    kind: &'static str,
    name: String,
    /// Counted from 1970-01-01, or [`FOR_GOOD`].
    day: i64,
    uploads: LimitName,
    bytes: LimitName,
}

/// What changes on an account.
#[derive(Clone, Copy)]
struct Change {
    uploads: i64,
    bytes: i64,
}

fn accounts(owner: &UploadOwner, created_at: Timestamp) -> Vec<Account> {
    let space = owner.space.as_str();
    let mut accounts = vec![Account {
        kind: "space",
        name: space.to_owned(),
        day: FOR_GOOD,
        uploads: LimitName::Uploads,
        bytes: LimitName::StoredBytes,
    }];
    if let Some(token) = &owner.token {
        accounts.push(Account {
            kind: "token",
            name: token.to_string(),
            day: FOR_GOOD,
            uploads: LimitName::UploadsPerToken,
            bytes: LimitName::BytesPerToken,
        });
    }
    let subject = owner.subject.as_ref().map_or("", Subject::as_str);
    if !subject.is_empty() {
        accounts.push(Account {
            kind: "subject",
            name: format!("{space}{BETWEEN}{subject}"),
            day: day(created_at),
            uploads: LimitName::UploadsPerDayPerSubject,
            bytes: LimitName::BytesPerDayPerSubject,
        });
    }
    if let Some(device) = &owner.device {
        accounts.push(Account {
            kind: "device",
            name: format!("{space}{BETWEEN}{subject}{BETWEEN}{}", device.as_str()),
            day: day(created_at),
            uploads: LimitName::UploadsPerDayPerDevice,
            bytes: LimitName::BytesPerDayPerDevice,
        });
    }
    accounts
}

impl Account {
    fn resets_at(&self) -> Option<Timestamp> {
        (self.day != FOR_GOOD).then(|| Timestamp((self.day + 1) * DAY_MS))
    }

    /// Puts a change on the account. One that uses more may not go beyond the limits.
    fn charge(&self, tx: &Connection, change: Change, limits: &Limits) -> Result<()> {
        if change.uploads == 0 && change.bytes == 0 {
            return Ok(());
        }
        // Tokens are many, and most are not limited: they have no account then.
        let limited = limits.contains_key(&self.uploads) || limits.contains_key(&self.bytes);
        if self.kind == "token" && !limited && !self.exists(tx)? {
            return Ok(());
        }
        let (uploads, bytes) = tx
            .prepare_cached(
                "INSERT INTO usage (kind, name, day, uploads, bytes) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET uploads = uploads + ?4, bytes = bytes + ?5
                 RETURNING uploads, bytes",
            )?
            .query_row(
                params![self.kind, self.name, self.day, change.uploads, change.bytes],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
            )?;
        self.check(self.uploads, uploads, change.uploads, limits)?;
        self.check(self.bytes, bytes, change.bytes, limits)
    }

    fn exists(&self, tx: &Connection) -> Result<bool> {
        let mut found =
            tx.prepare_cached("SELECT 1 FROM usage WHERE kind = ?1 AND name = ?2 AND day = ?3")?;
        Ok(found.exists(params![self.kind, self.name, self.day])?)
    }

    fn check(&self, limit: LimitName, after: i64, more: i64, limits: &Limits) -> Result<()> {
        let Some(&allowed) = limits.get(&limit) else {
            return Ok(());
        };
        let used = |value: i64| u64::try_from(value).unwrap_or(0);
        if more <= 0 || used(after) <= allowed {
            return Ok(());
        }
        Err(CatalogError::Limited(LimitHit {
            limit,
            allowed,
            left: allowed.saturating_sub(used(after - more)),
            resets_at: self.resets_at(),
        }))
    }

    fn read(&self, tx: &Connection) -> Result<Change> {
        let found = tx
            .prepare_cached(
                "SELECT uploads, bytes FROM usage WHERE kind = ?1 AND name = ?2 AND day = ?3",
            )?
            .query_row(params![self.kind, self.name, self.day], |row| {
                Ok(Change {
                    uploads: row.get(0)?,
                    bytes: row.get(1)?,
                })
            })
            .optional()?;
        Ok(found.unwrap_or(Change {
            uploads: 0,
            bytes: 0,
        }))
    }
}

/// Charges a new upload, whose row is there.
pub(super) fn reserve(tx: &Connection, new: &NewUpload) -> Result<()> {
    check_open(tx, &new.owner, &new.limits, new.idle_since)?;
    let bytes = match new.role {
        Role::Final => repeated_bytes(tx, new.id)?,
        Role::Whole | Role::Partial => integer(new.length.unwrap_or_default().get())?,
    };
    let change = Change {
        uploads: uploads_of(new.role),
        bytes,
    };
    for account in accounts(&new.owner, new.now) {
        account.charge(tx, change, &new.limits)?;
    }
    let grows = new.length.is_none() && new.limits.keys().any(|limit| limit.is_of_bytes());
    let limits = grows.then(|| json(&new.limits)).transpose()?;
    tx.prepare_cached("UPDATE upload_sessions SET charged = ?2, limits = ?3 WHERE id = ?1")?
        .execute(params![new.id.as_bytes(), bytes, limits])?;
    Ok(())
}

/// The bytes that a final upload has beyond those of its parts, because it is made of some more than once.
fn repeated_bytes(tx: &Connection, id: UploadId) -> Result<i64> {
    Ok(tx
        .prepare_cached(
            "SELECT coalesce(sum(p.length * (c.times - 1)), 0)
             FROM (SELECT part_id, count(*) AS times FROM upload_concat WHERE final_id = ?1 GROUP BY part_id) c
             JOIN upload_sessions p ON p.id = c.part_id",
        )?
        .query_row([id.as_bytes()], |row| row.get(0))?)
}

fn uploads_of(role: Role) -> i64 {
    i64::from(role != Role::Partial)
}

/// How many uploads of a token are open. The partial ones that a client has at once are one, but no more than 64 of them.
const OPEN_OF_TOKEN: &str = "SELECT coalesce(sum(role <> 'partial'), 0) + (coalesce(sum(role = 'partial'), 0) + 63) / 64
    FROM upload_sessions WHERE state IN ('pending', 'uploading') AND token = ?2 AND updated_at > ?1";
/// The same of a device.
const OPEN_OF_DEVICE: &str =
    "SELECT coalesce(sum(role <> 'partial'), 0) + (coalesce(sum(role = 'partial'), 0) + 63) / 64
    FROM upload_sessions WHERE state IN ('pending', 'uploading')
      AND space = ?2 AND subject IS ?3 AND device = ?4 AND updated_at > ?1";

/// How many are open of what a limit is about; `None` where it is about nothing of this owner.
fn open_of(
    tx: &Connection,
    limit: LimitName,
    owner: &UploadOwner,
    idle_since: Timestamp,
) -> Result<Option<u64>> {
    let subject = owner.subject.as_ref().map(Subject::as_str);
    let open: i64 = match (limit, &owner.token, &owner.device) {
        (LimitName::OpenPerToken, Some(token), _) => tx
            .prepare_cached(OPEN_OF_TOKEN)?
            .query_row(params![idle_since.0, token.as_str()], |row| row.get(0))?,
        (LimitName::OpenPerDevice, _, Some(device)) => {
            tx.prepare_cached(OPEN_OF_DEVICE)?.query_row(
                params![idle_since.0, owner.space.as_str(), subject, device.as_str()],
                |row| row.get(0),
            )?
        }
        _ => return Ok(None),
    };
    Ok(Some(u64::try_from(open).unwrap_or(0)))
}

/// Whether as many uploads are open, with the one that was just put in, as may be.
fn check_open(
    tx: &Connection,
    owner: &UploadOwner,
    limits: &Limits,
    idle_since: Timestamp,
) -> Result<()> {
    for (&limit, &allowed) in limits.iter().filter(|(limit, _)| limit.is_of_open()) {
        let open = open_of(tx, limit, owner, idle_since)?;
        if open.is_some_and(|open| open > allowed) {
            return Err(CatalogError::Limited(LimitHit {
                limit,
                allowed,
                left: 0,
                resets_at: None,
            }));
        }
    }
    Ok(())
}

/// What of an upload decides about its accounts.
struct Charged {
    role: Role,
    was_completed: bool,
    bytes: i64,
    limits: Limits,
    accounts: Vec<Account>,
}

fn charged(tx: &Connection, id: UploadId) -> Result<Charged> {
    tx.prepare_cached(
        "SELECT role, state = 'completed' AS was_completed, charged, limits, created_at,
                space, subject, token, device
         FROM upload_sessions WHERE id = ?1",
    )?
    .query_row([id.as_bytes()], |row| Ok(read_charged(row)))?
}

fn read_charged(row: &Row<'_>) -> Result<Charged> {
    let limits = match column::<Option<String>>(row, "limits")? {
        Some(text) => serde_json::from_str(&text).map_err(|error| corrupt("limits", error))?,
        None => Limits::new(),
    };
    Ok(Charged {
        role: word(row, "role")?,
        was_completed: column(row, "was_completed")?,
        bytes: column(row, "charged")?,
        limits,
        accounts: accounts(&rows::read_owner(row)?, time(row, "created_at")?),
    })
}

/// Charges what has arrived of an upload whose length was not known when it was created. `length`: as it is known now.
pub(super) fn grow(tx: &Connection, id: UploadId, length: Option<Length>) -> Result<()> {
    let charged = charged(tx, id)?;
    let bytes = match length {
        Some(length) => integer(length.get())?,
        None => arrived(tx, id)?,
    };
    if charged.role == Role::Final || bytes <= charged.bytes {
        return Ok(());
    }
    let change = Change {
        uploads: 0,
        bytes: bytes - charged.bytes,
    };
    for account in &charged.accounts {
        account.charge(tx, change, &charged.limits)?;
    }
    set_charged(tx, id, bytes)
}

/// Settles the accounts of an upload that ends. Its row is as it was before, and so are its ranges.
pub(super) fn settle(tx: &Connection, id: UploadId, ends: &UploadState) -> Result<()> {
    let Charged {
        role,
        was_completed,
        bytes: charged,
        accounts,
        ..
    } = charged(tx, id)?;
    let (stored, on_the_day) = match ends {
        UploadState::Completed { object, .. } => {
            let size = integer(object.size.get())?;
            (size, size)
        }
        _ if was_completed => (0, charged),
        _ => (0, arrived(tx, id)?),
    };
    let stays = matches!(ends, UploadState::Completed { .. });
    for account in accounts {
        let (is_space, for_good) = (account.kind == "space", account.day == FOR_GOOD);
        // What a token has brought, it has brought. The bytes of a final upload were brought by its parts.
        let past_changing = !is_space && (was_completed || (role == Role::Final && stays));
        if past_changing {
            continue;
        }
        let kept = if for_good { stored } else { on_the_day };
        let change = Change {
            uploads: if for_good && !stays {
                -uploads_of(role)
            } else {
                0
            },
            bytes: kept - charged,
        };
        account.charge(tx, change, &Limits::new())?;
    }
    set_charged(tx, id, stored)
}

/// What a completed upload has stored stays on its space's account when it ends: its object stays, too.
pub(super) fn keep(tx: &Connection, id: UploadId) -> Result<()> {
    let Charged { role, accounts, .. } = charged(tx, id)?;
    let one_more = Change {
        uploads: uploads_of(role),
        bytes: 0,
    };
    for account in accounts.iter().filter(|account| account.kind == "space") {
        // Its ending takes it away again.
        account.charge(tx, one_more, &Limits::new())?;
    }
    set_charged(tx, id, 0)
}

/// How much of each limit is used up.
pub(super) fn used(
    tx: &Connection,
    owner: &UploadOwner,
    limits: &Limits,
    idle_since: Timestamp,
    now: Timestamp,
) -> Result<Vec<Used>> {
    let accounts = accounts(owner, now);
    let mut all = Vec::new();
    for (&limit, &allowed) in limits {
        let account = |account: &&Account| account.uploads == limit || account.bytes == limit;
        let (used, resets_at) = if let Some(account) = accounts.iter().find(account) {
            let change = account.read(tx)?;
            let used = if account.bytes == limit {
                change.bytes
            } else {
                change.uploads
            };
            (u64::try_from(used).unwrap_or(0), account.resets_at())
        } else if let Some(open) = open_of(tx, limit, owner, idle_since)? {
            (open, None)
        } else {
            continue;
        };
        all.push(Used {
            limit,
            allowed,
            used,
            left: allowed.saturating_sub(used),
            resets_at,
        });
    }
    Ok(all)
}

fn set_charged(tx: &Connection, id: UploadId, bytes: i64) -> Result<()> {
    tx.prepare_cached("UPDATE upload_sessions SET charged = ?2 WHERE id = ?1")?
        .execute(params![id.as_bytes(), bytes])?;
    Ok(())
}

fn arrived(tx: &Connection, id: UploadId) -> Result<i64> {
    Ok(tx
        .prepare_cached(
            "SELECT coalesce(sum(stop - start), 0) FROM upload_ranges WHERE upload_id = ?1",
        )?
        .query_row([id.as_bytes()], |row| row.get(0))?)
}
