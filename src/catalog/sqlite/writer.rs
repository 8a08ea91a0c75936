//! The one thread that writes.
//!
//! It takes what is queued, runs each operation in a savepoint of its own inside one transaction, commits once, and
//! answers after the commit: the cost of making it durable is shared. An operation that fails takes only its own changes
//! back. If the transaction fails, so does all that was in it, and the thread goes on with what comes next.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::unavailable;
use crate::catalog::{CatalogError, Result};

/// How many operations may wait. Whoever comes after waits for a place.
const QUEUE: usize = 1024;
/// The most operations that share a transaction, so that the first in it need not wait for ever.
const BATCH: usize = 256;

/// The way to the thread. Dropping it stops the thread after what is queued.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("jumar-catalog".to_owned())
            .spawn(move || work(&connection, jobs))?;
        Ok(Self { queue })
    }

    /// Runs `operation` in a transaction that is durable when this returns `Ok`. Dropped, it is run or not.
    pub(super) async fn run<T, F>(&self, operation: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Operation {
            work: Some(operation),
            result: None,
            reply,
        });
        let stopped = || unavailable("its thread has stopped");
        self.queue.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// An operation of any result.
trait Job: Send {
    /// Runs it; whether it succeeded.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Tells its caller: its own result if the transaction was committed, else why not.
    fn answer(self: Box<Self>, committed: std::result::Result<(), NotCommitted>);
}

struct Operation<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        self.result = self.work.take().map(|work| work(connection));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, committed: std::result::Result<(), NotCommitted>) {
        let result = match committed {
            Ok(()) => self
                .result
                .unwrap_or_else(|| Err(unavailable("it was not run"))),
            Err(why) => Err(CatalogError::Unavailable(Box::new(why))),
        };
        // Whoever asked may have gone.
        let _ = self.reply.send(result);
    }
}

/// Why a transaction was not committed.
#[derive(Debug, Clone, thiserror::Error)]
enum NotCommitted {
    #[error("the transaction failed")]
    Failed(#[from] Arc<rusqlite::Error>),
    #[error("SQLite took the transaction back")]
    TakenBack,
}

impl From<rusqlite::Error> for NotCommitted {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}

fn work(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let started = Instant::now();
        let committed = transact(connection, &mut batch);
        metrics::histogram!("jumar_catalog_commit_duration_seconds")
            .record(started.elapsed().as_secs_f64());
        for job in batch {
            job.answer(committed.clone());
        }
    }
}

fn transact(
    connection: &Connection,
    batch: &mut [Box<dyn Job>],
) -> std::result::Result<(), NotCommitted> {
    let outcome = run_all(connection, batch);
    if outcome.is_err() && !connection.is_autocommit() {
        // Nothing to do if this fails too: the next BEGIN then fails, and we are back here.
        let _ = execute(connection, "ROLLBACK");
    }
    outcome
}

fn run_all(
    connection: &Connection,
    batch: &mut [Box<dyn Job>],
) -> std::result::Result<(), NotCommitted> {
    execute(connection, "BEGIN IMMEDIATE")?;
    for job in batch {
        execute(connection, "SAVEPOINT operation")?;
        let done = job.run(connection);
        // Some errors (a full disk, a failed read) end the whole transaction, with what the operations before have done.
        if connection.is_autocommit() {
            return Err(NotCommitted::TakenBack);
        }
        if !done {
            execute(connection, "ROLLBACK TO operation")?;
        }
        execute(connection, "RELEASE operation")?;
    }
    execute(connection, "COMMIT")?;
    Ok(())
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
