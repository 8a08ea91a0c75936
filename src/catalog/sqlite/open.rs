//! Opening and migrating the file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::BUSY_TIMEOUT;
use super::error::is_passing;

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Pages in the write-ahead log before they are copied into the database: 8 MiB at 4 KiB a page.
const CHECKPOINT_PAGES: u32 = 2048;
/// What the write-ahead log is cut back to after a burst, in bytes.
const WAL_LIMIT_BYTES: u32 = 64 * 1024 * 1024;
/// How often migrating is tried. Each time it fails because of another process, that one has come further.
const MIGRATE_TRIES: u32 = 40;
/// How long to let the other process work in between.
const MIGRATE_PAUSE: Duration = Duration::from_millis(50);
/// More statements than the catalog has.
const CACHED_STATEMENTS: usize = 128;

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Until the disk has it: survives a power cut.
    Full,
    /// Until the operating system has it: survives the death of the process.
    Normal,
}

/// Why the catalog's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the file cannot be made.
    #[error("the folder of the catalog {path:?} cannot be made")]
    Folder {
        /// The catalog's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite cannot open, read or set up the file.
    #[error("the catalog {path:?} cannot be opened")]
    Sqlite {
        /// The catalog's file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A newer version has migrated the file.
    #[error(
        "the catalog {path:?} has schema {found}, newer than {known}, the newest that this version knows: use a newer version"
    )]
    Newer {
        /// The catalog's file.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
    /// The file is not there, or not migrated to this version.
    #[error(
        "the catalog {path:?} has schema {found}, this version needs {known}: migrate it first"
    )]
    Older {
        /// The catalog's file.
        path: PathBuf,
        /// The file's schema; 0 if there is none.
        found: i64,
        /// The schema that this version needs.
        known: i64,
    },
    /// A migration failed; none of those that were to be applied is.
    #[error("the catalog {path:?} cannot be migrated")]
    Migration {
        /// The catalog's file.
        path: PathBuf,
        /// Why.
        source: Box<refinery::Error>,
    },
    /// The system gives no thread for writing.
    #[error("no thread for the catalog")]
    Thread(#[source] io::Error),
}

impl OpenError {
    /// Whether another process that migrates the same file may be the reason.
    fn may_pass(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => is_passing(source),
            Self::Migration { .. } => true,
            _ => false,
        }
    }

    fn sqlite(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Sqlite {
            path: path.to_owned(),
            source,
        }
    }
}

/// Brings the file at `path` to this version's schema, making it and its folder where they are missing. Returns the
/// migrations that were applied, by name; none if it was there already. Repeatable, also by several processes at once.
/// Blocks.
pub fn migrate(path: &Path) -> Result<Vec<String>, OpenError> {
    make_folder(path).map_err(|source| OpenError::Folder {
        path: path.to_owned(),
        source,
    })?;
    // SQLite does not wait for a lock when it turns the log on or when a reader becomes a writer, and whoever looked before
    // another process was done finds the tables there. Looking again answers all of it.
    let mut tries = 1;
    loop {
        match migrate_once(path) {
            Err(error) if tries < MIGRATE_TRIES && error.may_pass() => {
                tries += 1;
                std::thread::sleep(MIGRATE_PAUSE);
            }
            done => return done,
        }
    }
}

fn migrate_once(path: &Path) -> Result<Vec<String>, OpenError> {
    let sqlite = || OpenError::sqlite(path);
    let mut connection = Connection::open(path).map_err(sqlite())?;
    set_up(&connection, Synchronous::Full, BUSY_TIMEOUT).map_err(sqlite())?;
    let known = known();
    let found = found(&connection).map_err(sqlite())?;
    if found > known {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    let report = embedded::migrations::runner()
        .set_grouped(true)
        .run(&mut connection)
        .map_err(|source| OpenError::Migration {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
    Ok(report
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect())
}

/// The connection that writes, to a file that has exactly this version's schema.
pub(super) fn for_writing(
    path: &Path,
    synchronous: Synchronous,
    busy_timeout: Duration,
) -> Result<Connection, OpenError> {
    let sqlite = || OpenError::sqlite(path);
    let known = known();
    let older = |found| OpenError::Older {
        path: path.to_owned(),
        found,
        known,
    };
    if !path.exists() {
        return Err(older(0));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite())?;
    set_up(&connection, synchronous, busy_timeout).map_err(sqlite())?;
    match found(&connection).map_err(sqlite())? {
        found if found > known => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        }),
        found if found < known => Err(older(found)),
        _ => Ok(connection),
    }
}

/// A connection that can only read.
pub(super) fn for_reading(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    keep_plans(&connection)?;
    Ok(connection)
}

/// Statements are prepared once. Without the guarantee SQLite prepares one anew for each value that is bound to a column of an
/// index, in case another plan would suit the value better.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn set_up(
    connection: &Connection,
    synchronous: Synchronous,
    busy_timeout: Duration,
) -> rusqlite::Result<()> {
    connection.busy_timeout(busy_timeout)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(
        None,
        "synchronous",
        match synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        },
    )?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    keep_plans(connection)
}

/// The newest schema that this version knows.
fn known() -> i64 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|migration| i64::from(migration.version()))
        .max()
        .unwrap_or(0)
}

/// The schema that the file has; 0 for a file without one.
fn found(connection: &Connection) -> rusqlite::Result<i64> {
    let migrated = connection
        .query_row(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'refinery_schema_history'",
            [],
            |_| Ok(()),
        )
        .optional()?;
    if migrated.is_none() {
        return Ok(0);
    }
    connection.query_row(
        "SELECT coalesce(max(version), 0) FROM refinery_schema_history",
        [],
        |row| row.get(0),
    )
}

/// Makes the folder of `path`, and syncs what is new of it: SQLite itself syncs only the folder that the file is in.
fn make_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    std::fs::create_dir_all(folder)?;
    for made in missing {
        let above = made
            .parent()
            .filter(|above| !above.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(above)?.sync_all()?;
    }
    Ok(())
}
